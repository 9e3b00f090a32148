import io
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from clip_jax.data.folder import FolderTable
from clip_jax.data.spec import Spec, expand, expand_braces, open_table, parse_spec
from clip_jax.data.tar import TarTable
from clip_jax.errors import UserError


def simple_shard(path: Path, first: int, samples: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for number in range(first, first + samples):
            for name, data in ((f"{number}.jpg", b"image"), (f"{number}.txt", f"caption {number}".encode())):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("tar:a/{00000..00012}.tar", Spec("tar", "a/{00000..00012}.tar")),
        ("tar:a/*.tar?captions=alt", Spec("tar", "a/*.tar", (("captions", "alt"),))),
        ("folder:pets", Spec("folder", "pets")),
        ("scenes:held_out?images=10&seed=3", Spec("scenes", "held_out", (("images", "10"), ("seed", "3")))),
        ("shards/{0..3}.tar?captions=", Spec("tar", "shards/{0..3}.tar", (("captions", ""),))),
        ("./a:b/x.tar", Spec("tar", "./a:b/x.tar")),
        ("tar:a:b.tar", Spec("tar", "a:b.tar")),
    ],
)
def test_parses(text, spec):
    assert parse_spec(text) == spec


def test_recognises_bare_paths(tmp_path):
    simple_shard(tmp_path / "shards/1.tar", 0, 2)
    (tmp_path / "pets/cat").mkdir(parents=True)
    (tmp_path / "list.csv").touch()
    assert parse_spec(f"{tmp_path}/shards").kind == "tar"
    assert parse_spec(f"{tmp_path}/shards/1.tar?captions=x").options == (("captions", "x"),)
    assert parse_spec(f"{tmp_path}/pets").kind == "folder"
    with pytest.raises(UserError, match="neither a tar nor a folder"):
        parse_spec(f"{tmp_path}/list.csv")
    with pytest.raises(UserError, match="there is no file or folder"):
        parse_spec(f"{tmp_path}/missing")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tars:x.tar", "no data of kind 'tars'; did you mean 'tar'"),
        ("floder:x", "did you mean 'folder'"),
        ("zzz:x", "valid are .*csv.*tar"),
        ("tfds:cifar10", "kind 'tfds' is not supported yet; supported are tar, folder, scenes"),
        ("csv:x.csv", "kind 'csv' is not supported yet"),
        ("gs://bucket/x.tar", "is remote"),
        ("tar:gs://bucket/x.tar", "is remote"),
        ("https://host/x.tar", "is remote"),
        ("tar:", "has no location"),
        ("", "has no location"),
        ("tar:x.tar?caption=a", "'tar' has no option 'caption'; did you mean 'captions'"),
        ("scenes:train?sede=1", "did you mean 'seed'"),
        ("folder:x?a=b", "'folder' has no option 'a'; it takes none"),
        ("tar:x.tar?captions", "'captions' in the data spec .* is not key=value"),
        ("tar:x.tar?=a", "not key=value"),
        ("tar:x.tar?", "not key=value"),
        ("tar:x.tar?captions=a&captions=b", "each key once"),
    ],
)
def test_refuses(text, message):
    with pytest.raises(UserError, match=message) as error:
        parse_spec(text)
    assert "\n" not in str(error.value)


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
        simple_shard(tmp_path / name, 0, 1)
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


def test_opens_tables(tmp_path):
    for shard in range(3):
        simple_shard(tmp_path / f"shards/{shard}.tar", shard * 2, 2)
    (tmp_path / "pets/cat").mkdir(parents=True)
    (tmp_path / "pets/cat/1.jpg").write_bytes(b"image")
    for text in (f"tar:{tmp_path}/shards/{{0..2}}.tar", f"{tmp_path}/shards", f"tar:{tmp_path}/shards/*.tar"):
        table = open_table(text)
        assert isinstance(table, TarTable)
        assert [s.captions for s in table.read(range(6))] == [(f"caption {i}",) for i in range(6)]
    with pytest.raises(UserError, match="captions='alt'"):
        open_table(f"{tmp_path}/shards?captions=alt").read([0])
    for text in (f"folder:{tmp_path}/pets", f"{tmp_path}/pets"):
        table = open_table(text)
        assert isinstance(table, FolderTable)
        assert table.class_names == ("cat",)


def test_opens_scenes():
    table = open_table("scenes:held_out?images=5&seed=1")
    assert len(table) == 5
    assert table.read([4])[0].label is not None
