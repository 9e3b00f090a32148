"""Drawn scenes: held-out combinations stay out of training, and what the caption says is what is drawn."""

import io
import re
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from clip_jax.data.drawing import BACKGROUNDS, COLOURS, SHAPES
from clip_jax.data.scenes import COMBINATIONS, HELD_OUT, SEEN, ScenesTable, Split, class_name
from clip_jax.data.table import usable
from clip_jax.errors import UserError


def test_held_out_combinations_are_enough_and_balanced():
    assert len(COMBINATIONS) == len(COLOURS) * len(SHAPES) == 64
    assert len(set(HELD_OUT)) == 24
    assert set(HELD_OUT).isdisjoint(SEEN)
    assert set(Counter(colour for colour, _ in HELD_OUT).values()) == {3}
    assert set(Counter(shape for _, shape in HELD_OUT).values()) == {3}


def test_training_neither_draws_nor_names_a_held_out_combination():
    table = ScenesTable("train", 1500, seed=3)
    held_out = re.compile(r"\b(" + "|".join(class_name(c) for c in HELD_OUT) + r")(s|es)?\b")
    kinds = Counter()
    for index in range(len(table)):
        scene = table.scene(index)
        kinds[scene.kind] += 1
        assert {(sprite.colour, sprite.shape) for sprite in scene.sprites} <= set(SEEN)
        assert not any(held_out.search(caption) for caption in scene.captions)
    assert kinds.keys() == {"one", "count", "relation"}
    assert held_out.search(f"a {class_name(HELD_OUT[0])}."), "the expression finds what it looks for"


def test_labelled_splits_show_their_classes_in_equal_numbers():
    splits: dict[Split, tuple] = {"held_out": HELD_OUT, "probe": HELD_OUT, "seen": SEEN}
    for split, combinations in splits.items():
        table = ScenesTable(split, 3 * len(combinations), seed=1)
        assert table.class_names == tuple(map(class_name, combinations))
        samples = usable(table.read(range(len(table))))
        assert set(Counter(sample.label for sample in samples).values()) == {3}
        for sample in samples:
            assert sample.label is not None
            assert all(
                table.class_names[sample.label] in caption or "striped" in caption or "dotted" in caption
                for caption in sample.captions
            )


def test_a_sample_depends_on_its_seed_split_and_index_alone():
    table = ScenesTable("train", 10, seed=1)
    again, other = ScenesTable("train", 1000, seed=1), ScenesTable("train", 10, seed=2)
    assert table.read([7]) == again.read([7]) == [table.read(range(10))[7]]
    held_out, probe = ScenesTable("held_out", 10, 1), ScenesTable("probe", 10, 1)
    for one, two in ((table, other), (held_out, probe)):
        assert usable(one.read([7]))[0].image != usable(two.read([7]))[0].image


def test_splits_do_not_share_their_noise():
    """A probe trained on one split must not know the other's backgrounds."""
    corners = {}
    for split in ("held_out", "probe"):
        samples = usable(ScenesTable(split, 48, seed=1).read(range(48)))
        pixels = [np.asarray(Image.open(io.BytesIO(sample.image)), np.float32)[:2] for sample in samples]
        corners[split] = np.stack([values - values.mean() for values in pixels]).reshape(48, -1)
    same = [np.corrcoef(a, b)[0, 1] for a, b in zip(corners["held_out"], corners["probe"], strict=True)]
    assert abs(np.mean(same)) < 0.2


@pytest.mark.parametrize("size", [32, 64])
def test_the_pixels_show_the_colour_and_background_that_the_caption_names(size):
    table = ScenesTable("seen", 80, seed=5, image_size=size)
    for index, sample in enumerate(usable(table.read(range(len(table))))):
        scene = table.scene(index)
        pixels = np.asarray(Image.open(io.BytesIO(sample.image)), np.float32)
        assert pixels.shape == (size, size, 3)
        (sprite,) = scene.sprites
        colours = np.array(list(COLOURS.values()), np.float32)
        distances = np.linalg.norm(pixels[:, :, None] - colours, axis=-1)
        drawn = Counter(distances.argmin(axis=-1)[distances.min(axis=-1) < 45].ravel())
        assert list(COLOURS)[drawn.most_common(1)[0][0]] == sprite.colour
        corner = pixels[[0, 0, -1, -1], [0, -1, 0, -1]].mean(axis=0)  # the shading cancels over the corners
        nearest = min(BACKGROUNDS, key=lambda name: np.linalg.norm(corner - np.array(BACKGROUNDS[name])))
        assert nearest == scene.background


def test_relations_are_as_the_caption_says():
    table = ScenesTable("train", 400, seed=2)
    compare = {
        "to the left of": lambda a, b: a.x < b.x,
        "to the right of": lambda a, b: a.x > b.x,
        "above": lambda a, b: a.y < b.y,
        "below": lambda a, b: a.y > b.y,
    }
    seen = Counter()
    for scene in map(table.scene, range(len(table))):
        caption = next((c for c in scene.captions for relation in compare if relation in c), None)
        if caption is None:
            continue
        relation = next(relation for relation in compare if relation in caption)
        first, second = scene.sprites
        assert compare[relation](first, second)
        before, after = caption.split(relation)
        assert f"{first.colour} {first.shape}" in before
        assert f"{second.colour} {second.shape}" in after
        seen[relation] += 1
    assert set(seen) == set(compare)


def test_counts_are_as_the_caption_says():
    numbers = {"two": 2, "three": 3, "four": 4}
    table = ScenesTable("train", 300, seed=2)
    scenes = [scene for scene in map(table.scene, range(len(table))) if scene.kind == "count"]
    assert len(scenes) > 20
    for scene in scenes:
        words = re.findall(r"\w+", scene.captions[0])
        assert numbers[words[0]] == len(scene.sprites)


@pytest.mark.parametrize(
    ("split", "options", "message"),
    [
        ("trian", {}, "did you mean 'train'"),
        ("train", {"images": "many"}, "whole number"),
    ],
)
def test_wrong_options_are_refused(split, options, message):
    with pytest.raises(UserError, match=message):
        ScenesTable.from_options(split, options)
