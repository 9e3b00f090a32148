"""The index of a tar shard: of whole ones, cut ones and damaged ones, and when it is made anew."""

import gzip
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from support.tars import image, read_all, read_good_and_bad, simple_shard, write_tar

from clip_jax.data import index_file, tar_index
from clip_jax.data.table import Sample
from clip_jax.data.tar import TarTable
from clip_jax.errors import UserError


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch) -> Path:
    """The user's cache, which must stay empty where an index fits beside its shard."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


def test_samples_before_a_cut_stay_usable(tmp_path):
    """Of every place where a shard may end, told from where tarfile finds the files of the whole one."""
    path = simple_shard(tmp_path / "whole.tar", 0, 4)
    whole = path.read_bytes()
    with tarfile.open(path) as tar:
        ends = [member.offset_data + member.size for member in tar.getmembers()]
    cut = tmp_path / "cut.tar"
    mark = -(-ends[-1] // 512) * 512  # the archive's end mark begins here
    for size in (*range(0, mark + 512, 100), *range(0, mark, 512), *ends, ends[3] - 1):
        cut.write_bytes(whole[:size])
        if size < 512:
            with pytest.raises(UserError, match=r"not a whole, uncompressed tar|no samples") as error:
                TarTable([cut])
            assert "\n" not in str(error.value)
            continue
        with pytest.warns(UserWarning, match=r"cut\.tar breaks off or is damaged at byte \d+ of") as warned:
            samples = read_good_and_bad(TarTable([cut]))
        assert len(warned) == 1
        assert "\n" not in str(warned[0].message)
        for number, sample in enumerate(samples):
            image_end, text_end = ends[2 * number : 2 * number + 2]
            if size >= text_end:
                assert sample == Sample(f"cut/{number:05d}", image(number, 100 + number), (f"caption {number}",))
            elif size >= image_end and sample == Sample(f"cut/{number:05d}", image(number, 100 + number), ()):
                assert size <= -(-image_end // 512) * 512 + 511  # its caption's header is not there
            else:
                assert sample.cause == "cut short"
                assert number == len(samples) - 1
        assert len(samples) >= sum(size >= end for end in ends[1::2])


def test_a_cut_is_warned_of_from_a_kept_index_too(tmp_path):
    shard = simple_shard(tmp_path / "a.tar", 0, 4)
    os.truncate(shard, 3000)
    for _ in range(2):
        with pytest.warns(UserWarning, match="breaks off"):
            TarTable([simple_shard(tmp_path / "b.tar", 4, 4), shard])
    assert (tmp_path / "a.tar.index.npz").exists()


def test_samples_before_damage_stay_usable(tmp_path):
    shard = simple_shard(tmp_path / "a.tar", 0, 4)
    damaged = bytearray(shard.read_bytes())
    damaged[2048:2060] = b"\xff" * 12  # in the third header
    shard.write_bytes(bytes(damaged))
    with pytest.warns(UserWarning, match="damaged at byte 2048 of"):
        assert read_all(TarTable([shard])) == [Sample("a/00000", image(0, 100), ("caption 0",))]


def test_refuses_compressed_and_other_files(tmp_path):
    whole = simple_shard(tmp_path / "whole.tar", 0, 4).read_bytes()
    for content in (gzip.compress(whole), b"\x89PNG" + bytes(2000), image(0), b""):
        (tmp_path / "x.tar").write_bytes(content)
        with pytest.raises(UserError, match="not a whole, uncompressed tar"):
            TarTable([tmp_path / "x.tar"])


def test_index_is_cached_and_validated(tmp_path, monkeypatch):
    shard = simple_shard(tmp_path / "a.tar", 0, 3)
    fresh = read_all(TarTable([shard]))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.tar", "a.tar.index.npz"]
    scans = []
    scan = tar_index.scan
    monkeypatch.setattr(tar_index, "scan", lambda path, size: scans.append(path) or scan(path, size))
    assert read_all(TarTable([shard])) == fresh
    assert scans == []

    status = shard.stat()
    os.utime(shard, ns=(status.st_atime_ns, status.st_mtime_ns + 1))  # another time
    TarTable([shard])
    assert len(scans) == 1
    simple_shard(shard, 100, 50)  # other content and size, same time
    os.utime(shard, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert len(TarTable([shard])) == 50
    assert len(scans) == 2
    monkeypatch.setattr(tar_index, "VERSION", tar_index.VERSION + 1)
    TarTable([shard])
    assert len(scans) == 3


@pytest.mark.parametrize("content", [b"", b"garbage", b"PK\x03\x04 torn"])
def test_a_broken_index_is_made_anew(tmp_path, content):
    shard = simple_shard(tmp_path / "a.tar", 0, 3)
    (tmp_path / "a.tar.index.npz").write_bytes(content)
    assert len(TarTable([shard])) == 3
    with np.load(tmp_path / "a.tar.index.npz") as stored:
        assert len(stored["label"]) == 3


def test_one_index_serves_both_caption_sources(tmp_path):
    shard = write_tar(tmp_path / "a.tar", [("1.jpg", image(0)), ("1.txt", b"t"), ("1.json", b'{"c": "j"}')])
    assert [read_all(TarTable([shard], captions))[0].captions for captions in (None, "c")] == [("t",), ("j",)]


def test_the_index_goes_to_the_cache_where_the_shard_lies_read_only(tmp_path, monkeypatch, cache):
    shard = simple_shard(tmp_path / "a.tar", 0, 3)
    replace = os.replace

    def refuse(source, target):
        if Path(target).parent == tmp_path:
            raise PermissionError("read-only")
        replace(source, target)

    monkeypatch.setattr(index_file.os, "replace", refuse)
    assert len(TarTable([shard])) == 3
    assert [p.name for p in tmp_path.iterdir()] == ["a.tar"]
    assert len(list((cache / "clip_jax/index").glob("*.npz"))) == 1
    monkeypatch.setattr(tar_index, "scan", lambda path, size: pytest.fail("scanned again"))
    assert len(TarTable([shard])) == 3


def test_works_where_no_index_can_be_written(tmp_path, monkeypatch):
    shard = simple_shard(tmp_path / "a.tar", 0, 3)

    def refuse(*_):
        raise PermissionError("read-only")

    monkeypatch.setattr(index_file.os, "replace", refuse)
    assert len(TarTable([shard])) == 3
    assert [p.name for p in tmp_path.iterdir()] == ["a.tar"]
