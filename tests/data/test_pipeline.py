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
from clip_jax.data.lazy_tensorflow import tensorflow
from clip_jax.data.order import Shuffle
from clip_jax.data.pipeline import Pipeline, make_pipeline, rows_of
from clip_jax.data.pixels import OTHER, WHOLE, decode, jpeg_branches
from clip_jax.data.reader import Augmentation
from clip_jax.data.scenes import ScenesTable
from clip_jax.data.table import BadSample, Sample, usable
from clip_jax.errors import UserError
from clip_jax.inputs.images import open_image
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


def numbered(count: int, first: int = 0, **kind) -> ListTable:
    """Samples whose caption is their number, and their key too."""
    return ListTable([Sample(f"{first + i}", JPEG, (f"{first + i}",)) for i in range(count)], **kind)


def number(tokens) -> int:
    """The caption of a sample whose caption is a number."""
    return int(TOKENIZER.decode(tokens).replace(" ", ""))


@pytest.mark.parametrize("is_remote", [False, True])
def test_an_epoch_has_every_good_sample_once(is_remote):
    """What the batches hold, not what was ordered: replacements are listed, and there are no others."""
    table = numbered(100, is_remote=is_remote)
    for i in range(0, 100, 7):
        table.samples[i] = (
            Sample(f"{i}", JPEG[: -20 - i], (f"{i}",)) if i % 2 else BadSample(f"{i}", "no image", "gone")
        )
    good = {i for i in range(100) if i % 7}
    batches = list(pipeline(table, batch_size=20).batches(0, 10))
    for epoch in (batches[:5], batches[5:]):
        seen = Counter(number(tokens) for batch in epoch for tokens in batch.tokens)
        replaced = [one for batch in epoch for one in batch.replaced]
        assert sorted(int(one.wanted) for one in replaced) == [i for i in range(100) if i not in good]
        assert all(one.cause == ("bad image" if int(one.wanted) % 2 else "no image") for one in replaced)
        assert seen - Counter(int(one.used) for one in replaced) == Counter(good)
    assert [batch.digest for batch in batches[:5]] != [batch.digest for batch in batches[5:]]


def test_of_a_mixture_each_source_has_epochs_of_its_own():
    tables = numbered(60), numbered(20, first=100)
    tables[0].samples[11] = BadSample("11", "no image", "gone")
    batches = list(pipeline(*tables, weights=[3.0, 1.0], batch_size=16).batches(0, 5))
    seen = Counter(number(tokens) for batch in batches for tokens in batch.tokens)
    (replaced,) = [one for batch in batches for one in batch.replaced]
    assert (replaced.wanted, replaced.cause) == ("11", "no image")
    assert int(replaced.used) < 60  # of the same source
    good = Counter(number for number in (*range(60), *range(100, 120)) if number != 11)
    assert seen - Counter([int(replaced.used)]) == good


def test_parts_of_a_batch():
    assert [rows_of((index, 4), 16) for index in range(4)] == [(0, 4), (4, 8), (8, 12), (12, 16)]
    with pytest.raises(UserError, match=r"batch_size 10 does not divide among 4 processes; 8 or 12 would$"):
        rows_of((0, 4), 10)
    with pytest.raises(UserError, match=r"batch_size 3 does not divide among 4 processes; 4 would$"):
        rows_of((0, 4), 3)


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


def differing(batch, other) -> list[int]:
    return [row for row in range(len(batch.pixels)) if not np.array_equal(batch.pixels[row], other.pixels[row])]


def test_a_jpeg_that_fails_leaves_the_others_as_they_are():
    """TensorFlow decodes the others at a quarter whoever reads them, and Pillow all of the one it refuses."""
    y, x = np.mgrid[0:160, 0:160].astype(np.float32)
    waves = np.stack([128 + 60 * np.sin(x / 2), 128 + 60 * np.sin(y / 3), 128 + 60 * np.sin(x + y)], -1).astype(
        np.uint8
    )
    good = [Sample(f"{i}", encoded(np.roll(waves, i, axis=1), "jpeg"), (f"{i}",)) for i in range(16)]
    broken = ListTable([*good[:15], Sample("15", LOOKS_WHOLE, ("15",))])
    (whole,) = pipeline(ListTable(good), batch_size=16).batches(0, 1)
    (alone,) = pipeline(broken, batch_size=16).batches(0, 1)
    shares = [next(pipeline(broken, batch_size=16, process=(part, 2)).batches(0, 1)) for part in range(2)]
    np.testing.assert_array_equal(np.concatenate([share.pixels for share in shares]), alone.pixels)
    assert sum((share.replaced for share in shares), ()) == alone.replaced
    ((wanted, used, cause),) = alone.replaced
    assert (wanted, cause) == ("15", "bad image")
    (row,) = differing(whole, alone)
    assert number(alone.tokens[row]) == int(used)


def test_an_image_that_is_broken_inside_is_replaced():
    """Header and end are there, so it is found out only where it is decoded."""
    rng = np.random.default_rng(0)
    noise = encoded(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8), "png")
    broken = noise[:60] + bytes(300) + noise[360:]
    table = numbered(8)
    table.samples[3] = Sample("3", broken, ("3",))
    with pytest.raises(UserError):
        open_image(broken)
    batches = list(pipeline(table, batch_size=4).batches(0, 2))
    ((wanted, used, cause),) = [one for batch in batches for one in batch.replaced]
    assert (wanted, cause) == ("3", "bad image")
    seen = Counter(number(tokens) for batch in batches for tokens in batch.tokens)
    assert seen == Counter([int(used), *(i for i in range(8) if i != 3)])


def test_bad_samples_of_a_window_are_replaced_together():
    """As many rounds as samples turn out bad one after the other, not as many requests as there are bad samples."""
    table = numbered(256, is_remote=True)
    for i in range(0, 256, 4):
        table.samples[i] = BadSample(f"{i}", "no image", "gone")
    shuffle = Shuffle(block=16, window=16, lanes=1)
    weighted = [(table, 1.0)]
    batches = make_pipeline(weighted, TOKENIZER, 32, 64, 0, shuffle, Augmentation()).batches(0, 4)
    assert sum(len(batch.replaced) for batch in batches) == 64
    assert [len(asked) for asked in table.asked if len(asked) > 1][:2] == [256, 64]
    assert len(table.asked) < 12


def test_a_source_of_a_mixture_without_a_usable_sample_is_an_error_at_start():
    mixed = pipeline(numbered(20), ListTable([BAD["empty"][0]] * 5), weights=[1000.0, 1.0])
    with pytest.raises(UserError, match="hardly a sample of the data can be used; sample bad: "):
        next(mixed.batches(0, 100))


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
    # One sample at first, then windows of four blocks of four; the first begins inside of one, and the last ends there.
    assert sorted(map(len, far.asked)) == [1, 8, 8, 16, 16, 16]
    assert all(len({index // 4 for index in asked}) == 4 for asked in far.asked[1:])
    # One of two processes reads half of each window, and nearly whole blocks of it.
    half = ListTable(scenes.samples[:48], is_remote=True)
    list(pipeline(half, process=(1, 2)).batches(0, 6))
    assert [len(asked) for asked in half.asked] == [1, 8, 8, 8]
    assert all(len({index // 4 for index in asked}) == 2 for asked in half.asked[1:])


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


def test_crops_of_scaled_jpegs_are_off_by_half_a_pixel_of_theirs_at_most():
    rng = np.random.default_rng(0)
    sizes = rng.integers(40, 1200, (500, 2))
    crops = Draws.at(0, np.arange(500)).crops(sizes, (0.5, 1.0))
    tf = tensorflow()
    branches = jpeg_branches(crops, np.ones(500, bool), 32)
    assert {WHOLE, WHOLE + 1, WHOLE + 2, WHOLE + 3} == set(branches.tolist())
    assert set(jpeg_branches(crops, np.zeros(500, bool), 32).tolist()) == {OTHER}
    for ratio, size, crop in ((1, 60, (3, 5, 40, 50)), (2, 90, (3, 5, 78, 80)), (4, 150, (5, 7, 138, 140))):
        # On a slope the pixels tell where the crop lies: its first and its last column, and its first and last row.
        y, x = np.mgrid[0:size, 0:size].astype(np.float32) * 255 / size
        data = encoded(np.stack([x, y, x], -1).astype(np.uint8), "jpeg")
        branch = int(jpeg_branches(np.array([crop]), np.array([True]), 32)[0])
        assert branch == WHOLE + {1: 0, 2: 1, 4: 2}[ratio]
        part = decode(tf, data, tf.constant(branch), tf.constant(crop, tf.int32)).numpy().astype(float) * size / 255
        edges = part[0].mean(0)[1], part[:, 0].mean(0)[0], part[-1].mean(0)[1], part[:, -1].mean(0)[0]
        top, left, height, width = crop
        middle = (ratio - 1) / 2  # of the pixels that one is made of
        wanted = top + middle, left + middle, top + height - 1 - middle, left + width - 1 - middle
        np.testing.assert_allclose(edges, wanted, atol=ratio // 2 + 0.6)  # and JPEG's own rounding


def test_large_jpegs_are_decoded_small():
    """Smooth pictures of 96 to 896 pixels to 32: whole, at a half, a quarter and an eighth."""
    for size in (96, 160, 320, 896):
        y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size
        pixels = np.stack([200 * x + 20, 150 * y + 50, 100 * x + 100 * y + 20], axis=-1).astype(np.uint8)
        table = ListTable([Sample("a", encoded(pixels, "jpeg"), ("a",))])
        (batch,) = pipeline(table, batch_size=1, crop_scale=(1.0, 1.0)).batches(0, 1)
        expected = Image.fromarray(pixels).resize((32, 32), Image.Resampling.BOX)
        assert np.abs(batch.pixels[0].astype(int) - np.asarray(expected)).max() <= 2
