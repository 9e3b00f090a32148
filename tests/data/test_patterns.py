import io
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from clip_jax.data.patterns import distinguish, expand, expand_braces
from clip_jax.errors import UserError


def simple_shard(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        tar.addfile(tarfile.TarInfo("empty.jpg"), io.BytesIO())


@pytest.mark.skipif(shutil.which("bash") is None, reason="compares with bash")
@pytest.mark.parametrize(
    "pattern",
    [
        "plain.tar",
        "{00000..00012}.tar",
        "{0..12}.tar",
        "{8..11}",
        "{008..11}",
        "{8..011}",
        "{3..1}",
        "{5..5}",
        "a{b,c}d{0..1}e",
        "{train,test}/{00..02}.tar",
        "{a,}x",
        "{single}",
        "{a..}",
        "{}",
        "un{closed",
    ],
)
def test_braces_expand_as_in_bash(pattern):
    shell = subprocess.run(["bash", "-c", f"printf '%s\\n' {pattern}"], capture_output=True, text=True, check=True)
    assert expand_braces(pattern) == shell.stdout.splitlines()


def test_expands_to_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("b/00001.tar", "b/00000.tar", "a/00000.tar", "a/other.txt", "a/x[1].tar"):
        simple_shard(tmp_path / name)
    assert expand("{b,a}/00000.tar") == ["b/00000.tar", "a/00000.tar"]
    assert expand("b/*.tar") == ["b/00000.tar", "b/00001.tar"]
    assert expand("{a,b}/0*.tar") == ["a/00000.tar", "b/00000.tar", "b/00001.tar"]
    assert expand("b") == ["b/00000.tar", "b/00001.tar"]
    assert expand("a/x[1].tar") == ["a/x[1].tar"]
    monkeypatch.setenv("HOME", str(tmp_path))
    assert expand("~/a/00000.tar") == [f"{tmp_path}/a/00000.tar"]
    with pytest.raises(UserError, match=r"no file matches b/00002\.tar \(of b/\{00000\.\.00003\}\.tar\)"):
        expand("b/{00000..00003}.tar")
    with pytest.raises(UserError, match=r"no file matches c/\*\.tar; give"):
        expand("c/*.tar")


def test_folders_of_other_files(tmp_path):
    for name in ("b.tfrecord-1", "a.tfrecord", "a.tfrecord.index.npz", "other.txt"):
        (tmp_path / name).touch()
    assert expand(str(tmp_path), "*.tfrecord*") == [f"{tmp_path}/a.tfrecord", f"{tmp_path}/b.tfrecord-1"]
    assert expand(f"{tmp_path}/*rec*") == [f"{tmp_path}/a.tfrecord", f"{tmp_path}/b.tfrecord-1"]


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["/a/x/0.tar", "/a/y/0.tar"], ["x/0", "y/0"]),
        (["/a/0.tar"], ["0"]),
        (["gs://b/x/0.tar", "gs://b/1.tar"], ["x/0", "1"]),
        (["gs://b/0.tar", "gs://c/0.tar"], ["b/0", "c/0"]),
        (["s3://b/0.tar", "gs://b/0.tar"], ["s3/b/0", "gs/b/0"]),
    ],
)
def test_distinguishes(paths, names):
    assert distinguish(paths, ".tar") == names
