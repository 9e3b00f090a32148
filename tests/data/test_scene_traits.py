"""Labels of splits that ask for a trait are derived again from the pixels; what training sees is as it always was."""

import hashlib
import io
import json
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from clip_jax.data.composition import PLACES
from clip_jax.data.drawing import BACKGROUNDS, COLOURS, draw
from clip_jax.data.scenes import SEEN, TRAITS, ScenesTable
from clip_jax.data.spec import open_table
from clip_jax.data.table import Sample, usable

SIZE = 64


def pixels(sample: Sample) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(sample.image)), np.float32)


def drawn(sample: Sample) -> np.ndarray:
    """Where there is no background, whose colour the last caption names; its shading stays below the threshold."""
    name = sample.captions[-1].rpartition(" on a ")[2].removesuffix(" background.")
    return np.abs(pixels(sample) - BACKGROUNDS[name]).max(axis=-1) > 45


def centre(where: np.ndarray) -> np.ndarray:
    """(x, y) of the centre of mass in image widths."""
    y, x = (places.mean() + 0.5 for places in np.nonzero(where))
    return np.array([x, y]) / SIZE


def samples(split: str, images: int) -> tuple[tuple[str, ...], list[Sample]]:
    table = open_table(f"scenes:{split}?images={images}&seed=1&size={SIZE}")
    return table.class_names, usable(table.read(range(images)))


def test_counts_are_those_of_the_corners_that_hold_something():
    names, found = samples("counts", 240)
    assert names == ("two", "three", "four")
    half = SIZE // 2
    for sample in found:
        where = drawn(sample)
        corners = [where[y : y + half, x : x + half].mean() for y in (0, half) for x in (0, half)]
        assert sum(share > 0.08 for share in corners) == 2 + names.index(sample.captions[0].split()[0])
        assert sample.label == names.index(sample.captions[0].split()[0])


def test_positions_are_those_of_the_centre_of_mass():
    names, found = samples("positions", 240)
    whole = [sample for sample in found if "large" not in sample.captions[3]]  # large ones run out of the picture
    assert len(whole) > 100
    for sample in whole:
        assert sample.label is not None
        distances = [np.linalg.norm(centre(drawn(sample)) - PLACES[name]) for name in names]
        assert np.argmin(distances) == sample.label
        assert names[sample.label] in sample.captions[4]


def test_large_ones_are_larger():
    names, found = samples("sizes", 240)
    assert names == ("small", "large")
    extents: dict[str, tuple[list[float], list[float]]] = {}
    for sample in found:
        assert sample.label is not None
        assert names[sample.label] in sample.captions[3].split()
        extent = max(float(np.ptp(places)) for places in np.nonzero(drawn(sample)))
        shape = sample.captions[0].split()[-1]
        extents.setdefault(shape, ([], []))[sample.label].append(extent)
    assert len(extents) == 8
    assert all(max(small) < min(large) for small, large in extents.values())


def test_textures_break_the_surface_as_their_name_says():
    names, found = samples("textures", 160)
    table = ScenesTable("textures", 160, 1, SIZE)
    for index, sample in enumerate(found):
        assert sample.label is not None
        (sprite,) = table.scene(index).sprites
        assert names[sample.label] == sprite.texture
        assert sprite.texture in sample.captions[3].split()


def test_relations_are_those_of_the_two_centres_of_mass():
    names, found = samples("relations", 240)
    table = ScenesTable("relations", 240, 1, SIZE)
    holds = {
        "to the left of": lambda first, second: first[0] < second[0] - 0.2,
        "to the right of": lambda first, second: first[0] > second[0] + 0.2,
        "above": lambda first, second: first[1] < second[1] - 0.2,
        "below": lambda first, second: first[1] > second[1] + 0.2,
    }
    told = 0
    for index, sample in enumerate(found):
        assert sample.label is not None
        one, other = table.scene(index).sprites
        first, second = (np.array(COLOURS[sprite.colour], np.float32) for sprite in (one, other))
        if np.linalg.norm(first - second) < 120:
            continue  # too alike to be told apart by colour
        nearer = np.linalg.norm(pixels(sample) - first, axis=-1) < np.linalg.norm(pixels(sample) - second, axis=-1)
        where = drawn(sample)
        relation = names[sample.label]
        assert holds[relation](centre(where & nearer), centre(where & ~nearer)), sample.captions[3]
        assert f"{one.colour} {one.shape} {relation} " in sample.captions[3]
        told += 1
    assert told > 100


@pytest.mark.parametrize("split", TRAITS)
def test_classes_come_equally_often_and_show_what_training_shows(split):
    table = ScenesTable(split, 60, 3)
    found = usable(table.read(range(60)))
    assert {sample.label for sample in found} == set(range(len(table.class_names)))
    assert set(Counter(sample.label for sample in found).values()) == {60 // len(table.class_names)}
    for index in range(60):
        assert {(sprite.colour, sprite.shape) for sprite in table.scene(index).sprites} <= set(SEEN)


# Of scenes and pixels as they were before there were traits and styles. A run that is resumed must meet the same.
DIGESTS = {
    "train": ("dbedd60a880ac973", "d0dd8dabbe350144"),
    "seen": ("f279b35d0492ce15", "b8ef44c8ccd367db"),
    "held_out": ("485a0c8235964058", "6d7f4f34d6e75a65"),
    "probe": ("944962271c2421bc", "69b74095e1e5e31e"),
}


@pytest.mark.parametrize("split", DIGESTS)
def test_what_training_sees_is_as_it_always_was(split):
    table = ScenesTable(split, 64, seed=2021, image_size=48)
    scenes, images = hashlib.sha256(), hashlib.sha256()
    for index in range(64):
        scene = table.scene(index)
        objects = [
            [one.shape, one.colour, one.texture]
            + [round(value, 6) for value in (one.x, one.y, one.radius, one.angle, *one.tint)]
            for one in scene.sprites
        ]
        scenes.update(json.dumps([scene.background, scene.captions, objects]).encode())
        image = draw(scene.sprites, scene.background, 48, np.random.default_rng([2021, index]))
        images.update(np.asarray(image).tobytes())
    assert (scenes.hexdigest()[:16], images.hexdigest()[:16]) == DIGESTS[split]
