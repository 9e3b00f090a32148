"""Random images and captions out of nothing, for measuring how fast the rest is."""

import io
import random
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from PIL import Image

from clip_jax.data.table import BadSample, Indices, Sample, check_indices
from clip_jax.errors import UserError

_VOCABULARY = (
    "a the one two small large red green blue old young dog cat bird horse tree house street river mountain person "
    "child car train boat table on under beside with in of standing running sleeping looking playing bright dark"
)
WORDS = tuple(_VOCABULARY.split())
_IMAGES = 16  # distinct ones, encoded once
_WORDS = (4, 24)  # in a caption, at least and at most
_LEAST = {"size": 1, "seed": 0}


@dataclass(frozen=True)
class SyntheticTable:
    """`samples` samples, each a pure function of (seed, size, index); images are JPEGs of `size` pixels a side.

    There are few distinct images, of about the bytes a pixel that photographs have, and endless captions.
    """

    samples: int
    size: int = 256
    seed: int = 0

    @staticmethod
    def from_options(samples: str, options: dict[str, str]) -> "SyntheticTable":
        """From a SPEC such as `synthetic:100000?size=224`. Raises UserError for what is no whole number."""
        for name, text in {"samples": samples, **options}.items():
            least = _LEAST.get(name, 1)
            if not text.isdecimal() or not least <= int(text) < 2**31:
                raise UserError(f"synthetic {name} must be a whole number of at least {least}, not '{text}'")
        return SyntheticTable(int(samples), int(options.get("size", "256")), int(options.get("seed", "0")))

    @property
    def parts(self) -> dict[str, int]:
        return {"synthetic": self.samples}

    @property
    def is_remote(self) -> bool:
        return False

    @property
    def class_names(self) -> tuple[str, ...]:
        return ()

    def __len__(self) -> int:
        return self.samples

    def keys(self, indices: Indices) -> list[str]:
        return [f"synthetic-{index:08d}" for index in check_indices(indices, self.samples).tolist()]

    def read(self, indices: Indices) -> list[Sample | BadSample]:
        images = self._images
        rows = check_indices(indices, self.samples).tolist()
        return [
            Sample(key, images[row % _IMAGES], (self._caption(row),))
            for key, row in zip(self.keys(indices), rows, strict=True)
        ]

    def _caption(self, index: int) -> str:
        rng = random.Random(self.seed << 31 | index)
        return " ".join(rng.choices(WORDS, k=rng.randint(*_WORDS)))

    @cached_property
    def _images(self) -> list[bytes]:
        return [_jpeg(np.random.default_rng([self.seed, number]), self.size) for number in range(_IMAGES)]


def _jpeg(rng: np.random.Generator, size: int) -> bytes:
    """Random colours that change every eight pixels or so: noise in every pixel would make files thrice as large."""
    coarse = -(-size // 8)
    pixels = Image.fromarray(rng.integers(0, 256, (coarse, coarse, 3), np.uint8))
    buffer = io.BytesIO()
    pixels.resize((size, size), Image.Resampling.BICUBIC).save(buffer, "jpeg", quality=90)
    return buffer.getvalue()
