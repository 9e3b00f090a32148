"""Texts to embed: files that change meanwhile, and captions without words."""

import shutil
from dataclasses import replace

import pytest
from support.tables import ListTable

from clip_jax.data.table import Sample
from clip_jax.errors import UserError
from clip_jax.search.texts import Captions, Lines


def test_a_file_of_another_name_is_other_data(tmp_path):
    (tmp_path / "a.txt").write_text("one\ntwo\n")
    (tmp_path / "moved").mkdir()
    for name in ("b.txt", "moved/a.txt"):
        shutil.copy(tmp_path / "a.txt", tmp_path / name)
    digest, renamed, moved = (Lines(str(tmp_path / name)).digest("") for name in ("a.txt", "b.txt", "moved/a.txt"))
    assert digest != renamed
    assert digest == moved
    (tmp_path / "a.txt").write_text("one\nthree\n")
    assert Lines(str(tmp_path / "a.txt")).digest("") != digest


def test_a_file_that_is_shortened_meanwhile(tmp_path):
    (tmp_path / "a.txt").write_text("one\ntwo\nthree\n")
    lines = Lines(str(tmp_path / "a.txt"))
    (tmp_path / "a.txt").write_text("one\n")
    with pytest.raises(UserError, match=r"a\.txt has fewer lines than when it was opened"):
        lines.read(range(3))
    (tmp_path / "a.txt").unlink()
    with pytest.raises(UserError, match=r"cannot read .*a\.txt: No such file"):
        lines.read(range(1))


def test_captions_without_words_are_none():
    one = Sample("a", b"", ("a star",))
    table = ListTable([one, replace(one, key="b", captions=(" ",)), replace(one, key="c", captions=("", "a ring"))])
    keys, bad = Captions(table).read(range(3))
    assert [(key["key"], key["caption"]) for key in keys] == [("a", "a star"), ("c", "a ring")]
    assert [(key["key"], key["cause"], key["reason"]) for key in bad] == [("b", "no caption", "its caption is empty")]
