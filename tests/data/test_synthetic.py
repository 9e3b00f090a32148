import io

import pytest
from PIL import Image

from clip_jax.data.spec import open_table
from clip_jax.data.synthetic import SyntheticTable
from clip_jax.data.table import Table, usable
from clip_jax.errors import UserError


def test_samples():
    table = open_table("synthetic:100?size=60&seed=3")
    assert isinstance(table, Table)
    assert (len(table), table.parts, table.is_remote, table.class_names) == (100, {"synthetic": 100}, False, ())
    samples = usable(table.read(range(100)))
    assert len({sample.key for sample in samples}) == 100
    assert table.keys([7, 3]) == [samples[7].key, samples[3].key]
    assert len({sample.captions for sample in samples}) > 95
    assert 1 < len({sample.image for sample in samples}) < 30
    for sample in samples[:30]:
        with Image.open(io.BytesIO(sample.image)) as image:
            assert (image.format, image.size, image.mode) == ("JPEG", (60, 60), "RGB")
        assert all(3 < len(caption.split()) < 25 for caption in sample.captions)


def test_a_sample_is_a_function_of_seed_and_index_alone():
    once, longer, other = SyntheticTable(10, 32, 1), SyntheticTable(10**9, 32, 1), SyntheticTable(10, 32, 2)
    assert once.read([7, 2]) == longer.read([7, 2]) == [once.read(range(10))[7], once.read(range(10))[2]]
    (mine,), (theirs,) = usable(once.read([7])), usable(other.read([7]))
    assert mine.image != theirs.image
    assert mine.captions != theirs.captions
    assert longer.read([10**9 - 1])[0].key == "synthetic-999999999"
    for index in (-1, 10):
        with pytest.raises(IndexError):
            once.read([index])


def test_files_are_about_as_large_as_photographs():
    """Of 256 pixels a side; COCO's, scaled to that and stored at the usual quality, have 10 to 40 KB."""
    sizes = [len(sample.image) for sample in usable(SyntheticTable(16).read(range(16)))]
    assert all(10_000 < size < 40_000 for size in sizes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("synthetic:0", "synthetic samples must be a whole number of at least 1, not '0'"),
        ("synthetic:many", "synthetic samples must be a whole number"),
        ("synthetic:5?size=0", "synthetic size must be a whole number of at least 1, not '0'"),
        ("synthetic:5?seed=-1", "synthetic seed must be a whole number of at least 0, not '-1'"),
        ("synthetic:5000000000", "synthetic samples must be"),
    ],
)
def test_refuses(text, message):
    with pytest.raises(UserError, match=message):
        open_table(text)
