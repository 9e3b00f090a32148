"""What a TarTable makes of the files in its shards."""

import io
import json
import tarfile
import warnings

import numpy as np
import pytest
from support.tars import image, read_all, read_good_and_bad, simple_shard, write_tar

from clip_jax.data.table import BadSample, Sample, Table, usable
from clip_jax.data.tar import TarTable
from clip_jax.errors import UserError


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
    bad, other = TarTable([write_tar(tmp_path / "a.tar", members + good)], captions="caption").read([0, 1])
    assert isinstance(bad, BadSample)
    assert (bad.key, bad.cause) == ("a/1", "bad caption")
    assert message in bad.reason
    assert "\n" not in bad.reason
    assert other == Sample("a/2", image(1), ("x",))


def test_captions_of_several_fields(tmp_path):
    content = json.dumps({"a": "one", "b": ["two", "three"], "c": "not this"}).encode()
    shard = write_tar(tmp_path / "a.tar", [("1.jpg", image(0)), ("1.json", content)])
    for fields, captions, counts in (
        ("b,a", ("two", "three", "one"), (2, 1)),
        ("a,d", ("one",), (1, 0)),  # some have no d
        ("d,b", ("two", "three"), (0, 2)),
        ("b", ("two", "three"), ()),
    ):
        (sample,) = read_all(TarTable([shard], captions=fields))
        assert (sample.captions, sample.captions_by_field) == (captions, counts)
    assert TarTable([shard], captions="d,e").read([0]) == [
        BadSample("a/1", "bad caption", "its .json has no field 'd or e'; valid are a, b, c")
    ]
    for wrong in ("a,,b", "", ","):
        with pytest.raises(UserError, match=r"is not a field of the \.json"):
            TarTable([shard], captions=wrong)


@pytest.mark.parametrize(
    ("counts", "weights", "expected"),
    [
        ((2, 1), (0.8, 0.2), (0.4, 0.4, 0.2)),
        ((0, 3), (0.8, 0.3), (0.1, 0.1, 0.1)),
        ((1, 2), (1.0,), (1.0, 0.0, 0.0)),
        ((1, 2), (), ()),
        ((0, 3), (1.0, 0.0), ()),  # as often as any where the fields that it has weigh nothing
        ((), (3.0, 1.0, 5.0, 7.0), (3.0, 1.0, 5.0)),  # of one field: by place
        ((), (3.0, 1.0), (3.0, 1.0, 0.0)),
    ],
)
def test_fields_share_their_weight_among_their_captions(counts, weights, expected):
    sample = Sample("x", b"", ("a", "b", "c"), captions_by_field=counts)
    assert sample.caption_weights(weights) == pytest.approx(expected)


def test_a_byte_order_mark_is_no_part_of_a_caption_or_a_class_name(tmp_path):
    members = [("1.jpg", image(0)), ("1.txt", b"\xef\xbb\xbfone"), ("1.json", b'\xef\xbb\xbf{"c": "two"}')]
    shard = write_tar(tmp_path / "a.tar", members)
    (tmp_path / "classnames.txt").write_bytes(b"\xef\xbb\xbfcat\ndog\n")
    assert read_all(TarTable([shard]))[0].captions == ("one",)
    assert read_all(TarTable([shard], captions="c"))[0].captions == ("two",)
    assert TarTable([shard]).class_names == ("cat", "dog")


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


@pytest.mark.parametrize("content", [b"cat", b"7"])
def test_what_has_a_caption_needs_no_label(tmp_path, content):
    files = [("1.jpg", image(0)), ("1.txt", b"a cat"), ("1.cls", content)]
    (tmp_path / "classnames.txt").write_text("cat\ndog\n")
    table = TarTable([write_tar(tmp_path / "a.tar", files)])
    assert read_all(table) == [Sample("a/1", image(0), ("a cat",), None)]


@pytest.mark.parametrize(
    "members",
    [
        [("x.txt", b"text")],
        [("x.jpg", b""), ("x.txt", b"text")],
        [("x.v2.JPG", b"its key is taken to end at the first dot"), ("x.v2.txt", b"text")],
        [("x.2.png", b"as before"), ("x.3.png", b"of one key, so of one sample")],
    ],
)
def test_a_sample_without_image_is_bad(tmp_path, members):
    table = TarTable([write_tar(tmp_path / "a.tar", [*members, ("y.jpg", image(0))])])
    bad, good = read_good_and_bad(table)
    assert (bad.key, bad.cause) == ("a/x", "no image")
    assert "KEY.jpg" in bad.reason
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
