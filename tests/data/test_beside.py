"""CLIP_benchmark's layout: what lies beside the tars, and what it makes of them."""

import io

import numpy as np
import pytest
from support.tars import image, read_all, read_good_and_bad, simple_shard, write_tar

from clip_jax.data.beside import templates_near
from clip_jax.data.spec import open_table
from clip_jax.data.tar import TarTable
from clip_jax.errors import UserError


def array(values, allow_pickle: bool = False) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array(values), allow_pickle=allow_pickle)
    return buffer.getvalue()


def test_every_line_is_a_caption_for_retrieval(tmp_path):
    members = [("0.webp", image(0)), ("0.txt", "a dog\n\n ein Bär \n".encode()), ("1.webp", image(1)), ("1.txt", b"")]
    shard = write_tar(tmp_path / "test/0.tar", members)
    assert [sample.captions for sample in read_all(TarTable([shard]))] == [("a dog\n\n ein Bär",), ()]
    (tmp_path / "dataset_type.txt").write_text("Retrieval\n")
    assert [sample.captions for sample in read_all(TarTable([shard]))] == [("a dog", "ein Bär"), ()]


def test_several_labels(tmp_path):
    marks = [array([1, 0, 1]), array([0, 0, 0]), array([False, True, False])]
    members = [[(f"{i}.webp", image(i)), (f"{i}.npy", content)] for i, content in enumerate(marks)]
    shard = write_tar(tmp_path / "test/0.tar", [member for pair in members for member in pair])
    (tmp_path / "classnames.txt").write_text("cat\ndog\nsofa\n")
    assert [sample.labels for sample in read_all(TarTable([shard]))] == [None] * 3  # an array may be anything else
    (tmp_path / "dataset_type.txt").write_text("multilabel")
    assert [sample.labels for sample in read_all(TarTable([shard]))] == [(0, 2), (), (1,)]


@pytest.mark.parametrize("content", [b"", b"no array", array([1, 0]), array([[1, 0, 0]]), array([{}], True)])
def test_labels_that_cannot_be_read(tmp_path, content):
    shard = write_tar(tmp_path / "test/0.tar", [("0.webp", image(0)), ("0.npy", content)])
    (tmp_path / "classnames.txt").write_text("cat\ndog\nsofa\n")
    (tmp_path / "dataset_type.txt").write_text("multilabel")
    (bad,) = read_good_and_bad(TarTable([shard]))
    assert (bad.cause, ".npy" in bad.reason) == ("bad label", True)


def test_another_kind_is_refused(tmp_path):
    shard = simple_shard(tmp_path / "0.tar", 0, 2)
    (tmp_path / "dataset_type.txt").write_text("multi-label")
    with pytest.raises(UserError, match=r"dataset_type.txt says 'multi-label'; .*'multilabel'"):
        TarTable([shard])


def test_templates(tmp_path):
    shard = simple_shard(tmp_path / "test/0.tar", 0, 2)
    assert templates_near(str(shard)) == ()
    (tmp_path / "zeroshot_classification_templates.txt").write_text("a photo of a {c}.\nthe {c}.\n")
    assert templates_near(str(shard)) == ("a photo of a {}.", "the {}.")


def test_missing_shards_are_named(tmp_path):
    for number in range(2):
        simple_shard(tmp_path / f"test/{number}.tar", 10 * number, 2)
    (tmp_path / "test/nshards.txt").write_text("3\n")
    with pytest.raises(UserError, match="counts 3 tars, but 2 are there"):
        open_table(f"tar:{tmp_path}/test")
    assert len(open_table(f"tar:{tmp_path}/test/0.tar")) == 2  # who names some means them
    (tmp_path / "test/nshards.txt").write_text("2")
    assert len(open_table(f"{tmp_path}/test")) == 4
    (tmp_path / "test/nshards.txt").write_text("two")
    with pytest.raises(UserError, match="says 'two'"):
        open_table(f"{tmp_path}/test")
