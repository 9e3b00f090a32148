"""Styles change the looks that they name, and nothing else."""

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest

from clip_jax.data.drawing import BACKGROUNDS, SHAPES, Sprite, Style, draw
from clip_jax.data.scenes import ScenesTable
from clip_jax.data.spec import open_table
from clip_jax.data.table import usable
from clip_jax.errors import UserError

RED = Sprite("circle", "red", "", x=0.5, y=0.5, radius=0.3, angle=5.0, tint=(0.0, 0.0, 0.0))


def pixels(sprite: Sprite, style: Style, seed: int = 0) -> np.ndarray:
    return np.asarray(draw([sprite], "white", 64, np.random.default_rng(seed), style), np.float32)


def is_red(image: np.ndarray) -> np.ndarray:
    return image[..., 0] - image[..., 1] > 60


def test_an_outline_is_hollow_and_reaches_as_far():
    for shape in SHAPES:
        plain, outline = (is_red(pixels(replace(RED, shape=shape), style)) for style in ("plain", "outline"))
        assert 0.05 < outline.sum() / plain.sum() < 0.65, shape
        assert not (outline & ~plain).any()
        for axis in (0, 1):
            ends = [np.flatnonzero(where.any(axis=axis))[[0, -1]] for where in (plain, outline)]
            assert np.abs(ends[0] - ends[1]).max() <= 1
    assert is_red(pixels(RED, "plain"))[32, 32]
    assert not is_red(pixels(RED, "outline"))[32, 32]
    assert np.array_equal(pixels(RED, "outline"), pixels(replace(RED, texture="striped"), "outline"))


def test_turned_is_turned_by_an_eighth():
    for shape in SHAPES:
        sprite = replace(RED, shape=shape)
        assert np.array_equal(pixels(sprite, "turned"), pixels(replace(sprite, angle=sprite.angle + 45), "plain"))
    square = replace(RED, shape="square", angle=0.0)
    corner = (32 + 12,) * 2  # within the square, without the diamond
    assert is_red(pixels(square, "plain"))[corner]
    assert not is_red(pixels(square, "turned"))[corner]


def test_dark_changes_the_ground_alone():
    for background in BACKGROUNDS:
        images = [
            np.asarray(draw([RED], background, 64, np.random.default_rng(0), style), np.float32)
            for style in ("plain", "dark")
        ]
        inside = np.hypot(*(np.mgrid[:64, :64] - 31.5)) < 16
        outside = np.hypot(*(np.mgrid[:64, :64] - 31.5)) > 22
        assert np.array_equal(images[0][inside], images[1][inside])
        assert images[0][outside].mean() > 190
        assert images[1][outside].mean() < 70


def test_noise_is_tenfold():
    plain, noisy = pixels(RED, "plain"), pixels(RED, "noisy")
    added = (noisy - plain)[is_red(plain)][:, 0]  # about 214, where little is clipped at 255
    assert 25 < added.std() < 40
    assert abs(added.mean()) < 10


@pytest.mark.parametrize("style", get_args(Style))
def test_the_same_scenes_in_each_style(style):
    plain = ScenesTable("held_out", 24, seed=3, image_size=32)
    table = open_table(f"scenes:held_out?images=24&seed=3&size=32&style={style}")
    for one, other in zip(*(usable(each.read(range(24))) for each in (plain, table)), strict=True):
        assert (one.captions, one.label) == (other.captions, other.label)
        is_round = one.captions[0].removesuffix(".").endswith(("circle", "ring"))  # which turning does not change
        assert (one.image == other.image) == (style == "plain" or (style == "turned" and is_round))


def test_a_style_that_is_none():
    with pytest.raises(UserError, match="scenes have no style 'outlines'; did you mean 'outline'"):
        open_table("scenes:held_out?style=outlines")
