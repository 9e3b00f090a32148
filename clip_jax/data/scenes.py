"""Drawn scenes: captioned images worth learning from, with whole combinations held out of training.

An object has a shape, a colour, a texture, a size and a place; a scene has one object, several alike, or two in a
relation, on a background. Of the 64 combinations of colour and shape, 24 never appear in the training split, neither
drawn nor named, while every colour and every shape does: recognising a "red star" takes composing red with star.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from PIL import Image

from clip_jax.data.drawing import BACKGROUNDS, COLOURS, SHAPES, Sprite, draw
from clip_jax.data.table import BadSample, Sample
from clip_jax.errors import UserError
from clip_jax.schema import nearest

Split = Literal["train", "seen", "held_out", "probe"]
TEMPLATES = ("a {}.", "a picture of a {}.", "a drawing of a {}.", "one {}.")
"""Prompt templates for the combinations, in the words that the captions use."""

Combination = tuple[str, str]  # (colour, shape)
COMBINATIONS: tuple[Combination, ...] = tuple((colour, shape) for colour in COLOURS for shape in SHAPES)
# Three diagonals of the colour x shape square: each colour and each shape is held out three times and seen five times.
HELD_OUT: tuple[Combination, ...] = tuple(
    (colour, SHAPES[(row + offset) % len(SHAPES)]) for row, colour in enumerate(COLOURS) for offset in (0, 3, 5)
)
SEEN: tuple[Combination, ...] = tuple(c for c in COMBINATIONS if c not in HELD_OUT)

PLACES = {
    "in the centre": (0.5, 0.5),
    "on the left": (0.36, 0.5),
    "on the right": (0.64, 0.5),
    "at the top": (0.5, 0.36),
    "at the bottom": (0.5, 0.64),
}
SIZES = {"small": 0.2, "": 0.26, "large": 0.33}  # radius in image widths; a middling size goes unmentioned
TEXTURES = {"": 0.6, "striped": 0.2, "dotted": 0.2}  # with their frequency; plain goes unmentioned
NUMBERS = {2: "two", 3: "three", 4: "four"}
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
    kind: Literal["one", "count", "relation"]


def scene(rng: np.random.Generator, combinations: Sequence[Combination], kind: str | None = None) -> Scene:
    """A random scene whose objects are all among `combinations`; `kind` is random where it is not given."""
    kind = kind or str(rng.choice(["one", "count", "relation"], p=[0.7, 0.15, 0.15]))
    background = str(rng.choice(list(BACKGROUNDS)))
    builder = {"one": _one, "count": _count, "relation": _relation}[kind]
    sprites, phrases = builder(rng, combinations)
    terse, *detailed = phrases
    captions = [terse, f"a picture of {terse}", f"a drawing of {terse}", *detailed]
    captions.append(f"{terse} on a {background} background")
    return Scene(sprites, background, tuple(f"{caption}." for caption in captions), kind)  # pyright: ignore[reportArgumentType]


def article(phrase: str) -> str:
    """The phrase with the indefinite article that goes before it."""
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def class_name(combination: Combination) -> str:
    """('red', 'star') as 'red star'."""
    return " ".join(combination)


def _one(rng, combinations) -> tuple[tuple[Sprite, ...], list[str]]:
    colour, shape = combinations[rng.integers(len(combinations))]
    size, texture, place = _pick(rng, SIZES), _pick(rng, TEXTURES, list(TEXTURES.values())), _pick(rng, PLACES)
    sprite = _sprite(rng, colour, shape, texture, PLACES[place], SIZES[size])
    detailed = article(" ".join(word for word in (size, texture, colour, shape) if word))
    return (sprite,), [article(f"{colour} {shape}"), detailed, f"{detailed} {place}"]


def _count(rng, combinations) -> tuple[tuple[Sprite, ...], list[str]]:
    colour, shape = combinations[rng.integers(len(combinations))]
    number, texture = int(rng.integers(2, 5)), _pick(rng, TEXTURES, list(TEXTURES.values()))
    places = [GRID[i] for i in rng.permutation(len(GRID))[:number]]
    sprites = tuple(_sprite(rng, colour, shape, texture, place, 0.19) for place in places)
    plural = "crosses" if shape == "cross" else f"{shape}s"
    detailed = " ".join(word for word in (NUMBERS[number], texture, colour, plural) if word)
    return sprites, [f"{NUMBERS[number]} {colour} {plural}", detailed]


def _relation(rng, combinations) -> tuple[tuple[Sprite, ...], list[str]]:
    first, second = (combinations[i] for i in rng.permutation(len(combinations))[:2])
    relation = _pick(rng, RELATIONS)
    sprites = tuple(
        _sprite(rng, colour, shape, "", place, 0.21)
        for (colour, shape), place in zip((first, second), RELATIONS[relation], strict=True)
    )
    a, b = (article(class_name(combination)) for combination in (first, second))
    return sprites, [f"{a} and {b}", f"{a} {relation} {b}"]


def _pick(rng: np.random.Generator, options, weights=None) -> str:
    return str(rng.choice(list(options), p=weights))


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


@dataclass(frozen=True)
class ScenesTable:
    """Scenes drawn on demand: sample i is a pure function of (seed, split, i).

    `train` and `seen` hold the combinations that training sees, `held_out` and `probe` only the others; all but
    `train` show one object each and are labelled with its combination, the classes in equal numbers.
    """

    split: Split
    images: int
    seed: int = 0
    image_size: int = 64

    @staticmethod
    def from_options(split: str, options: dict[str, str]) -> "ScenesTable":
        """From a SPEC such as `scenes:train?images=1000&seed=3`. Raises UserError for a wrong split or number."""
        if split not in get_args(Split):
            raise UserError(f"scenes have no split '{split}'; {nearest(split, get_args(Split))}")
        numbers = {"images": 1000, "seed": 0, "size": 64}
        least = {"images": 1, "seed": 0, "size": 16}
        for name, text in options.items():
            if not text.isdecimal() or not least[name] <= int(text) < 2**31:
                raise UserError(f"scenes option {name} must be a whole number of at least {least[name]}, not '{text}'")
            numbers[name] = int(text)
        return ScenesTable(split, numbers["images"], numbers["seed"], numbers["size"])  # pyright: ignore[reportArgumentType]

    @property
    def parts(self) -> dict[str, int]:
        return {self.split: self.images}

    @property
    def is_remote(self) -> bool:
        return False

    def __len__(self) -> int:
        return self.images

    @property
    def combinations(self) -> tuple[Combination, ...]:
        return HELD_OUT if self.split in ("held_out", "probe") else SEEN

    @property
    def class_names(self) -> tuple[str, ...]:
        return () if self.split == "train" else tuple(map(class_name, self.combinations))

    def keys(self, indices: Sequence[int] | np.ndarray) -> list[str]:
        return [f"{self.split}-{index:07d}" for index in indices]

    def scene(self, index: int) -> Scene:
        """Sample `index` as it is meant, before drawing."""
        rng = np.random.default_rng([self.seed, get_args(Split).index(self.split), index])
        if self.split == "train":
            return scene(rng, self.combinations)
        return scene(rng, [self.combinations[self._label(index)]], kind="one")

    def read(self, indices: Sequence[int] | np.ndarray) -> list[Sample | BadSample]:
        return [self._sample(int(index)) for index in indices]

    def _label(self, index: int) -> int:
        return index % len(self.combinations)

    def _sample(self, index: int) -> Sample:
        if not 0 <= index < self.images:
            raise IndexError(f"sample {index} of {self.images}")
        drawn = self.scene(index)
        rng = np.random.default_rng([self.seed, index, get_args(Split).index(self.split)])
        pixels = draw(drawn.sprites, drawn.background, self.image_size, rng)
        label = None if self.split == "train" else self._label(index)
        return Sample(self.keys([index])[0], encode_jpeg(pixels), drawn.captions, label)


def encode_jpeg(image: Image.Image) -> bytes:
    """The image as a JPEG without chroma subsampling, which would smear small coloured shapes."""
    buffer = io.BytesIO()
    image.save(buffer, "jpeg", quality=92, subsampling=0)
    return buffer.getvalue()
