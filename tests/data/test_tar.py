"""Tars are written here with the standard library alone, independently of clip_jax.data.shards."""

import gzip
import io
import json
import os
import tarfile
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clip_jax.data import index_file, ranges, tar_index
from clip_jax.data.table import BadSample, Sample, Table, usable
from clip_jax.data.tar import TarTable
from clip_jax.errors import UserError


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch) -> Path:
    """The user's cache, which must stay empty where an index fits beside its shard."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


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


def read_all(table: TarTable) -> list[Sample]:
    return usable(table.read(range(len(table))))


def read_good_and_bad(table: TarTable) -> list[Any]:
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
    assert isinstance(table, Table)
    assert table.parts == {str(shard): n for shard, n in zip(shards, (4, 1, 7), strict=True)}
    assert not table.is_remote
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
        assert [s.captions[0] for s in usable(table.read(indices))] == [f"caption {i}" for i in wanted]
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
        (b'{"captions": ["x"]}', "its .json has no field 'caption'; did you mean 'captions'"),
        (b'{"caption": 3}', "the field 'caption' of its .json must be a string or a list of strings"),
        (b'{"caption": ["x", 3]}', "the field 'caption' of its .json must be a string or a list of strings"),
        (b"[1]", "its .json has no field 'caption'"),
        (b"{", "its .json is not readable JSON"),
        (b'{"caption": "\xff"}', "its .json is not readable JSON"),
        (b"[" * 100_000, "its .json is not readable JSON"),
        (b'{"caption": "a \\ud83d"}', "half a surrogate pair"),
        (b"", "there is no .json to take captions='caption' from"),
        (None, "there is no .json to take captions='caption' from"),
    ],
)
def test_a_sample_with_wrong_json_is_bad(tmp_path, content, message):
    members = [("1.jpg", image(0)), *([("1.json", content)] if content is not None else [])]
    good = [("2.jpg", image(1)), ("2.json", b'{"caption": "x"}')]
    bad, other = read_good_and_bad(TarTable([write_tar(tmp_path / "a.tar", members + good)], captions="caption"))
    assert isinstance(bad, BadSample)
    assert (bad.key, bad.cause) == ("a/1", "bad caption")
    assert message in bad.reason
    assert "\n" not in bad.reason
    assert other == Sample("a/2", image(1), ("x",))


def test_captions_of_several_fields(tmp_path):
    content = json.dumps({"a": "one", "b": ["two", "three"], "c": "not this"}).encode()
    shard = write_tar(tmp_path / "a.tar", [("1.jpg", image(0)), ("1.json", content)])
    assert read_all(TarTable([shard], captions="b,a"))[0].captions == ("two", "three", "one")
    assert read_good_and_bad(TarTable([shard], captions="a,d")) == [
        BadSample("a/1", "bad caption", "its .json has no field 'd'; valid are a, b, c")
    ]
    for wrong in ("a,,b", "", ","):
        with pytest.raises(UserError, match=r"is not a field of the \.json"):
            TarTable([shard], captions=wrong)


def test_a_caption_that_is_not_text_makes_a_sample_bad(tmp_path):
    table = TarTable([write_tar(tmp_path / "a.tar", [("1.jpg", image(0)), ("1.txt", b"\xff\xfe")])])
    assert table.read([0]) == [BadSample("a/1", "bad caption", "its .txt is not UTF-8 text")]


@pytest.mark.parametrize("place", ["test/classnames.txt", "classnames.txt"])
def test_labels_and_class_names(tmp_path, place):
    members = [("0.webp", image(0)), ("0.cls", b"2"), ("1.webp", image(1)), ("1.cls", b" 0\n"), ("2.webp", image(2))]
    shard = write_tar(tmp_path / "test/0.tar", members)
    (tmp_path / place).write_text("tabby cat\ndog\nbig_bird\n")
    table = TarTable([shard])
    assert table.class_names == ("tabby cat", "dog", "big_bird")
    assert [s.label for s in read_all(table)] == [2, 0, None]


def test_labels_that_are_wrong_make_samples_bad(tmp_path):
    contents = [b"2", b"cat", b"-1", b"", b"1.5", b"9" * 10, "\u0663".encode(), b"1"]
    files = [((f"{n}.jpg", image(n)), (f"{n}.cls", content)) for n, content in enumerate(contents)]
    shard = write_tar(tmp_path / "a.tar", [file for pair in files for file in pair])
    (tmp_path / "classnames.txt").write_text("cat\ndog\n")
    *bad, good = read_good_and_bad(TarTable([shard]))
    assert good.label == 1
    assert {sample.cause for sample in bad} == {"bad label"}
    assert bad[0].reason == "its label is 2, but classnames.txt names classes 0 to 1"
    assert {sample.reason for sample in bad[1:]} == {"its .cls is not a class index, a natural number"}


@pytest.mark.parametrize("members", [[("x.txt", b"text")], [("x.jpg", b""), ("x.txt", b"text")]])
def test_a_sample_without_image_is_bad(tmp_path, members):
    table = TarTable([write_tar(tmp_path / "a.tar", [*members, ("y.jpg", image(0))])])
    bad, good = read_good_and_bad(table)
    assert (bad.key, bad.cause) == ("a/x", "no image")
    assert good.image == image(0)


def test_refuses_what_is_no_table(tmp_path):
    shard = simple_shard(tmp_path / "a.tar", 0, 2)
    empty = write_tar(tmp_path / "empty.tar", [])
    for shards, message in (
        ([], "no tar shards"),
        ([shard, shard], "more than once"),
        ([tmp_path / "missing.tar"], "cannot read .*missing.tar: No such file"),
        ([tmp_path], "cannot read .*: Is a directory"),
        ([empty], "no samples"),
        ([write_tar(tmp_path / "arrays.tar", [("x.npy", b"123")])], "no samples"),
    ):
        with pytest.raises(UserError, match=message):
            TarTable(shards)
    assert len(TarTable([empty, shard])) == 2


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
    monkeypatch.setattr(ranges, "_OPEN_FILES", 3)
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
    del table
    assert len(os.listdir("/proc/self/fd")) <= open_before


@pytest.mark.parametrize("size", [2000, 10**6])
def test_a_tar_that_changes_after_indexing_is_reported(tmp_path, size):
    shard = simple_shard(tmp_path / "a.tar", 0, 50)
    table = TarTable([shard])
    os.truncate(shard, size)
    with pytest.raises(UserError, match=r"a\.tar has changed since it was indexed"):
        read_all(table)


def test_a_tar_that_goes_after_indexing_is_reported(tmp_path):
    shard = simple_shard(tmp_path / "a.tar", 0, 5)
    table = TarTable([shard])
    shard.unlink()
    with pytest.raises(UserError, match=r"cannot read .*a\.tar: No such file"):
        read_all(table)


def test_reads_what_webdataset_reads(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from webdataset.compat import WebDataset

        members = [
            ("c.jpg", image(8)),
            ("a/b.png", image(9)),
            ("a/b.txt", b"text"),
            ("a/b.cls", b"1"),
            ("c.txt", b"late"),
        ]
        write_tar(tmp_path / "1.tar", members)
        simple_shard(tmp_path / "0.tar", 0, 20)
        pattern = str(tmp_path / "{0..1}.tar")
        expected = list(WebDataset(pattern, shardshuffle=False))
    samples = read_good_and_bad(TarTable([tmp_path / "0.tar", tmp_path / "1.tar"]))
    for sample, other in zip(samples, expected, strict=True):
        picture = other.get("jpg", other.get("png"))
        if picture is None:
            assert (sample.cause, sample.key) == ("no image", "1/c~2")
            continue
        assert sample.key.split("/", 1)[1] == other["__key__"]
        assert sample.image == picture
        assert sample.captions == ((other["txt"].decode().strip(),) if "txt" in other else ())
        assert sample.label == (int(other["cls"]) if "cls" in other else None)
