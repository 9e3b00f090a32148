"""Reads of many ranges, of files as such and through tables."""

import os
import random
import resource
import threading
from functools import lru_cache

import numpy as np
import pytest
from support.distant import HttpError, distant_files
from support.tars import image, read_all, simple_shard, write_tar

from clip_jax.data import files, ranges
from clip_jax.data.files import Stamp
from clip_jax.data.ranges import RangeReader, Stretch, coalesce, open_stream
from clip_jax.data.table import usable
from clip_jax.data.tar import TarTable
from clip_jax.errors import UserError


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def distant():
    with distant_files() as system:
        yield system


def keep_open(monkeypatch, count: int) -> None:
    """Lets so many files stay open between reads."""
    monkeypatch.setattr(ranges, "_open_file", lru_cache(count)(ranges._open_file.__wrapped__))


def test_the_ranges_of_several_files(tmp_path, distant):
    rng = random.Random(0)
    contents = {"distant://box/a": rng.randbytes(5_000_000), str(tmp_path / "b"): rng.randbytes(300_000)}
    distant.store("box/a", contents["distant://box/a"])
    (tmp_path / "b").write_bytes(contents[str(tmp_path / "b")])
    reader = RangeReader({path: files.stamp(path) for path in contents})
    wanted = {
        path: [(rng.randrange(len(content) - 5000), rng.randrange(1, 5000)) for _ in range(9)]
        for path, content in contents.items()
    }
    read = reader.read(wanted)
    assert read == {
        path: {(offset, size): contents[path][offset : offset + size] for offset, size in wanted[path]}
        for path in contents
    }
    assert reader.read({}) == {}


def test_coalescing_reads_little_in_vain():
    assert coalesce([(900, 50), (0, 100), (120, 10), (0, 100), (300, 600)], 50, 1000) == [
        Stretch(0, 130, ((0, 100), (120, 10))),
        Stretch(300, 950, ((300, 600), (900, 50))),
    ]
    long = [(0, 600), (600, 600), (1200, 5000)]
    assert [stretch.ranges for stretch in coalesce(long, 50, 1000)] == [(part,) for part in long]


def test_a_range_within_another(distant):
    distant.store("box/a", bytes(range(200)))
    wanted = {"distant://box/a": [(0, 100), (10, 20), (0, 5)]}
    read = RangeReader({"distant://box/a": files.stamp("distant://box/a")}).read(wanted)["distant://box/a"]
    assert read == {(offset, size): bytes(range(offset, offset + size)) for offset, size in wanted["distant://box/a"]}


@pytest.mark.parametrize("content", [b"short", b"", None])
def test_a_remote_file_that_ends_early_has_changed(distant, content):
    message = "distant://box/a has changed since it was indexed"
    if content is None:
        message = "cannot read distant://box/a: No such file"
    else:
        distant.store("box/a", content)
    reader = RangeReader({"distant://box/a": Stamp(100, 0)})
    for read in (lambda: reader.read({"distant://box/a": [(0, 50)]}), open_stream("distant://box/a", 100).read):
        with pytest.raises(UserError, match=message):
            read()


def test_a_stream_of_which_a_server_refuses_a_range_has_changed(distant):
    distant.store("box/a", b"")
    distant.failures.append(HttpError(416))
    with pytest.raises(UserError, match="distant://box/a has changed since it was indexed"):
        open_stream("distant://box/a", 100).read()


def test_a_remote_file_of_the_same_size_is_asked_for_again_after_a_while(distant, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(ranges.time, "monotonic", lambda: clock[0])
    distant.store("box/a", b"one")
    reader = RangeReader({"distant://box/a": files.stamp("distant://box/a")})
    wanted = {"distant://box/a": [(0, 3)]}
    distant.calls.clear()
    for clock[0] in (0.0, 10.0, ranges._TRUST - 1):
        assert reader.read(wanted) == {"distant://box/a": {(0, 3): b"one"}}
    assert distant.calls == {"read": 3, "info": 1}
    distant.store("box/a", b"two")
    clock[0] = ranges._TRUST
    with pytest.raises(UserError, match="distant://box/a has changed since it was indexed"):
        reader.read(wanted)


def test_a_stream_comes_in_large_blocks(distant, monkeypatch):
    monkeypatch.setattr(ranges, "_BLOCK", 1000)
    content = random.Random(0).randbytes(10_500)
    distant.store("box/a", content)
    with open_stream("distant://box/a", len(content)) as stream:
        pieces = []
        while piece := stream.read(100):
            pieces.append(piece)
        assert b"".join(pieces) == content
        assert distant.calls["read"] == 11
        stream.seek(7000)
        assert stream.read(30) == content[7000:7030]
        stream.seek(-10, 2)
        assert stream.read() == content[-10:]


def test_neighbours_are_fetched_in_one_read(tmp_path, monkeypatch):
    shard = simple_shard(tmp_path / "a.tar", 0, 200)
    table = TarTable([shard])
    reads = []
    pread = os.pread
    monkeypatch.setattr(ranges.os, "pread", lambda *args: reads.append(args[1:]) or pread(*args))
    expected = [(image(n, 100 + n), (f"caption {n}",)) for n in range(64)]
    samples = usable(table.read(np.random.default_rng(0).permutation(64)))
    assert sorted((s.image, s.captions) for s in samples) == sorted(expected)
    assert len(reads) == 1
    reads.clear()
    table.read([0, 199])  # more than 64 KiB apart
    assert len(reads) == 2


def test_long_reads_are_split_and_short_ones_completed(tmp_path, monkeypatch):
    members = [(f"{n}.jpg", image(n, 300_000)) for n in range(10)]
    table = TarTable([write_tar(tmp_path / "a.tar", members)])
    monkeypatch.setattr(ranges, "_LIMIT", 1_000_000)
    sizes = []
    pread = os.pread

    def stingy(file, size, offset):
        sizes.append(size)
        return pread(file, min(size, 70_000), offset)

    monkeypatch.setattr(ranges.os, "pread", stingy)
    assert [s.image for s in read_all(table)] == [image(n, 300_000) for n in range(10)]
    assert max(sizes) <= 1_000_000


def test_many_shards_and_threads_with_few_descriptors(tmp_path, monkeypatch):
    keep_open(monkeypatch, 3)
    shards = [simple_shard(tmp_path / f"{i:02d}.tar", i * 5, 5) for i in range(12)]
    table = TarTable(shards)
    wrong = []

    def work(table, seed):
        for indices in np.random.default_rng(seed).integers(0, 60, (20, 16)):
            got = [s.captions[0] for s in usable(table.read(indices))]
            wrong.extend(set(got) ^ {f"caption {i}" for i in indices})

    open_before = len(os.listdir("/proc/self/fd"))
    threads = [threading.Thread(target=work, args=(table, seed)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    threads.clear()
    assert wrong == []
    assert len(os.listdir("/proc/self/fd")) - open_before <= 3
    other = TarTable(shards[:6])
    read_all(other)
    assert len(os.listdir("/proc/self/fd")) - open_before <= 3  # of both tables
    del table, other
    assert len(os.listdir("/proc/self/fd")) <= open_before


def test_files_are_closed_where_the_process_may_open_no_more(tmp_path):
    tables = [TarTable([simple_shard(tmp_path / f"{t}/{i:02d}.tar", 5 * i, 5) for i in range(20)]) for t in range(3)]
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(map(int, os.listdir("/proc/self/fd")))
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 30, limits[1]))
    try:
        for table in tables:
            assert [s.captions for s in read_all(table)] == [(f"caption {i}",) for i in range(100)]
        assert 0 < ranges._open_file.cache_info().currsize <= 30  # of 60
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.mark.parametrize("size", [2000, 10**6])
def test_a_tar_that_changes_after_indexing_is_reported(tmp_path, size):
    shard = simple_shard(tmp_path / "a.tar", 0, 50)
    table = TarTable([shard])
    os.truncate(shard, size)
    with pytest.raises(UserError, match=r"a\.tar has changed since it was indexed"):
        read_all(table)


def test_a_tar_overwritten_by_one_of_the_same_size_is_reported(tmp_path):
    shard = simple_shard(tmp_path / "a.tar", 0, 9)
    sizes = [100 + n for n in range(9)]
    other = [(f"{n:05d}.{e}", d) for n in range(9) for e, d in (("jpg", image(n, sizes[8 - n])), ("txt", b"another"))]
    content = write_tar(tmp_path / "b.tar", other).read_bytes()
    assert len(content) == shard.stat().st_size
    table = TarTable([shard])
    assert read_all(table)[0].image == image(0, 100)
    with open(shard, "r+b") as file:  # in place, while the table has it open
        file.write(content)
    for old in (table, table):
        with pytest.raises(UserError, match=r"a\.tar has changed since it was indexed"):
            old.read([0])
    assert read_all(TarTable([shard]))[0].captions == ("another",)


def test_a_table_whose_open_tar_was_replaced_reads_the_old_one(tmp_path):
    shard = simple_shard(tmp_path / "a.tar", 0, 5)
    table = TarTable([shard])
    read_all(table)
    os.replace(simple_shard(tmp_path / "b.tar", 50, 5), shard)
    assert read_all(table)[0].captions == ("caption 0",)
    assert read_all(TarTable([shard]))[0].captions == ("caption 50",)


def test_a_tar_that_goes_after_indexing_is_reported(tmp_path):
    shard = simple_shard(tmp_path / "a.tar", 0, 5)
    table = TarTable([shard])
    shard.unlink()
    with pytest.raises(UserError, match=r"cannot read .*a\.tar: No such file"):
        read_all(table)
