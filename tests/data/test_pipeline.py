"""The pipeline: a pure function of seed and step, the same whoever reads it and from wherever it starts."""

import io
import struct
import zlib
from collections import Counter

import numpy as np
import pytest
from PIL import Image, ImageEnhance
from support.tables import ListTable

from clip_jax.data.draws import Draws
from clip_jax.data.order import Shuffle
from clip_jax.data.pipeline import Pipeline, make_pipeline
from clip_jax.data.reader import Augmentation
from clip_jax.data.scenes import ScenesTable
from clip_jax.data.table import BadSample, Sample, usable
from clip_jax.errors import UserError
from clip_jax.inputs.tokenizer import ClipTokenizer

pytest.importorskip("tensorflow")
TOKENIZER = ClipTokenizer(context_length=24)


def pipeline(*tables, batch_size=8, seed=0, process=(0, 1), image_size=32, weights=None, **augmentation) -> Pipeline:
    wishes = Augmentation(**{"crop_scale": (0.5, 1.0), **augmentation})
    weighted = list(zip(tables, weights or [1.0] * len(tables), strict=True))
    shuffle = Shuffle(block=4, window=4, lanes=4)
    return make_pipeline(weighted, TOKENIZER, image_size, batch_size, seed, shuffle, wishes, process)


def encoded(pixels: np.ndarray, form: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form, **({"quality": 95, "subsampling": 0} if form == "jpeg" else {}))
    return buffer.getvalue()


PNG = encoded(np.zeros((32, 32, 3), np.uint8), "png")
JPEG = encoded(np.full((32, 32, 3), 9, np.uint8), "jpeg")


@pytest.fixture(scope="module")
def scenes() -> ListTable:
    return ListTable(usable(ScenesTable("train", 50).read(range(50))))


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
        keys = batches.keys(step)
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
        usable(table.samples)[0].captions
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


HEADER = b"IHDR" + struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
BOMB = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + HEADER + struct.pack(">I", zlib.crc32(HEADER)) + PNG[33:]
FRAME = JPEG.index(b"\xff\xc0")  # whose first component's sampling factors are 0 here
LOOKS_WHOLE = JPEG[: FRAME + 11] + b"\x00" + JPEG[FRAME + 12 :]


def number(tokens) -> int:
    """The caption of a sample whose caption is a number."""
    return int(TOKENIZER.decode(tokens).replace(" ", ""))


BAD = {
    "truncated JPEG": (Sample("bad", JPEG[:-20], ("a",)), "bad image"),
    "JPEG that only looks whole": (Sample("bad", LOOKS_WHOLE, ("a",)), "bad image"),
    "truncated PNG": (Sample("bad", PNG[:60], ("a",)), "bad image"),
    "a page": (Sample("bad", b"<html>404</html>", ("a",)), "bad image"),
    "empty": (Sample("bad", b"", ("a",)), "bad image"),
    "bomb": (Sample("bad", BOMB, ("a",)), "too many pixels"),
    "no caption": (Sample("bad", JPEG, ()), "no caption"),
    "from the table": (BadSample("bad", "cut short", "its shard ends before it"), "cut short"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_samples_are_replaced_and_counted(name):
    bad, cause = BAD[name]
    good = [Sample(str(i), encoded(np.full((40, 40, 3), 10 * i, np.uint8), "jpeg"), (f"{i}",)) for i in range(7)]
    runs = [list(pipeline(ListTable([*good, bad]), batch_size=4).batches(start, 4)) for start in (0, 0, 3)]
    first, second, resumed = runs
    assert sum((Counter(batch.bad) for batch in first), Counter()) == {cause: 2}  # once an epoch
    for one, other in [*zip(first, second, strict=True), (first[3], resumed[0])]:
        np.testing.assert_array_equal(one.pixels, other.pixels)
        np.testing.assert_array_equal(one.tokens, other.tokens)
        assert (one.digest, one.bad) == (other.digest, other.bad)
    for batch in first:  # each image with its own caption, the replacement's too
        for pixels, tokens in zip(batch.pixels, batch.tokens, strict=True):
            assert abs(float(pixels.mean()) - 10 * number(tokens)) < 1


def test_a_picture_under_a_wrong_name_is_no_bad_sample():
    table = ListTable([Sample("a.jpg", PNG, ("a",)), Sample("b.png", JPEG, ("b",))])
    assert not any(batch.bad for batch in pipeline(table, batch_size=2).batches(0, 2))


@pytest.mark.parametrize("name", BAD)
def test_nothing_usable_is_an_error_and_no_wait(name):
    with pytest.raises(UserError, match="hardly a sample of the data can be used; sample bad: ") as raised:
        list(pipeline(ListTable([BAD[name][0]] * 3), batch_size=2).batches(0, 1))
    assert "\n" not in str(raised.value)


def coloured_table(count: int, level: int) -> ListTable:
    image = encoded(np.full((8, 8, 3), level, np.uint8), "png")
    return ListTable([Sample(f"{level}-{i}", image, (f"{level}",)) for i in range(count)])


def test_mixtures_keep_their_weights_and_cover_each_source():
    tables, weights = [coloured_table(50, 10), coloured_table(30, 90), coloured_table(20, 200)], [3.0, 2.0, 1.0]
    mixed = pipeline(*tables, weights=weights, batch_size=60)
    keys = [key for step in range(10) for key in mixed.keys(step)]
    counts = Counter(key.split("-")[0] for key in keys)
    for level, weight in zip(("10", "90", "200"), weights, strict=True):
        assert counts[level] == pytest.approx(600 * weight / 6, abs=6)
    firsts = [key for key in keys if key.startswith("10-")][:50]
    assert len(set(firsts)) == 50  # an epoch of its own
    for batch in mixed.batches(4, 6):
        levels = [number(tokens) for tokens in batch.tokens]
        np.testing.assert_array_equal(batch.pixels[:, 0, 0, 0], levels)
        assert levels == [int(key.split("-")[0]) for key in mixed.keys(batch.step)]


def test_processes_share_a_mixture():
    def of(process):
        return list(pipeline(*tables, weights=[2.0, 1.0], process=process).batches(3, 6))

    tables = [coloured_table(20, 10), coloured_table(9, 90)]
    alone, first, second = of((0, 1)), of((0, 2)), of((1, 2))
    for whole, *parts in zip(alone, first, second, strict=True):
        np.testing.assert_array_equal(np.concatenate([part.pixels for part in parts]), whole.pixels)
        assert {part.digest for part in parts} == {whole.digest}


def test_remote_tables_give_the_same_batches_in_long_reads(scenes):
    near, far = ListTable(scenes.samples[:48]), ListTable(scenes.samples[:48], is_remote=True)
    for here, there in zip(pipeline(near).batches(1, 9), pipeline(far).batches(1, 9), strict=True):
        np.testing.assert_array_equal(there.pixels, here.pixels)
        np.testing.assert_array_equal(there.tokens, here.tokens)
    # Windows of four blocks of four; the first begins inside of one, and the last ends there.
    assert sorted(map(len, far.asked)) == [8, 8, 16, 16, 16]
    assert all(len({index // 4 for index in asked}) == 4 for asked in far.asked)
    # One of two processes reads half of each window, and nearly whole blocks of it.
    half = ListTable(scenes.samples[:48], is_remote=True)
    list(pipeline(half, process=(1, 2)).batches(0, 6))
    assert [len(asked) for asked in half.asked] == [8, 8, 8]
    assert all(len({index // 4 for index in asked}) == 2 for asked in half.asked)


def test_flips_mirror_about_half_of_the_images():
    ramp = np.tile(np.arange(0, 240, 5, dtype=np.uint8)[None, :, None], (48, 1, 3))
    table = ListTable([Sample("a", encoded(ramp, "png"), ("a",))])
    for share, expected in ((0.0, 0), (1.0, 40), (0.5, 20)):
        (batch,) = pipeline(table, batch_size=40, flip=share).batches(0, 1)
        mirrored = batch.pixels[:, 16, 0, 0].astype(int) > batch.pixels[:, 16, -1, 0]
        assert abs(mirrored.sum() - expected) <= (8 if share == 0.5 else 0)


def test_colours_are_those_of_pillow():
    """Brightness, contrast and saturation one after the other, against Pillow's enhancers."""
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(60, 190, (32, 32, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    image.save(buffer, "png")
    table = ListTable([Sample("a", buffer.getvalue(), ("a",))])
    (batch,) = pipeline(table, batch_size=12, crop_scale=(1.0, 1.0), colours=0.4).batches(0, 1)
    factors = Draws.at(0, np.arange(12)).colours(0.4)
    for pixels, (brightness, contrast, saturation) in zip(batch.pixels, factors.tolist(), strict=True):
        expected = ImageEnhance.Color(
            ImageEnhance.Contrast(ImageEnhance.Brightness(image).enhance(brightness)).enhance(contrast)
        ).enhance(saturation)
        assert np.abs(pixels.astype(int) - np.asarray(expected)).max() <= 4  # Pillow rounds after each


def test_caption_weights():
    table = ListTable([Sample("a", PNG, ("one", "two", "three"))])
    taken = Counter()
    for batch in pipeline(table, batch_size=100, caption_weights=(1.0, 3.0)).batches(0, 4):
        taken.update(TOKENIZER.decode(tokens).strip() for tokens in batch.tokens)
    assert set(taken) == {"one", "two"}
    assert taken["two"] == pytest.approx(300, abs=35)


def test_large_jpegs_are_decoded_small():
    """Smooth pictures of 96 to 896 pixels to 32: whole, at a half, a quarter and an eighth."""
    for size in (96, 160, 320, 896):
        y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size
        pixels = np.stack([200 * x + 20, 150 * y + 50, 100 * x + 100 * y + 20], axis=-1).astype(np.uint8)
        table = ListTable([Sample("a", encoded(pixels, "jpeg"), ("a",))])
        (batch,) = pipeline(table, batch_size=1, crop_scale=(1.0, 1.0)).batches(0, 1)
        expected = Image.fromarray(pixels).resize((32, 32), Image.Resampling.BOX)
        assert np.abs(batch.pixels[0].astype(int) - np.asarray(expected)).max() <= 2
