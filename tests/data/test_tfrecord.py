"""TFRecord files are written, and read for comparison, by TensorFlow."""

import os
import random

import pytest
from support.distant import distant_files
from support.examples import example, write_tfrecord

from clip_jax.data import tfrecord
from clip_jax.data.index_report import index_report
from clip_jax.data.spec import open_table
from clip_jax.data.table import BadSample, Sample, Table, usable
from clip_jax.data.tfrecord import TFRecords
from clip_jax.errors import UserError

tf = pytest.importorskip("tensorflow")


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def image(number: int) -> bytes:
    return random.Random(number).randbytes(1000 + 100 * number)


def records(first: int, count: int) -> list[bytes]:
    return [example(image=image(n), caption=f"caption {n}", label=n % 3) for n in range(first, first + count)]


def test_records_are_those_that_tensorflow_reads(tmp_path):
    rng = random.Random(0)
    paths = [
        write_tfrecord(
            tmp_path / f"x.tfrecord-{i}", [rng.randbytes(rng.choice([0, 1, 50, 100_000])) for _ in range(20)]
        )
        for i in range(3)
    ]
    table = TFRecords(paths)
    expected = [record.numpy() for record in tf.data.TFRecordDataset([str(path) for path in paths])]
    assert table.read(range(60)) == expected
    order = rng.choices(range(60), k=200)
    assert table.read(order) == [expected[i] for i in order]
    assert len(set(table.keys(range(60)))) == 60
    assert table.keys([0, 21]) == ["x.tfrecord-0/0000000", "x.tfrecord-1/0000001"]
    assert table.parts == {str(path): 20 for path in paths}


def test_checksum():
    """CRC-32C of '123456789' is 0xE3069283, the check value in the catalogue of parametrised CRCs."""
    masked = (tfrecord.masked_crc(b"123456789") - 0xA282EAD8) & 0xFFFFFFFF
    assert ((masked << 15) | (masked >> 17)) & 0xFFFFFFFF == 0xE3069283


def test_some_rows_of_each_file(tmp_path):
    contents = [[f"{file}{row}".encode() for row in range(10)] for file in range(2)]
    paths = [write_tfrecord(tmp_path / f"{i}", content) for i, content in enumerate(contents)]
    table = TFRecords(paths, [range(7, 10), range(0, 10)])
    assert table.read(range(13)) == contents[0][7:] + contents[1]
    assert table.keys([0]) == ["0/0000007"]
    assert table.parts == {f"{paths[0]}[7:10]": 3, str(paths[1]): 10}
    with pytest.raises(UserError, match="has 10 records, not 11"):
        TFRecords(paths, [range(11), range(5)])


def test_samples(tmp_path):
    for shard in range(2):
        write_tfrecord(tmp_path / f"s/x.tfrecord-0000{shard}-of-00002", records(shard * 5, 5))
    (tmp_path / "s/classnames.txt").write_text("a\nb\nc\n")
    for location in (f"{tmp_path}/s", f"{tmp_path}/s/x.tfrecord-{{00000..00001}}-of-00002", f"{tmp_path}/s/*-of-*"):
        table = open_table(f"tfrecord:{location}?label=label")
        assert isinstance(table, Table)
        assert table.class_names == ("a", "b", "c")
        assert not table.is_remote
        assert list(table.parts.values()) == [5, 5]
        assert [(s.image, s.captions, s.label) for s in usable(table.read([9, 0, 6]))] == [
            (image(n), (f"caption {n}",), n % 3) for n in (9, 0, 6)
        ]
    assert {sample.label for sample in usable(open_table(f"tfrecord:{tmp_path}/s").read(range(10)))} == {None}
    assert index_report(f"tfrecord:{tmp_path}/s").samples == 10


@pytest.mark.parametrize(
    ("features", "options", "expected"),
    [
        ({"image__encoded": b"i", "image": b"n", "text": "t"}, "", (b"i", ("t",))),
        ({"jpg": b"j", "caption": ["a", " b ", ""], "text": "t"}, "", (b"j", ("a", "b"))),
        ({"image": b"i", "a": "1", "b": ["2", "3"]}, "?captions=b,a", (b"i", ("2", "3", "1"))),
        ({"image": b"i", "p": b"p", "x": 3}, "?image=p", (b"p", ())),
    ],
)
def test_features(tmp_path, features, options, expected):
    write_tfrecord(tmp_path / "x.tfrecord", [example(**features)])
    (sample,) = usable(open_table(f"{tmp_path}/x.tfrecord{options}").read([0]))
    assert (sample.image, sample.captions) == expected
    assert sample.captions_by_field == ((2, 1) if options == "?captions=b,a" else ())


@pytest.mark.parametrize(
    ("features", "options", "message"),
    [
        ({"photo": b"i", "text": "t"}, "", "no feature image/encoded or image or jpg; image=FEATURE .* photo, text"),
        ({"image": b"i"}, "?image=imgae", "have no feature 'imgae'; did you mean 'image'"),
        ({"image": b"i", "alt": "t"}, "?captions=alt,b", "have no feature 'b'; valid are alt, image"),
        ({"image": b"i"}, "?label=x", "have no feature 'x'"),
        ({"image": b"i", "cls": "dog"}, "?label=cls", "feature 'cls' .* is bytes; it must be whole numbers"),
        ({"image": [1, 2]}, "", "feature 'image' .* is whole numbers; it must be bytes"),
        ({"image": b"i", "text": 0.5}, "", "feature 'text' .* is floating-point numbers; it must be bytes"),
    ],
)
def test_refuses_missing_features(tmp_path, features, options, message):
    write_tfrecord(tmp_path / "x.tfrecord", [example(**features)])
    with pytest.raises(UserError, match=message) as error:
        open_table(f"tfrecord:{tmp_path}/x.tfrecord{options}")
    assert "\n" not in str(error.value)


def test_bad_samples(tmp_path):
    contents = [
        example(image=b"i", caption="good", label=-1),
        example(caption="x"),
        example(image=b"", caption="x"),
        example(image=b"i", caption=b"\xff"),
        b"\xff\xff no example",
        example(image=b"i", label=2),
    ]
    write_tfrecord(tmp_path / "x.tfrecord", contents)
    (tmp_path / "classnames.txt").write_text("a\nb\n")
    good, *bad = open_table(f"tfrecord:{tmp_path}/x.tfrecord?label=label").read(range(6))
    assert good == Sample("x.tfrecord/0000000", b"i", ("good",), None)
    assert bad == [
        BadSample("x.tfrecord/0000001", "no image", "its feature 'image' is missing or empty"),
        BadSample("x.tfrecord/0000002", "no image", "its feature 'image' is missing or empty"),
        BadSample("x.tfrecord/0000003", "bad caption", "its caption is not UTF-8 text"),
        BadSample("x.tfrecord/0000004", "no image", "its record is no tf.train.Example"),
        BadSample("x.tfrecord/0000005", "bad label", "its label is 2, but there are 2 classes"),
    ]


def test_records_before_a_cut_stay_usable(tmp_path):
    content = records(0, 3)
    whole = write_tfrecord(tmp_path / "whole", content).read_bytes()
    path = tmp_path / "cut.tfrecord"
    ends = [sum(len(record) + 16 for record in content[: n + 1]) for n in range(3)]
    for size in (ends[0] + 5, ends[0] + 12, ends[0] + 500, ends[1] - 2, ends[1], len(whole) - 5):
        path.write_bytes(whole[:size])
        if size in ends:
            assert TFRecords([path]).read([0, 1]) == content[:2]
            continue
        with pytest.warns(UserWarning, match=r"cut\.tfrecord breaks off or is damaged at byte \d+ of"):
            table = TFRecords([path])
        read = table.read(range(len(table)))
        whole_ones = [record for record in read if not isinstance(record, BadSample)]
        assert whole_ones == content[: len(whole_ones)]
        assert len(whole_ones) == sum(size >= end - 4 for end in ends)  # the last 4 bytes are a checksum
        assert all(isinstance(r, BadSample) and r.cause == "cut short" for r in read[len(whole_ones) :])
        assert len(read) - len(whole_ones) <= 1


def test_damage(tmp_path):
    path = write_tfrecord(tmp_path / "x.tfrecord", records(0, 3))
    content = bytearray(path.read_bytes())
    content[16 + len(records(0, 1)[0])] ^= 1  # the second record's length
    path.write_bytes(content)
    with pytest.warns(UserWarning, match=r"x\.tfrecord breaks off or is damaged at byte"):
        assert len(TFRecords([path])) == 1


def test_refuses_other_files(tmp_path):
    write_tfrecord(tmp_path / "gz.tfrecord", records(0, 3), "GZIP")
    (tmp_path / "short.tfrecord").write_bytes(b"abc")
    (tmp_path / "empty.tfrecord").touch()
    write_tfrecord(tmp_path / "texts.tfrecord", [b"\xff some text", b"\xff more text"])
    for name, message in (
        ("gz", "gz.tfrecord is not an uncompressed TFRecord file"),
        ("short", "short.tfrecord is not an uncompressed TFRecord file"),
        ("empty", r"there are no records in .*empty\.tfrecord and 0 more files"),
        ("texts", r"the records of .*texts\.tfrecord are no tf\.train\.Examples"),
        ("none", "no file matches"),
        ("{gz,gz}", "gz.tfrecord is given more than once among the TFRecord files"),
    ):
        with pytest.raises(UserError, match=message) as error:
            open_table(f"tfrecord:{tmp_path}/{name}.tfrecord")
        assert "\n" not in str(error.value)


def test_the_index_is_kept(tmp_path, monkeypatch):
    path = write_tfrecord(tmp_path / "x.tfrecord", records(0, 3))
    before = TFRecords([path]).read(range(3))
    assert sorted(os.listdir(tmp_path)) == ["x.tfrecord", "x.tfrecord.index.npz"]
    monkeypatch.setattr(tfrecord, "scan", lambda path, size: pytest.fail("scanned again"))
    assert TFRecords([path]).read(range(3)) == before
    assert len(open_table(f"tfrecord:{tmp_path}")) == 3  # the index is no TFRecord file


def test_on_another_machine(tmp_path):
    content = write_tfrecord(tmp_path / "x", records(0, 20)).read_bytes()
    with distant_files() as distant:
        distant.store("box/x.tfrecord", content)
        table = open_table("distant://box/x.tfrecord")
        assert table.is_remote
        distant.calls.clear()
        assert [s.image for s in usable(table.read(range(20)))] == [image(n) for n in range(20)]
        assert distant.calls == {"read": 1}  # whether the file is still what it was, was asked when it was opened
