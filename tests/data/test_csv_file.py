import csv
from pathlib import Path

import pytest
from support.distant import HttpError, distant_files

from clip_jax.data.csv_file import CsvTable
from clip_jax.data.spec import open_table
from clip_jax.data.table import BadSample, Sample, Table, usable
from clip_jax.errors import UserError


def put(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_open_clips_defaults(tmp_path):
    put(tmp_path / "images/a.jpg", "image a")
    put(tmp_path / "b.png", "image b")
    path = put(
        tmp_path / "train.tsv", "filepath\ttitle\nimages/a.jpg\ta, dog \nb.png\tein Bär\nimages/a.jpg\tanother\n"
    )
    table = CsvTable(path)
    assert isinstance(table, Table)
    assert (len(table), table.parts, table.is_remote, table.class_names) == (3, {str(path): 3}, False, ())
    assert table.read([2, 0, 1, 2]) == [
        Sample("images/a.jpg#3", b"image a", ("another",)),
        Sample("images/a.jpg#1", b"image a", ("a, dog",)),
        Sample("b.png#2", b"image b", ("ein Bär",)),
        Sample("images/a.jpg#3", b"image a", ("another",)),
    ]
    assert table.keys([1]) == ["b.png#2"]
    assert open_table(f"{path}").read([1]) == table.read([1])
    for index in (-1, 3):
        with pytest.raises(IndexError):
            table.read([index])


def test_reads_what_the_csv_module_wrote(tmp_path):
    captions = ['she said "hi"', "a, b\tc", "two\nlines", "", "  spaced  ", "ü€🐕", "x" * 100_000]
    for separator, delimiter in (("tab", "\t"), ("comma", ",")):
        path = tmp_path / f"{separator}.csv"
        with open(path, "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, delimiter=delimiter)
            writer.writerow(["id", "caption", "image"])
            for number, caption in enumerate(captions):
                put(tmp_path / f"{number}, of.jpg", f"image {number}")
                writer.writerow([number, caption, f"{number}, of.jpg"])
        expected = [
            Sample(f"{n}, of.jpg#{n + 1}", f"image {n}".encode(), (caption.strip(),) if caption else ())
            for n, caption in enumerate(captions)
        ]
        assert CsvTable(path).read(range(len(captions))) == expected  # the separator as the header has it
        assert open_table(f"csv:{path}?separator={separator}&caption=caption").read(range(7)) == expected


def test_columns_that_are_named(tmp_path):
    put(tmp_path / "1.jpg", "one")
    path = put(tmp_path / "x.csv", "\ufeffpicture, short, long \r\n1.jpg,s,l\r\n\r\n")
    assert open_table(f"csv:{path}?image=picture&caption=long").read([0]) == [Sample("1.jpg#1", b"one", ("l",))]
    assert len(open_table(f"csv:{path}?image=picture&caption=short")) == 1


def test_bad_rows(tmp_path):
    put(tmp_path / "1.jpg", "one")
    put(tmp_path / "empty.jpg", "")
    rows = b"filepath\ttitle\n1.jpg\tx\n2.jpg\tx\nempty.jpg\tx\n\tx\n1.jpg\tgr\xf6n\n1.jpg\n \nimages\tx\n"
    (tmp_path / "images").mkdir()
    samples = CsvTable(put(tmp_path / "x.tsv", rows)).read(range(8))
    assert samples == [
        Sample("1.jpg#1", b"one", ("x",)),
        BadSample("2.jpg#2", "no image", f"cannot read {tmp_path}/2.jpg: No such file or directory"),
        BadSample("empty.jpg#3", "no image", f"{tmp_path}/empty.jpg is an empty file"),
        BadSample("#4", "no image", "its row names no image"),
        BadSample("1.jpg#5", "bad caption", "its caption is not UTF-8 text"),
        Sample("1.jpg#6", b"one", ()),
        BadSample("#7", "no image", "its row names no image"),
        BadSample("images#8", "no image", f"cannot read {tmp_path}/images: No such file or directory"),
    ]


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ("", "", "has no column filepath or image .*; image=COLUMN names one of: nothing"),
        ("a,b\n1,2\n", "", "has no column filepath or .*; image=COLUMN names one of: a, b"),
        ("filepath,b\n1,2\n", "", "has no column title or caption or text; caption=COLUMN names one of: filepath, b"),
        ("filepath,title\n", "", "has no rows"),
        ("filepath,title\n1,2\n", "?image=filepaht", "has no column 'filepaht'; did you mean 'filepath'"),
        ("filepath,title\n1,2\n", "?separator=;", "separator ';' is not known; valid are comma, tab"),
        ('filepath,title\n1,"2\n' + "3,4\n" * 50_000, "", "is not readable CSV .field larger than field limit"),
        ('filepath\ttitle\n1\t5" pipe\n2\t"unclosed\n3\tb\n', "", "unexpected end .* that begins at line 3; close"),
        ('filepath\ttitle\n1\t"a\nb"\n2\t"open\n3\tb "c" d\n', "", "expected after .* that begins at line 4; close"),
    ],
)
def test_refuses(tmp_path, content, options, message):
    path = put(tmp_path / "x.csv", content)
    with pytest.raises(UserError, match=message) as error:
        open_table(f"csv:{path}{options}")
    assert "\n" not in str(error.value)
    assert str(error.value).startswith((str(path), "the CSV separator"))


def test_refuses_a_missing_file(tmp_path):
    with pytest.raises(UserError, match=r"cannot read .*x\.csv: No such file"):
        open_table(f"csv:{tmp_path}/x.csv")


def test_images_on_another_machine(tmp_path):
    with distant_files(0.01) as distant:
        distant.store("box/a/1.jpg", b"one")
        distant.store("box/2.jpg", b"two")
        distant.store("box/a/list.csv", b"filepath,title\n1.jpg,x\ndistant://box/2.jpg,y\n3.jpg,z\n")
        table = open_table("csv:distant://box/a/list.csv")
        assert table.is_remote
        distant.calls.clear()
        distant.most_at_once = 0
        assert table.read([0, 1, 2, 0]) == [
            Sample("1.jpg#1", b"one", ("x",)),
            Sample("distant://box/2.jpg#2", b"two", ("y",)),
            BadSample("3.jpg#3", "no image", "cannot read distant://box/a/3.jpg: No such file or directory"),
            Sample("1.jpg#1", b"one", ("x",)),
        ]
        assert distant.calls == {"read": 3}
        assert distant.most_at_once == 3
        distant.failures.append(HttpError(403))
        refused = BadSample("1.jpg#1", "no image", "cannot read distant://box/a/1.jpg: status 403")
        assert table.read([0]) == [refused]
        local = put(tmp_path / "list.csv", "filepath,title\ndistant://box/2.jpg,y\n")
        assert CsvTable(local).is_remote
        assert usable(CsvTable(local).read([0]))[0].image == b"two"


def test_labels(tmp_path):
    for name in "abc":
        put(tmp_path / f"{name}.jpg", name)
    path = put(tmp_path / "test.csv", "filepath,label\na.jpg,dog\nb.jpg,\nc.jpg, cat \n")
    table = CsvTable(path)
    assert table.class_names == ("cat", "dog")
    assert [sample.label for sample in usable(table.read(range(3)))] == [1, None, 0]
    put(tmp_path / "classnames.txt", "dog\ncat\nbird\n")
    assert [sample.label for sample in usable(CsvTable(path).read(range(3)))] == [0, None, 1]
    put(path, "filepath,title,number\na.jpg,one,2\nb.jpg,two,dog\nc.jpg,,3\n")
    assert CsvTable(path).class_names == ()
    *good, bad = open_table(f"{path}?label=number").read(range(3))
    assert [sample.label for sample in usable(good)] == [2, 0]
    assert isinstance(bad, BadSample)
    assert (bad.cause, "classnames.txt" in bad.reason) == ("bad label", True)
