"""Composition of scenes: what is to be drawn where, and the captions that say it.

An object has a shape, a colour, a texture, a size and a place; a scene has one object, several alike, or two in a
relation, on a background.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from clip_jax.data.drawing import BACKGROUNDS, Sprite

Kind: TypeAlias = Literal["one", "count", "relation"]
Combination: TypeAlias = tuple[str, str]
"""(colour, shape)"""

KINDS: dict[Kind, float] = {"one": 0.7, "count": 0.15, "relation": 0.15}  # with their frequency
PLACES = {
    "in the centre": (0.5, 0.5),
    "on the left": (0.36, 0.5),
    "on the right": (0.64, 0.5),
    "at the top": (0.5, 0.36),
    "at the bottom": (0.5, 0.64),
}
SIZES = {"small": 0.2, "": 0.26, "large": 0.33}  # radius in image widths; a middling size goes unmentioned
TEXTURES = {"": 0.6, "striped": 0.2, "dotted": 0.2}  # with their frequency; plain goes unmentioned
NUMBERS = {"two": 2, "three": 3, "four": 4}
GRID = ((0.27, 0.27), (0.73, 0.73), (0.73, 0.27), (0.27, 0.73))
RELATIONS = {
    "to the left of": ((0.27, 0.5), (0.73, 0.5)),
    "to the right of": ((0.73, 0.5), (0.27, 0.5)),
    "above": ((0.5, 0.27), (0.5, 0.73)),
    "below": ((0.5, 0.73), (0.5, 0.27)),
}


@dataclass(frozen=True)
class Scene:
    """What is drawn, and several ways to say it, from terse to complete."""

    sprites: tuple[Sprite, ...]
    background: str
    captions: tuple[str, ...]
    kind: Kind


def compose(
    rng: np.random.Generator, combinations: Sequence[Combination], kind: Kind | None = None, trait: str | None = None
) -> Scene:
    """A random scene whose objects are all among `combinations`.

    What is given is not left to chance: its `kind`, and one `trait` by its word in PLACES, SIZES, TEXTURES, NUMBERS or
    RELATIONS, where that kind of scene has it.
    """
    kind = kind or list(KINDS)[rng.choice(len(KINDS), p=list(KINDS.values()))]
    background = str(rng.choice(list(BACKGROUNDS)))
    builder = {"one": _one, "count": _count, "relation": _relation}[kind]
    sprites, phrases = builder(rng, combinations, trait)
    terse, *detailed = phrases
    captions = [terse, f"a picture of {terse}", f"a drawing of {terse}", *detailed]
    captions.append(f"{terse} on a {background} background")
    return Scene(sprites, background, tuple(f"{caption}." for caption in captions), kind)


def article(phrase: str) -> str:
    """The phrase with the indefinite article that goes before it."""
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def class_name(combination: Combination) -> str:
    """('red', 'star') as 'red star'."""
    return " ".join(combination)


def _one(rng, combinations, trait) -> tuple[tuple[Sprite, ...], list[str]]:
    colour, shape = combinations[rng.integers(len(combinations))]
    size, texture, place = _pick(rng, SIZES, trait), _texture(rng, trait), _pick(rng, PLACES, trait)
    sprite = _sprite(rng, colour, shape, texture, PLACES[place], SIZES[size])
    detailed = article(" ".join(word for word in (size, texture, colour, shape) if word))
    return (sprite,), [article(f"{colour} {shape}"), detailed, f"{detailed} {place}"]


def _count(rng, combinations, trait) -> tuple[tuple[Sprite, ...], list[str]]:
    colour, shape = combinations[rng.integers(len(combinations))]
    number, texture = _pick(rng, NUMBERS, trait), _texture(rng, trait)
    places = [GRID[i] for i in rng.permutation(len(GRID))[: NUMBERS[number]]]
    sprites = tuple(_sprite(rng, colour, shape, texture, place, 0.19) for place in places)
    plural = "crosses" if shape == "cross" else f"{shape}s"
    detailed = " ".join(word for word in (number, texture, colour, plural) if word)
    return sprites, [f"{number} {colour} {plural}", detailed]


def _relation(rng, combinations, trait) -> tuple[tuple[Sprite, ...], list[str]]:
    first, second = (combinations[i] for i in rng.permutation(len(combinations))[:2])
    relation = _pick(rng, RELATIONS, trait)
    sprites = tuple(
        _sprite(rng, colour, shape, "", place, 0.21)
        for (colour, shape), place in zip((first, second), RELATIONS[relation], strict=True)
    )
    a, b = (article(class_name(combination)) for combination in (first, second))
    return sprites, [f"{a} and {b}", f"{a} {relation} {b}"]


def _texture(rng: np.random.Generator, trait: str | None) -> str:
    return _pick(rng, TEXTURES, trait, list(TEXTURES.values()))


def _pick(rng: np.random.Generator, options: Iterable[str], trait: str | None, weights=None) -> str:
    words = list(options)
    return trait if trait in words else str(rng.choice(words, p=weights))


def _sprite(rng: np.random.Generator, colour, shape, texture, place, radius) -> Sprite:
    x, y = (centre + rng.uniform(-0.05, 0.05) for centre in place)
    return Sprite(
        shape=shape,
        colour=colour,
        texture=texture,
        x=x,
        y=y,
        radius=radius * rng.uniform(0.9, 1.1),
        angle=rng.uniform(-12, 12),
        tint=tuple(rng.uniform(-18, 18, 3)),
    )
