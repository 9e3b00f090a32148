"""ArrayRecord files are written by the array_record package."""

import threading
from pathlib import Path

import pytest
from support.examples import example

from clip_jax.data.arrayrecord import ArrayRecords
from clip_jax.data.spec import open_table
from clip_jax.data.table import BadSample, Sample, Table, usable
from clip_jax.errors import UserError

array_record = pytest.importorskip("array_record.python.array_record_module")


def write(path: Path, records: list[bytes], options: str = "group_size:1") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = array_record.ArrayRecordWriter(str(path), options)
    for record in records:
        writer.write(record)
    writer.close()
    return path


def records(first: int, count: int) -> list[bytes]:
    return [example(image=f"image {n}", caption=[f"a {n}", f"b {n}"], label=n % 3) for n in range(first, first + count)]


def test_samples(tmp_path):
    paths = [write(tmp_path / f"s/x.array_record-{i}", records(i * 10, 10)) for i in range(3)]
    (tmp_path / "classnames.txt").write_text("a\nb\nc\n")
    for location in (f"{tmp_path}/s", f"{tmp_path}/s/x.array_record-{{0..2}}"):
        table = open_table(f"arrayrecord:{location}?label=label")
        assert isinstance(table, Table)
        assert (len(table), table.is_remote, table.class_names) == (30, False, ("a", "b", "c"))
        assert table.parts == {str(path): 10 for path in paths}
        assert table.read([29, 3, 3, 11]) == [
            Sample(f"x.array_record-{n // 10}/{n % 10:07d}", f"image {n}".encode(), (f"a {n}", f"b {n}"), n % 3)
            for n in (29, 3, 3, 11)
        ]
        assert table.keys([3]) == ["x.array_record-0/0000003"]
        assert table.read([]) == []
        for index in (-1, 30):
            with pytest.raises(IndexError):
                table.read([index])


def test_some_rows_of_each_file(tmp_path):
    contents = [[f"{file}{row}".encode() for row in range(10)] for file in range(2)]
    paths = [write(tmp_path / f"{i}", content) for i, content in enumerate(contents)]
    table = ArrayRecords(paths, [range(7, 10), range(0, 10)])
    assert table.read(range(13)) == contents[0][7:] + contents[1]
    assert table.parts == {f"{paths[0]}[7:10]": 3, str(paths[1]): 10}
    with pytest.raises(UserError, match="has 10 records, not 11"):
        ArrayRecords(paths, [range(11), range(5)])


def test_several_threads(tmp_path):
    table = ArrayRecords([write(tmp_path / f"{i}", [b"%d" % (i * 50 + n) for n in range(50)]) for i in range(4)])
    wrong = []

    def work(start: int) -> None:
        for step in range(20):
            wanted = [(start + 7 * step + 13 * n) % 200 for n in range(16)]
            wrong.extend(set(table.read(wanted)) ^ {b"%d" % n for n in wanted})

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_bad_samples(tmp_path):
    write(tmp_path / "x.arrayrecord", [example(image=b"i"), example(image=b""), b"\xff"])
    good, empty, other = open_table(f"arrayrecord:{tmp_path}/x.arrayrecord").read(range(3))
    assert usable([good])[0].image == b"i"
    assert isinstance(empty, BadSample)
    assert isinstance(other, BadSample)
    assert (empty.cause, other.reason) == ("no image", "its record is no tf.train.Example")


def test_refuses_other_files(tmp_path):
    whole = write(tmp_path / "whole.arrayrecord", records(0, 50)).read_bytes()
    (tmp_path / "cut.arrayrecord").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.arrayrecord").write_bytes(b"some text" * 1000)
    (tmp_path / "empty.arrayrecord").touch()
    write(tmp_path / "none.arrayrecord", [])
    for name, message in (
        ("cut", "is not a whole ArrayRecord file"),
        ("text", "is not a whole ArrayRecord file"),
        ("empty", "is not a whole ArrayRecord file"),
        ("none", r"there are no records in .*none\.arrayrecord"),
        ("missing", "no file matches"),
    ):
        with pytest.raises(UserError, match=message) as error:
            open_table(f"arrayrecord:{tmp_path}/{name}.arrayrecord")
        assert "\n" not in str(error.value)


def test_damage_within_is_reported(tmp_path):
    path = write(tmp_path / "x.arrayrecord", records(0, 50))
    content = bytearray(path.read_bytes())
    content[70_000:70_100] = bytes(100)
    content[1000:1100] = b"\xff" * 100
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"cannot read the records of .*x\.arrayrecord|not a whole ArrayRecord file"):
        open_table(f"arrayrecord:{path}").read(range(50))


def test_refuses_a_url():
    with pytest.raises(UserError, match="is remote"):
        ArrayRecords(["gs://bucket/x.arrayrecord"])
