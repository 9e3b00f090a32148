"""What is drawn for each sample: its crop, flip, colours and caption, from the seed and its position alone."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from clip_jax.data.splitmix import splitmix64

ASPECT_RATIOS = (3 / 4, 4 / 3)
_TRIES = 10  # crops that are drawn before the middle of the image is taken
_CROP, _CORNER, _FLIP, _CAPTION, _COLOURS = 0, 2 * _TRIES, 2 * _TRIES + 2, 2 * _TRIES + 3, 2 * _TRIES + 4
NUMBERS = _COLOURS + 4


@dataclass(frozen=True)
class Draws:
    """Independent numbers in [0, 1) for each of b positions of the sequence of samples."""

    numbers: Float64[np.ndarray, "b numbers"]

    @staticmethod
    def at(seed: int, positions: Int64[np.ndarray, " b"]) -> "Draws":
        """Those of `positions`; each depends on nothing else."""
        places = positions.astype(np.int64)[:, None] * NUMBERS + np.arange(NUMBERS)
        x = splitmix64(seed, 4, places)
        return Draws((x >> np.uint64(11)) * 2.0**-53)

    def crops(self, sizes: Int64[np.ndarray, "b 2"], scale: tuple[float, float]) -> Int64[np.ndarray, "b 4"]:
        """Top, left, height and width of a random part of each image of `sizes` (height, width).

        Its area is uniform in `scale`, a share of the image's, and the logarithm of its aspect ratio uniform from 3:4
        to 4:3; where ten such do not fit, the middle of the image, cut to those ratios. Source: torchvision's
        RandomResizedCrop.
        """
        heights, widths = sizes[:, 0].astype(float), sizes[:, 1].astype(float)
        areas = self._between(_CROP, _TRIES, *scale) * (heights * widths)[:, None]
        ratios = np.exp(self._between(_CROP + _TRIES, _TRIES, *np.log(ASPECT_RATIOS)))
        tried = np.rint(np.stack([np.sqrt(areas / ratios), np.sqrt(areas * ratios)], axis=-1))
        fits = np.all((tried > 0) & (tried <= sizes[:, None, :]), axis=-1)
        ratio = np.clip(widths / heights, *ASPECT_RATIOS)
        middle = np.rint(np.stack([np.minimum(heights, widths / ratio), np.minimum(widths, heights * ratio)], axis=-1))
        any_fits = np.any(fits, axis=1, keepdims=True)
        extent = np.where(any_fits, tried[np.arange(len(sizes)), np.argmax(fits, axis=1)], middle)
        extent = np.clip(extent, 1, sizes)
        room = sizes - extent
        drawn = np.floor(self.numbers[:, _CORNER : _CORNER + 2] * (room + 1))
        corner = np.where(any_fits, drawn, np.floor(room / 2))
        return np.concatenate([corner, extent], axis=1).astype(np.int64)

    def flips(self, share: float) -> np.ndarray:
        """Whether each image is mirrored."""
        return self.numbers[:, _FLIP] < share

    def colours(self, strength: float) -> Float64[np.ndarray, "b 3"]:
        """Factors of brightness, contrast and saturation, uniform in 1 - strength to 1 + strength."""
        return self._between(_COLOURS, 3, 1 - strength, 1 + strength)

    def caption(self, row: int, captions: int, weights: tuple[float, ...]) -> int:
        """Which of a sample's captions is taken: by `weights` of the first, second, ..., or each as often as any."""
        shares = np.ones(captions) if not weights else np.zeros(captions)
        shares[: len(weights)] = weights[:captions] if weights else 1
        ends = np.cumsum(shares)
        return min(int(np.searchsorted(ends, self.numbers[row, _CAPTION] * ends[-1], side="right")), captions - 1)

    def _between(self, first: int, count: int, low: float, high: float) -> Float64[np.ndarray, "b count"]:
        return low + (high - low) * self.numbers[:, first : first + count]
