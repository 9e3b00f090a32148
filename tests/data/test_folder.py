from pathlib import Path

import pytest
from PIL import Image

from clip_jax.data.folder import FolderTable
from clip_jax.data.table import BadSample, Table, usable
from clip_jax.errors import UserError


def put(root: Path, name: str, content: bytes | str = b"image") -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def test_a_folder_per_class(tmp_path):
    for name in ("dog/b.jpg", "dog/a.PNG", "tabby_cat/deep/er/c.JPeG", "Ant/d.webp", "dog/e.bmp", "dog/f.gif"):
        put(tmp_path, name, f"content of {name}")
    for name in ("dog/notes.txt", "dog/.hidden.jpg", ".git/x.jpg", "dog/.cache/x.jpg", "README.md", "dog/jpg"):
        put(tmp_path, name)
    table = FolderTable(tmp_path)
    assert isinstance(table, Table)
    assert table.parts == {f"{tmp_path}/Ant": 1, f"{tmp_path}/dog": 4, f"{tmp_path}/tabby_cat": 1}
    assert table.class_names == ("Ant", "dog", "tabby_cat")
    keys = ["Ant/d.webp", "dog/a.PNG", "dog/b.jpg", "dog/e.bmp", "dog/f.gif", "tabby_cat/deep/er/c.JPeG"]
    assert table.keys(range(len(table))) == keys
    samples = usable(table.read(range(len(table))))
    assert [s.key for s in samples] == keys
    assert [s.image.decode() for s in samples] == [f"content of {key}" for key in keys]
    assert [s.label for s in samples] == [0, 1, 1, 1, 1, 2]
    assert {s.captions for s in samples} == {()}
    assert [s.key for s in table.read([5, 0, 5])] == [keys[5], keys[0], keys[5]]


def test_an_empty_class_keeps_its_label(tmp_path):
    put(tmp_path, "a/1.jpg")
    (tmp_path / "b").mkdir()
    put(tmp_path, "c/1.jpg")
    table = FolderTable(tmp_path)
    assert table.class_names == ("a", "b", "c")
    assert [s.label for s in usable(table.read([0, 1]))] == [0, 2]


def test_class_folders_may_be_links(tmp_path):
    put(tmp_path, "elsewhere/1.jpg")
    (tmp_path / "root").mkdir()
    (tmp_path / "root/cat").symlink_to(tmp_path / "elsewhere")
    assert FolderTable(tmp_path / "root").keys([0]) == ["cat/1.jpg"]


def test_class_names_file(tmp_path):
    put(tmp_path, "n01/1.jpg")
    put(tmp_path, "n02/1.jpg")
    put(tmp_path, "classnames.txt", "tench\ngreat white shark\n")
    assert FolderTable(tmp_path).class_names == ("tench", "great white shark")
    put(tmp_path, "classnames.txt", "tench\n")
    with pytest.raises(UserError, match=r"names 1 classes, but .* has 2 folders"):
        FolderTable(tmp_path)


def test_images_with_captions_beside(tmp_path):
    Image.new("RGB", (3, 2), (200, 10, 10)).save(tmp_path / "b.png")
    put(tmp_path, "a.v2.JPG")
    put(tmp_path, "a.v2.txt", "\ufeff eine Größe \n")  # a byte order mark is no part of it
    put(tmp_path, "b.txt", "two\nlines")
    put(tmp_path, "c.jpg")
    put(tmp_path, "d.jpg")
    put(tmp_path, "d.txt", " \n")
    (tmp_path / "empty_folder").mkdir()
    table = FolderTable(tmp_path)
    assert table.class_names == ()
    assert table.parts == {str(tmp_path): 4}
    samples = usable(table.read(range(4)))
    assert [s.key for s in samples] == ["a.v2.JPG", "b.png", "c.jpg", "d.jpg"]
    assert [s.captions for s in samples] == [("eine Größe",), ("two\nlines",), (), ()]
    assert {s.label for s in samples} == {None}
    assert samples[1].image == (tmp_path / "b.png").read_bytes()


def test_refuses_what_is_no_table(tmp_path):
    put(tmp_path, "file.jpg")
    put(tmp_path, "mixed/1.jpg")
    put(tmp_path, "mixed/a/1.jpg")
    put(tmp_path, "texts/a/1.txt")
    (tmp_path / "nothing").mkdir()
    for name, message in (
        ("missing", "is not a folder"),
        ("file.jpg", "is not a folder"),
        ("nothing", "has no images"),
        ("texts", "has no images"),
        ("mixed", "holds both images and folders of images"),
    ):
        with pytest.raises(UserError, match=message) as error:
            FolderTable(tmp_path / name)
        assert name in str(error.value)
        assert "\n" not in str(error.value)


def test_unreadable_samples(tmp_path):
    put(tmp_path, "a.jpg", b"")
    put(tmp_path, "b.jpg")
    put(tmp_path, "b.txt", b"\xff\xfe")
    put(tmp_path, "c.jpg")
    put(tmp_path, "d.jpg")
    (tmp_path / "d.txt").mkdir()
    table = FolderTable(tmp_path)
    (tmp_path / "c.jpg").unlink()
    assert table.read([1, 0, 2, 3]) == [
        BadSample("b.jpg", "bad caption", f"the caption in {tmp_path}/b.txt is not UTF-8 text"),
        BadSample("a.jpg", "no image", f"{tmp_path}/a.jpg is an empty file"),
        BadSample("c.jpg", "no image", f"cannot read {tmp_path}/c.jpg: No such file or directory"),
        BadSample("d.jpg", "bad caption", f"cannot read {tmp_path}/d.txt: No such file or directory"),
    ]
    for index in (-1, 4):
        with pytest.raises(IndexError):
            table.read([index])
