"""The pipeline: a pure function of seed and step, the same whoever reads it and from wherever it starts."""

import io

import numpy as np
import pytest
from PIL import Image

from clip_jax.data.order import Order
from clip_jax.data.pipeline import Pipeline
from clip_jax.data.scenes import ScenesTable
from clip_jax.data.table import Sample
from clip_jax.errors import UserError
from clip_jax.inputs.tokenizer import ClipTokenizer

pytest.importorskip("tensorflow")
TOKENIZER = ClipTokenizer(context_length=24)


class ListTable:
    """Samples in memory."""

    class_names = ()

    def __init__(self, samples: list[Sample]) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def keys(self, indices) -> list[str]:
        return [self.samples[i].key for i in indices]

    def read(self, indices) -> list[Sample]:
        return [self.samples[i] for i in indices]


def pipeline(table, batch_size=8, seed=0, process=(0, 1), crop_scale=(0.5, 1.0), image_size=32) -> Pipeline:
    order = Order(len(table), seed=seed, block=4, window=4)
    return Pipeline(table, order, TOKENIZER, image_size, batch_size, crop_scale, *process)


def encoded(pixels: np.ndarray, form: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form, **({"quality": 95, "subsampling": 0} if form == "jpeg" else {}))
    return buffer.getvalue()


PNG = encoded(np.zeros((32, 32, 3), np.uint8), "png")
JPEG = encoded(np.full((32, 32, 3), 9, np.uint8), "jpeg")


@pytest.fixture(scope="module")
def scenes() -> ListTable:
    return ListTable(ScenesTable("train", 50).read(range(50)))


def test_a_run_that_starts_later_sees_the_same_batches(scenes):
    whole = list(pipeline(scenes).batches(0, 14))
    resumed = list(pipeline(scenes).batches(9, 14))
    assert [batch.step for batch in resumed] == [9, 10, 11, 12, 13]
    for expected, batch in zip(whole[9:], resumed, strict=True):
        np.testing.assert_array_equal(batch.pixels, expected.pixels)
        np.testing.assert_array_equal(batch.tokens, expected.tokens)
        assert batch.digest == expected.digest
    assert len({batch.digest for batch in whole}) == len(whole)


def test_processes_share_the_global_batch(scenes):
    alone = list(pipeline(scenes).batches(0, 3))
    for count in (2, 4):
        shares = [list(pipeline(scenes, process=(index, count)).batches(0, 3)) for index in range(count)]
        for step, batch in enumerate(alone):
            np.testing.assert_array_equal(np.concatenate([share[step].pixels for share in shares]), batch.pixels)
            np.testing.assert_array_equal(np.concatenate([share[step].tokens for share in shares]), batch.tokens)
            assert {share[step].digest for share in shares} == {batch.digest}


def test_an_epoch_has_every_sample_once(scenes):
    digests = {}
    batches = pipeline(scenes, batch_size=10)
    for step in range(10):
        keys = scenes.keys(batches.order.indices(step * 10, step * 10 + 10))
        digests.setdefault(step // 5, []).extend(keys)
    assert sorted(digests[0]) == sorted(digests[1]) == sorted(scenes.keys(range(50)))
    assert digests[0] != digests[1]


def test_another_seed_gives_other_batches(scenes):
    (first,), (second,) = (list(pipeline(scenes, seed=seed).batches(0, 1)) for seed in (0, 1))
    assert first.digest != second.digest


def test_captions_and_crops_change_from_epoch_to_epoch(scenes):
    table = ListTable(scenes.samples[:1])
    batches = list(pipeline(table, batch_size=1).batches(0, 30))
    assert len({batch.tokens.tobytes() for batch in batches}) > 2
    assert len({batch.pixels.tobytes() for batch in batches}) == 30
    assert {TOKENIZER.decode(batch.tokens[0]).strip().replace(" .", ".") for batch in batches} <= set(
        table.samples[0].captions
    )


@pytest.mark.parametrize("form", ["jpeg", "png", "webp", "bmp"])
def test_without_cropping_pixels_are_pillows(form):
    # A smooth picture: a chequered one would measure JPEG decoders' rounding instead.
    y, x = np.mgrid[0:32, 0:32].astype(np.float32)
    pixels = np.stack([4 * x + 60, 3 * y + 80, x + 2 * y + 50], axis=-1).astype(np.uint8)
    data = encoded(pixels, form)
    table = ListTable([Sample("a", data, ("a picture.",))])
    (batch,) = pipeline(table, batch_size=1, crop_scale=(1.0, 1.0)).batches(0, 1)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
    assert np.abs(batch.pixels[0].astype(int) - expected).max() <= 1


def test_shrinking_does_not_alias():
    """A fine chequerboard of mean grey shrinks to grey; without antialiasing it would stay black and white."""
    board = (np.indices((256, 256)).sum(axis=0) % 2 * 255).astype(np.uint8)
    table = ListTable([Sample("a", encoded(np.stack([board] * 3, axis=-1), "png"), ("a board.",))])
    (batch,) = pipeline(table, batch_size=1, crop_scale=(0.9, 1.0)).batches(0, 1)
    assert np.abs(batch.pixels.astype(int) - 127.5).max() < 12


def test_a_transparent_png_is_laid_on_white():
    clear = np.zeros((32, 32, 4), np.uint8)
    table = ListTable([Sample("a", encoded(clear, "png"), ("nothing.",))])
    (batch,) = pipeline(table, batch_size=1).batches(0, 1)
    assert batch.pixels.min() == 255


@pytest.mark.parametrize(
    ("image", "size", "captions", "message"),
    [
        (PNG, 1000, (), "good/1 has no caption"),
        (PNG, 60, ("cut off",), "sample good/1: .*truncated"),
        (JPEG, 200, ("cut off",), "sample good/1: image bytes"),
    ],
)
def test_a_bad_sample_stops_with_one_line(image, size, captions, message):
    sample = Sample("good/1", image[:size], captions)
    with pytest.raises(UserError, match=message) as raised:
        list(pipeline(ListTable([sample]), batch_size=1).batches(0, 1))
    assert "\n" not in str(raised.value)
