"""Tars are written here with the standard library alone, independently of clip_jax.data.shards."""

import gzip
import io
import json
import os
import tarfile
import threading
from pathlib import Path

import numpy as np
import pytest

from clip_jax.data import tar as tar_module
from clip_jax.data.tar import TarTable
from clip_jax.errors import UserError


def write_tar(path: Path, members: list[tuple[str, bytes]], form: int = tarfile.PAX_FORMAT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=form) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def image(seed: int, size: int = 3000) -> bytes:
    """Bytes that stand for an encoded image; the table does not decode."""
    return np.random.default_rng(seed).bytes(size)


def read_all(table: TarTable):
    return table.read(range(len(table)))


def simple_shard(path: Path, first: int, samples: int) -> Path:
    numbers = range(first, first + samples)
    pairs = [((f"{n:05d}.jpg", image(n, 100 + n)), (f"{n:05d}.txt", f" caption {n}\n".encode())) for n in numbers]
    return write_tar(path, [member for pair in pairs for member in pair])


def test_reads_images_and_captions_of_several_shards(tmp_path):
    shards = [
        simple_shard(tmp_path / f"{i:05d}.tar", first, n) for i, (first, n) in enumerate([(0, 4), (4, 1), (5, 7)])
    ]
    table = TarTable(shards)
    assert len(table) == 12
    assert table.class_names == ()
    for number, sample in enumerate(read_all(table)):
        shard = 0 if number < 4 else 1 if number < 5 else 2
        assert sample.key == f"{shard:05d}/{number:05d}"
        assert sample.image == image(number, 100 + number)
        assert sample.captions == (f"caption {number}",)
        assert sample.label is None


def test_read_keeps_the_order_asked_for_and_repeats(tmp_path):
    shards = [simple_shard(tmp_path / "a.tar", 0, 5), simple_shard(tmp_path / "b.tar", 5, 5)]
    table = TarTable(shards)
    wanted = [9, 0, 4, 4, 7, 2, 9]
    for indices in (wanted, np.array(wanted), np.array(wanted, np.int32)):
        assert [s.captions[0] for s in table.read(indices)] == [f"caption {i}" for i in wanted]
        assert table.keys(indices) == [s.key for s in table.read(indices)]
    assert table.read([]) == []


@pytest.mark.parametrize("index", [-1, 10])
def test_refuses_indices_outside(tmp_path, index):
    table = TarTable([simple_shard(tmp_path / "a.tar", 0, 10)])
    with pytest.raises(IndexError):
        table.read([0, index])


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_and_foreign_names(tmp_path, form):
    long, foreign = "folder/" * 30 + "x" * 120, "bilder/größe-猫"
    table = TarTable(
        [
            write_tar(
                tmp_path / "a.tar",
                [(f"{long}.jpg", image(0)), (f"{long}.txt", b"long"), (f"{foreign}.png", image(1))],
                form,
            )
        ]
    )
    assert table.keys([0, 1]) == [f"a/{long}", f"a/{foreign}"]
    assert [s.image for s in read_all(table)] == [image(0), image(1)]


def test_names_that_are_not_utf8_have_printable_keys(tmp_path):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT, encoding="latin-1") as tar:
        info = tarfile.TarInfo("gr\u00f6\u00dfe.jpg")
        info.size = 5
        tar.addfile(info, io.BytesIO(b"image"))
    (key,) = TarTable([path]).keys([0])
    assert key == "a/gr\\xf6\\xdfe"
    key.encode()


def test_extensions_are_lowered_and_others_are_passed_over(tmp_path):
    members = [
        ("1.JPG", image(1)),
        ("1.TXT", b"one"),
        ("1.npy", b"other"),
        ("readme.md", b"other"),
        ("._2.jpg", b"resource fork"),
        ("2.Jpeg", image(2)),
        ("2.seg.png", b"the key ends at the first dot, so this is no image"),
        ("2.txt", b"two"),
        ("./dir.v1/3.webp", image(3)),
        ("./dir.v1/3.txt", b"three"),
    ]
    table = TarTable([write_tar(tmp_path / "a.tar", members)])
    assert table.keys([0, 1, 2]) == ["a/1", "a/2", "a/dir.v1/3"]
    assert [s.image for s in read_all(table)] == [image(1), image(2), image(3)]
    assert [s.captions for s in read_all(table)] == [("one",), ("two",), ("three",)]


def test_folders_and_links_in_the_tar_are_no_samples(tmp_path):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as tar:
        for name, kind in (("d.jpg", tarfile.DIRTYPE), ("link.jpg", tarfile.SYMTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "1.jpg"
            tar.addfile(info)
        info = tarfile.TarInfo("1.jpg")
        info.size = 3
        tar.addfile(info, io.BytesIO(b"abc"))
    assert [s.image for s in read_all(TarTable([path]))] == [b"abc"]


def test_a_repeated_key_is_a_new_sample(tmp_path):
    members = [
        ("a.jpg", image(0)),
        ("a.txt", b"first"),
        ("a.jpg", image(1)),
        ("a.txt", b"second"),
        ("b.txt", b"third"),
        ("b.jpg", image(2)),
        ("a.png", image(3)),
    ]
    table = TarTable([write_tar(tmp_path / "s.tar", members)])
    assert table.keys(range(4)) == ["s/a", "s/a~2", "s/b", "s/a~3"]
    assert [s.image for s in read_all(table)] == [image(i) for i in range(4)]
    assert [s.captions for s in read_all(table)] == [("first",), ("second",), ("third",), ()]


def test_a_key_that_ends_one_shard_and_starts_the_next_is_two_samples(tmp_path):
    one = write_tar(tmp_path / "1.tar", [("k.jpg", image(0)), ("k.txt", b"one")])
    two = write_tar(tmp_path / "2.tar", [("k.jpg", image(1)), ("k.txt", b"two")])
    table = TarTable([one, two])
    assert [(s.key, s.captions) for s in read_all(table)] == [("1/k", ("one",)), ("2/k", ("two",))]


def test_of_two_images_the_jpg_is_taken(tmp_path):
    table = TarTable([write_tar(tmp_path / "a.tar", [("1.png", image(0)), ("1.jpg", image(1))])])
    assert read_all(table)[0].image == image(1)


def test_equal_shard_names_in_different_folders_have_different_keys(tmp_path):
    shards = [simple_shard(tmp_path / folder / "00000.tar", 0, 2) for folder in ("x", "y")]
    assert TarTable(shards).keys(range(4)) == ["x/00000/00000", "x/00000/00001", "y/00000/00000", "y/00000/00001"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [("one ", ("one",)), (["one", " two", ""], ("one", "two")), ([], ()), (None, ()), ("", ())],
)
def test_captions_from_json(tmp_path, value, expected):
    members = [("1.jpg", image(0)), ("1.txt", b"not this"), ("1.json", json.dumps({"alt": value}).encode())]
    table = TarTable([write_tar(tmp_path / "a.tar", members)], captions="alt")
    assert read_all(table)[0].captions == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"captions": ["x"]}', "sample 'a/1' has no field 'caption'; did you mean 'captions'"),
        (b'{"caption": 3}', "field 'caption' of sample 'a/1' must be a string or a list"),
        (b'{"caption": ["x", 3]}', "field 'caption' of sample 'a/1' must be a string or a list"),
        (b"[1]", "sample 'a/1' has no field 'caption'"),
        (b"{", "sample 'a/1' has no readable .json"),
        (b"", "sample 'a/1' has no readable .json"),
    ],
)
def test_refuses_wrong_json(tmp_path, content, message):
    table = TarTable([write_tar(tmp_path / "a.tar", [("1.jpg", image(0)), ("1.json", content)])], captions="caption")
    with pytest.raises(UserError, match=message):
        table.read([0])


def test_refuses_a_caption_that_is_not_text(tmp_path):
    table = TarTable([write_tar(tmp_path / "a.tar", [("1.jpg", image(0)), ("1.txt", b"\xff\xfe")])])
    with pytest.raises(UserError, match="sample 'a/1' is not UTF-8"):
        table.read([0])


@pytest.mark.parametrize("place", ["test/classnames.txt", "classnames.txt"])
def test_labels_and_class_names(tmp_path, place):
    members = [("0.webp", image(0)), ("0.cls", b"2"), ("1.webp", image(1)), ("1.cls", b" 0\n"), ("2.webp", image(2))]
    shard = write_tar(tmp_path / "test/0.tar", members)
    (tmp_path / place).write_text("tabby cat\ndog\nbig_bird\n")
    table = TarTable([shard])
    assert table.class_names == ("tabby cat", "dog", "big_bird")
    assert [s.label for s in read_all(table)] == [2, 0, None]


def test_refuses_labels_that_are_wrong(tmp_path):
    shard = write_tar(tmp_path / "a.tar", [("x.jpg", image(0)), ("x.cls", b"2")])
    (tmp_path / "classnames.txt").write_text("cat\ndog\n")
    with pytest.raises(UserError, match=r"sample 'a/x' has label 2, but classnames.txt names classes 0 to 1"):
        TarTable([shard])
    for content in (b"cat", b"-1", b"", b"1.5"):
        with pytest.raises(UserError, match=r"the label x\.cls in .* must be a class index"):
            TarTable([write_tar(shard, [("x.jpg", image(0)), ("x.cls", content)])])


@pytest.mark.parametrize("members", [[("x.txt", b"text")], [("x.jpg", b""), ("x.txt", b"text")]])
def test_refuses_a_sample_without_image(tmp_path, members):
    with pytest.raises(UserError, match="sample 'a/x' has no image"):
        TarTable([write_tar(tmp_path / "a.tar", members)])


def test_refuses_what_is_no_table(tmp_path):
    shard = simple_shard(tmp_path / "a.tar", 0, 2)
    empty = write_tar(tmp_path / "empty.tar", [])
    for shards, message in (
        ([], "no tar shards"),
        ([shard, shard], "more than once"),
        ([tmp_path / "missing.tar"], "cannot read the shard .*missing.tar: No such file"),
        ([tmp_path], "cannot read the shard .*: Is a directory"),
        ([empty], "no samples"),
        ([write_tar(tmp_path / "arrays.tar", [("x.npy", b"123")])], "no samples"),
    ):
        with pytest.raises(UserError, match=message):
            TarTable(shards)
    assert len(TarTable([empty, shard])) == 2


def test_refuses_a_tar_cut_anywhere(tmp_path):
    whole = simple_shard(tmp_path / "whole.tar", 0, 4).read_bytes()
    end = len(whole.rstrip(b"\0"))
    cut = tmp_path / "cut.tar"
    for size in (0, 100, 512, 600, 1024, 1024 + 512, 1024 + 700, 3000, end - 600, -(-end // 512) * 512):
        cut.write_bytes(whole[:size])
        with pytest.raises(UserError, match="not a whole, uncompressed tar") as error:
            TarTable([cut])
        assert "\n" not in str(error.value)


def test_refuses_damaged_compressed_and_other_files(tmp_path):
    whole = simple_shard(tmp_path / "whole.tar", 0, 4).read_bytes()
    damaged = bytearray(whole)
    damaged[2048:2060] = b"\xff" * 12  # in the third header
    for content in (bytes(damaged), gzip.compress(whole), b"\x89PNG" + bytes(2000), image(0)):
        (tmp_path / "x.tar").write_bytes(content)
        with pytest.raises(UserError, match="not a whole, uncompressed tar"):
            TarTable([tmp_path / "x.tar"])


def test_index_is_cached_and_validated(tmp_path, monkeypatch):
    shard = simple_shard(tmp_path / "a.tar", 0, 3)
    fresh = read_all(TarTable([shard]))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.tar", "a.tar.index.npz"]
    scans = []
    scan = tar_module._scan
    monkeypatch.setattr(tar_module, "_scan", lambda path: scans.append(path) or scan(path))
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
    monkeypatch.setattr(tar_module, "INDEX_VERSION", tar_module.INDEX_VERSION + 1)
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


def test_works_where_no_index_can_be_written(tmp_path, monkeypatch):
    shard = simple_shard(tmp_path / "a.tar", 0, 3)

    def refuse(*_):
        raise PermissionError("read-only")

    monkeypatch.setattr(tar_module.os, "replace", refuse)
    assert len(TarTable([shard])) == 3
    assert [p.name for p in tmp_path.iterdir()] == ["a.tar"]


def test_neighbours_are_fetched_in_one_read(tmp_path, monkeypatch):
    shard = simple_shard(tmp_path / "a.tar", 0, 200)
    table = TarTable([shard])
    reads = []
    pread = os.pread
    monkeypatch.setattr(tar_module.os, "pread", lambda *args: reads.append(args[1:]) or pread(*args))
    expected = [(image(n, 100 + n), (f"caption {n}",)) for n in range(64)]
    samples = table.read(np.random.default_rng(0).permutation(64))
    assert sorted((s.image, s.captions) for s in samples) == sorted(expected)
    assert len(reads) == 1
    reads.clear()
    table.read([0, 199])  # more than 64 KiB apart
    assert len(reads) == 2


def test_long_reads_are_split_and_short_ones_completed(tmp_path, monkeypatch):
    members = [(f"{n}.jpg", image(n, 300_000)) for n in range(10)]
    table = TarTable([write_tar(tmp_path / "a.tar", members)])
    monkeypatch.setattr(tar_module, "_READ_LIMIT", 1_000_000)
    sizes = []
    pread = os.pread

    def stingy(file, size, offset):
        sizes.append(size)
        return pread(file, min(size, 70_000), offset)

    monkeypatch.setattr(tar_module.os, "pread", stingy)
    assert [s.image for s in read_all(table)] == [image(n, 300_000) for n in range(10)]
    assert max(sizes) <= 1_000_000


def test_many_shards_and_threads_with_few_descriptors(tmp_path, monkeypatch):
    monkeypatch.setattr(tar_module, "_OPEN_FILES", 3)
    shards = [simple_shard(tmp_path / f"{i:02d}.tar", i * 5, 5) for i in range(12)]
    table = TarTable(shards)
    wrong = []

    def work(table, seed):
        for indices in np.random.default_rng(seed).integers(0, 60, (20, 16)):
            got = [s.captions[0] for s in table.read(indices)]
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
    del table
    assert len(os.listdir("/proc/self/fd")) <= open_before


def test_a_tar_that_shrinks_after_indexing_is_reported(tmp_path):
    shard = simple_shard(tmp_path / "a.tar", 0, 50)
    table = TarTable([shard])
    os.truncate(shard, 2000)
    with pytest.raises(UserError, match=r"a\.tar: it has become shorter"):
        read_all(table)
