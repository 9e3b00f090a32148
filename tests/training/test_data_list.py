"""A run is refused other data than it was begun with, however the same data is spelled."""

import io
import json
import tarfile
from pathlib import Path

import pytest

from clip_jax.data.tar import TarTable
from clip_jax.errors import UserError
from clip_jax.training.data_list import FILE, check_data, data_list


def shard(path: Path, samples: range) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for number in samples:
            for name, data in ((f"{number:04d}.jpg", b"image"), (f"{number:04d}.txt", b"caption")):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return path


def note(workdir: Path, *shards: Path | str) -> None:
    (workdir / FILE).write_text(json.dumps(data_list({"tar:shards": TarTable(shards)})))


def check(workdir: Path, *shards: Path | str) -> None:
    check_data(workdir, data_list({"tar:shards": TarTable(shards)}))


@pytest.fixture
def begun(tmp_path) -> list[Path]:
    """The shards of a run that was begun in `tmp_path`."""
    shards = [shard(tmp_path / "data/0.tar", range(10)), shard(tmp_path / "data/1.tar", range(10, 300))]
    note(tmp_path, *shards)
    return shards


def test_the_same_data_by_another_path(tmp_path, begun, monkeypatch):
    check(tmp_path, *begun)
    monkeypatch.chdir(tmp_path)
    check(tmp_path, "data/0.tar", "data/1.tar")
    (tmp_path / "data").rename(tmp_path / "mounted elsewhere")
    check(tmp_path, "mounted elsewhere/0.tar", "mounted elsewhere/1.tar")


def refusal(workdir: Path, *shards: Path) -> str:
    with pytest.raises(UserError, match="the data tar:shards has changed since the run in") as raised:
        check(workdir, *shards)
    return str(raised.value)


def test_what_changed_is_named(tmp_path, begun):
    first, second = begun
    assert "began: 1.tar is gone;" in refusal(tmp_path, first)
    third = shard(tmp_path / "data/2.tar", range(300, 305))
    assert "began: 2.tar is new;" in refusal(tmp_path, first, second, third)
    assert "began: its files come in another order;" in refusal(tmp_path, second, first)
    shard(second, range(10, 299))
    assert "began: 1.tar has 289 samples instead of 290;" in refusal(tmp_path, first, second)
    others = [shard(tmp_path / f"data/x{number}.tar", range(3)) for number in range(8)]
    assert "began: 0.tar is gone, 1.tar is gone, x0.tar is new, " in refusal(tmp_path, *others)
    assert ", x2.tar is new and 5 more differences;" in refusal(tmp_path, *others)


@pytest.mark.parametrize("samples", [range(11, 301), range(10_010, 10_300)], ids=["moved", "replaced"])
def test_other_samples_in_as_large_a_file(tmp_path, begun, samples):
    first, second = begun
    shard(second, samples)
    assert "began: 1.tar holds other samples;" in refusal(tmp_path, first, second)
