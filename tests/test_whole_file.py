"""Files that are written whole or not at all."""

import errno
import os
import threading

import pytest

from clip_jax.errors import UserError
from clip_jax.whole_file import write_output, write_whole


@pytest.mark.parametrize("durable", [True, False])
def test_whole(tmp_path, durable):
    write_whole(tmp_path / "file", [b"one", memoryview(b" two")], durable)
    assert (tmp_path / "file").read_bytes() == b"one two"
    with pytest.raises(TypeError):
        write_whole(tmp_path / "file", [b"new", None], durable)  # as where the disk is full after some bytes
    assert (tmp_path / "file").read_bytes() == b"one two"
    assert os.listdir(tmp_path) == ["file"]


def test_output(tmp_path):
    write_output(tmp_path / "new/folder/page.html", "a name of bytes: \udcff, ä")
    assert (tmp_path / "new/folder/page.html").read_bytes() == b"a name of bytes: \\udcff, \xc3\xa4"
    with pytest.raises(UserError, match=r"cannot write .*new: Is a directory"):
        write_output(tmp_path / "new", "text")
    with pytest.raises(UserError, match=r"cannot write .*page\.html/below: .*/page\.html is not a folder"):
        write_output(tmp_path / "new/folder/page.html/below", "text")


@pytest.mark.parametrize("number", [errno.EBUSY, errno.ENOSPC])
def test_a_file_in_a_folder_that_takes_no_other(tmp_path, monkeypatch, number):
    (tmp_path / "file").write_text("old")

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "replace", refuse)
    if number == errno.EBUSY:
        write_output(tmp_path / "file", "new")
        assert (tmp_path / "file").read_text() == "new"
    else:  # a full disk would leave a half
        with pytest.raises(UserError, match=r"cannot write .*: No space left on device"):
            write_output(tmp_path / "file", "new")
        assert (tmp_path / "file").read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_links_and_devices_stay(tmp_path):
    (tmp_path / "link").symlink_to("file")
    write_output(tmp_path / "link", "text")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_text() == "text"

    os.mkfifo(tmp_path / "pipe")
    found = []
    reader = threading.Thread(target=lambda: found.append((tmp_path / "pipe").read_text()), daemon=True)
    reader.start()
    write_output(tmp_path / "pipe", "to a pipe")
    reader.join(10)
    assert found == ["to a pipe"]
    assert (tmp_path / "pipe").is_fifo()
