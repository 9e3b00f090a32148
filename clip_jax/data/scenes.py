"""Drawn scenes: captioned images worth learning from, with whole combinations held out of training.

Of the 64 combinations of colour and shape, 24 never appear in the training split, neither drawn nor named, while every
colour and every shape does: recognising a "red star" takes composing red with star. Further splits ask for one trait of
a scene, as how many objects it has, and any split can be drawn in a style that training never uses.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from PIL import Image

from clip_jax.data.composition import NUMBERS, PLACES, RELATIONS, Combination, Kind, Scene, class_name, compose
from clip_jax.data.drawing import COLOURS, SHAPES, Style, draw
from clip_jax.data.table import BadSample, Sample
from clip_jax.errors import UserError
from clip_jax.schema import nearest

Split: TypeAlias = Literal[
    "train", "seen", "held_out", "probe", "counts", "positions", "sizes", "textures", "relations"
]  # in the order by which they are seeded
TEMPLATES = ("a {}.", "a picture of a {}.", "a drawing of a {}.", "one {}.")
"""Prompt templates for the combinations, close to the words that the captions use."""

COMBINATIONS: tuple[Combination, ...] = tuple((colour, shape) for colour in COLOURS for shape in SHAPES)
# Three diagonals of the colour x shape square: each colour and each shape is held out three times and seen five times.
HELD_OUT: tuple[Combination, ...] = tuple(
    (colour, SHAPES[(row + offset) % len(SHAPES)]) for row, colour in enumerate(COLOURS) for offset in (0, 3, 5)
)
SEEN: tuple[Combination, ...] = tuple(c for c in COMBINATIONS if c not in HELD_OUT)

TRAITS: dict[str, tuple[Kind, tuple[str, ...]]] = {
    "counts": ("count", tuple(NUMBERS)),
    "positions": ("one", tuple(PLACES)),
    "sizes": ("one", ("small", "large")),
    "textures": ("one", ("striped", "dotted")),
    "relations": ("relation", tuple(RELATIONS)),
}
"""Of the splits that ask for a trait the kind of their scenes, and the words that captions have for it: the classes."""


@dataclass(frozen=True)
class ScenesTable:
    """Scenes drawn on demand: sample i is a pure function of (seed, split, i) and, in its looks alone, of the style.

    `held_out` and `probe` hold only the combinations that training never sees, the other splits only those that it
    sees. All but `train` are labelled, with the classes in equal numbers: the splits of TRAITS with one trait, which a
    caption names, the others with the combination of their one object.
    """

    split: Split
    images: int
    seed: int = 0
    image_size: int = 64
    style: Style = "plain"

    @staticmethod
    def from_options(split: str, options: dict[str, str]) -> "ScenesTable":
        """From a SPEC such as `scenes:train?images=1000&seed=3`. Raises UserError for a wrong split or option."""
        if split not in get_args(Split):
            raise UserError(f"scenes have no split '{split}'; {nearest(split, get_args(Split))}")
        style = options.get("style", "plain")
        if style not in get_args(Style):
            raise UserError(f"scenes have no style '{style}'; {nearest(style, get_args(Style))}")
        numbers = {"images": 1000, "seed": 0, "size": 64}
        least = {"images": 1, "seed": 0, "size": 16}
        for name, text in options.items():
            if name == "style":
                continue
            if not text.isdecimal() or not least[name] <= int(text) < 2**31:
                raise UserError(f"scenes option {name} must be a whole number of at least {least[name]}, not '{text}'")
            numbers[name] = int(text)
        chosen: Any = (split, numbers["images"], numbers["seed"], numbers["size"], style)
        return ScenesTable(*chosen)

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
        """The combinations of colour and shape that the split draws from."""
        return HELD_OUT if self.split in ("held_out", "probe") else SEEN

    @property
    def class_names(self) -> tuple[str, ...]:
        if self.split == "train":
            return ()
        return TRAITS[self.split][1] if self.split in TRAITS else tuple(map(class_name, self.combinations))

    def keys(self, indices: Sequence[int] | np.ndarray) -> list[str]:
        return [f"{self.split}-{index:07d}" for index in indices]

    def scene(self, index: int) -> Scene:
        """Sample `index` as it is meant, before drawing."""
        rng = np.random.default_rng([self.seed, get_args(Split).index(self.split), index])
        if self.split == "train":
            return compose(rng, self.combinations)
        if self.split in TRAITS:
            kind, words = TRAITS[self.split]
            return compose(rng, self.combinations, kind, words[self._label(index)])
        return compose(rng, [self.combinations[self._label(index)]], "one")

    def read(self, indices: Sequence[int] | np.ndarray) -> list[Sample | BadSample]:
        return [self._sample(int(index)) for index in indices]

    def _label(self, index: int) -> int:
        return index % len(self.class_names)

    def _sample(self, index: int) -> Sample:
        if not 0 <= index < self.images:
            raise IndexError(f"sample {index} of {self.images}")
        drawn = self.scene(index)
        rng = np.random.default_rng([self.seed, index, get_args(Split).index(self.split)])
        pixels = draw(drawn.sprites, drawn.background, self.image_size, rng, self.style)
        label = None if self.split == "train" else self._label(index)
        return Sample(self.keys([index])[0], encode_jpeg(pixels), drawn.captions, label)


def encode_jpeg(image: Image.Image) -> bytes:
    """The image as a JPEG without chroma subsampling, which would smear small coloured shapes."""
    buffer = io.BytesIO()
    image.save(buffer, "jpeg", quality=92, subsampling=0)
    return buffer.getvalue()
