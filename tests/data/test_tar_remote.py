"""Tars on another machine: one in memory that answers at once, and one whose every answer takes 50 ms."""

import io
import tarfile

import fsspec
import numpy as np
import pytest
from support.distant import distant_files

from clip_jax.data import ranges
from clip_jax.data.index_report import index_report
from clip_jax.data.spec import open_table
from clip_jax.data.table import BadSample, Sample, Table
from clip_jax.errors import UserError

SIZE = 20_000  # bytes of an image


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def distant():
    with distant_files() as system:
        yield system


def image(number: int) -> bytes:
    return np.random.default_rng(number).bytes(SIZE)


def tar(first: int, samples: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as file:
        for number in range(first, first + samples):
            content = {"jpg": image(number), "txt": f"caption {number}".encode(), "cls": str(number % 2).encode()}
            for extension, data in content.items():
                info = tarfile.TarInfo(f"{number:04d}.{extension}")
                info.size = len(data)
                file.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def sample(number: int, shard: str) -> Sample:
    return Sample(f"{shard}/{number:04d}", image(number), (f"caption {number}",), number % 2)


@pytest.mark.parametrize(
    "text", ["tar:memory://remote/s/{0..1}.tar", "memory://remote/s/*.tar", "tar:memory://remote/s"]
)
def test_reads_through_fsspec(text):
    memory = fsspec.filesystem("memory")
    for shard in range(2):
        memory.pipe_file(f"/remote/s/{shard}.tar", tar(shard * 5, 5))
    memory.pipe_file("/remote/classnames.txt", b"even\nodd\n")
    for _ in range(2):  # without an index, and with
        table = open_table(text)
        assert isinstance(table, Table)
        assert table.is_remote
        assert list(table.parts.values()) == [5, 5]
        assert table.class_names == ("even", "odd")
        assert table.read([7, 0, 7]) == [sample(7, "1"), sample(0, "0"), sample(7, "1")]
        assert memory.exists("/remote/s/1.tar.index.npz")


def test_adjacent_samples_take_a_handful_of_requests(distant, monkeypatch):
    monkeypatch.setattr(ranges, "_REMOTE_LIMIT", 2**20)  # shrunk like the samples, so that there are several stretches
    for shard in range(2):
        distant.store(f"box/{shard}.tar", tar(shard * 200, 200))
    table = open_table("distant://box/{0..1}.tar")
    distant.calls.clear()
    distant.most_at_once, distant.latency = 0, 0.05
    indices = np.random.default_rng(0).permutation(256) + 100  # of both shards
    assert table.read(indices) == [sample(i, str(i // 200)) for i in indices.tolist()]
    # 100 and 156 times 22 KB in stretches of up to 1 MB: 3 and 4; and whether both shards are still what they were.
    assert distant.calls == {"read": 7, "info": 2}
    assert distant.most_at_once >= 7


def test_opening_with_an_index_takes_few_requests(distant):
    distant.store("box/0.tar", tar(0, 100))
    open_table("distant://box/0.tar")
    distant.calls.clear()
    assert len(open_table("distant://box/0.tar")) == 100
    assert distant.calls["read"] == 1  # the index
    assert distant.calls.total() < 10


def test_indexing_reads_a_shard_once_in_large_blocks(distant, monkeypatch):
    monkeypatch.setattr(ranges, "_BLOCK", 100_000)
    content = tar(0, 50)
    distant.store("box/0.tar", content)
    open_table("distant://box/0.tar")
    assert distant.calls["read"] <= len(content) / 100_000 * 1.5 + 4


def test_a_new_version_is_indexed_anew(distant):
    distant.store("box/0.tar", tar(0, 3))
    assert open_table("distant://box/0.tar").keys([0]) == ["0/0000"]
    distant.store("box/0.tar", tar(4, 3))  # of the same size
    table = open_table("distant://box/0.tar")
    assert table.keys([0]) == ["0/0004"]
    distant.store("box/0.tar", tar(8, 3))  # of the same size
    with pytest.raises(UserError, match=r"distant://box/0\.tar has changed since it was indexed"):
        table.read([2])


def test_the_index_goes_to_the_cache_where_the_bucket_is_read_only(distant, cache):
    distant.store("box/0.tar", tar(0, 3))
    distant.read_only = True
    for _ in range(2):
        assert open_table("distant://box/0.tar").read([2]) == [sample(2, "0")]
    assert sorted(distant.contents) == ["box/0.tar"]
    assert len(list((cache / "clip_jax/index").glob("*.npz"))) == 1
    distant.calls.clear()
    open_table("distant://box/0.tar")
    assert distant.calls["read"] == 1  # asks for the index beside, finds that in the cache


def test_a_shard_that_is_cut(distant):
    distant.store("box/0.tar", tar(0, 3)[:50_000])
    with pytest.warns(UserWarning, match=r"distant://box/0\.tar breaks off or is damaged at byte 50000 of 50000"):
        first, second, third = open_table("distant://box/0.tar").read(range(3))
    assert (first, second) == (sample(0, "0"), sample(1, "0"))
    assert third == BadSample("0/0002", "cut short", "distant://box/0.tar breaks off at byte 50000, within it")


def test_refuses_what_is_not_there(distant):
    distant.store("box/0.tar", b"")
    for text, message in (
        ("distant://box/{0..2}.tar", r"no file matches distant://box/1\.tar \(of distant://box/\{0\.\.2\}\.tar\)"),
        ("tar:distant://none", "no file matches distant://none;"),
        ("distant://box/0.tar", r"distant://box/0\.tar is not a whole, uncompressed tar"),
    ):
        with pytest.raises(UserError, match=message):
            open_table(text)


def test_index_report(distant):
    contents = {f"box/{shard}.tar": tar(shard * 4, shard + 1) for shard in range(3)}
    for name, content in contents.items():
        distant.store(name, content)
    report = index_report("distant://box/*.tar")
    assert report.parts == {f"distant://box/{shard}.tar": shard + 1 for shard in range(3)}
    assert (report.shards, report.samples, report.bytes) == (3, 6, sum(map(len, contents.values())))
    assert sum(name.endswith(".index.npz") for name in distant.contents) == 3
    with pytest.raises(UserError, match="data of kind 'scenes' needs no index; tar and tfrecord do"):
        index_report("scenes:train")


def test_many_shards_are_opened_at_once(distant):
    for shard in range(40):
        distant.store(f"box/{shard:05d}.tar", tar(shard, 1))
    open_table("distant://box/{00000..00039}.tar")
    distant.calls.clear()
    distant.most_at_once, distant.latency = 0, 0.1
    assert len(open_table("distant://box/{00000..00039}.tar")) == 40
    assert distant.most_at_once >= 8
    assert distant.calls.total() <= 3 * 40 + 5  # for each: is it there, which version is it, its index
