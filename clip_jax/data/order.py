"""The order of training samples as a pure function of the seed and the position.

An epoch shuffles contiguous blocks of samples, groups them into windows, and shuffles samples inside each
window. Whoever reads a whole window reads contiguous blocks, which is what a disk or a bucket is fast at; and any
position is found without going through those before it, so resuming at a step needs no iterator state.

Many hosts each read some rows of every batch. So that they too read contiguous blocks, the rows of the global batch are
divided into lanes, as many however many hosts there are, and a block's samples go to the rows of one lane.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from jaxtyping import Int64

from clip_jax.data.mixture import Share
from clip_jax.errors import UserError


@dataclass(frozen=True)
class Shuffle:
    """How samples are shuffled; see Order."""

    block: int = 64
    window: int = 64
    lanes: int = 64


@dataclass(frozen=True)
class Order:
    """An endless sequence of sample indices, each epoch of it a permutation of range(samples).

    `block` is the number of adjacent samples that stay together, `window` the number of blocks mixed with each
    other: a larger window shuffles better, a larger block reads longer stretches. `lanes` divide the rows of a batch of
    `batch_size`. Of a mixture the sequence is one source's; `share` says where in the mixture its positions come.
    """

    samples: int
    seed: int
    block: int = 64
    window: int = 64
    batch_size: int = 1
    lanes: int = 1
    share: Share | None = None

    def __post_init__(self) -> None:
        least_of = {"samples": 1, "seed": 0, "block": 1, "window": 1, "batch_size": 1, "lanes": 1}
        for name, least in least_of.items():
            if getattr(self, name) < least:
                raise UserError(f"{name} of the sample order is {getattr(self, name)}; it must be at least {least}")

    def indices(self, start: int, stop: int) -> Int64[np.ndarray, " b"]:
        """The sample index at each global position in [start, stop); the cost does not depend on `start`."""
        if not 0 <= start <= stop:
            raise ValueError(f"positions [{start}, {stop}) are not a range of natural numbers")
        parts, position = [np.empty(0, np.int64)], start
        while position < stop:
            epoch, place = divmod(position, self.samples)
            index, offset = self._window_at(epoch, place)
            part = self._window(epoch, index)[offset : offset + stop - position]
            parts.append(part)
            position += len(part)
        return np.concatenate(parts)

    def window_end(self, position: int) -> int:
        """The position at which the window ends that `position` lies in."""
        epoch, place = divmod(position, self.samples)
        index, offset = self._window_at(epoch, place)
        return position - offset + len(self._window(epoch, index))

    # Each order keeps its own, as the many sources of a mixture would drive each other's out of one cache.

    @cached_property
    def _blocks(self) -> Callable[[int], tuple[Int64[np.ndarray, " m"], int]]:
        """Of an epoch, the order of its blocks, and the window of the table's last block, which alone may be short."""
        return lru_cache(maxsize=2)(self._ordered_blocks)

    @cached_property
    def _window(self) -> Callable[[int, int], Int64[np.ndarray, " w"]]:
        """The sample indices of one window of an epoch, shuffled."""
        return lru_cache(maxsize=8)(self._shuffled_window)

    def _ordered_blocks(self, epoch: int) -> tuple[Int64[np.ndarray, " m"], int]:
        blocks = _permutation(-(-self.samples // self.block), self.seed, (0, epoch))
        return blocks, int(np.argmax(blocks)) // self.window

    def _shuffled_window(self, epoch: int, index: int) -> Int64[np.ndarray, " w"]:
        blocks = self._blocks(epoch)[0][index * self.window : (index + 1) * self.window]
        members = (blocks[:, None] * self.block + np.arange(self.block)).ravel()
        members = members[members < self.samples]
        shuffled = _permutation(len(members), self.seed, (1, epoch, index))
        if self.lanes == 1:
            return members[shuffled]
        first = epoch * self.samples + self._window_start(epoch, index)
        positions = np.arange(first, first + len(members))
        places = positions if self.share is None else self.share.places(first, first + len(members))
        lanes = places % self.batch_size * self.lanes // self.batch_size
        arranged = np.empty_like(members)
        arranged[np.lexsort((shuffled, lanes))] = members  # lane after lane takes the next blocks, and shuffles them
        arranged.setflags(write=False)
        return arranged

    def _window_at(self, epoch: int, place: int) -> tuple[int, int]:
        """The window that holds the epoch's position `place`, and the offset in it."""
        full = self.block * self.window
        missing = -self.samples % self.block  # what the last, short block lacks of a full one
        if place >= (self._blocks(epoch)[1] + 1) * full - missing:
            place += missing
        return divmod(place, full)

    def _window_start(self, epoch: int, index: int) -> int:
        """The epoch's position at which a window begins."""
        missing = -self.samples % self.block if index > self._blocks(epoch)[1] else 0
        return index * self.window * self.block - missing


def _permutation(n: int, seed: int, stream: tuple[int, ...]) -> Int64[np.ndarray, " n"]:
    # Sorting Philox's raw output, because NumPy guarantees the bits of a bit generator across versions but not what
    # Generator.permutation makes of them, and a resumed run must find its order again after an upgrade.
    raw = np.random.Philox(np.random.SeedSequence(seed, spawn_key=stream)).random_raw(n)
    permutation = np.argsort(raw, kind="stable")
    permutation.setflags(write=False)  # it is cached and shared
    return permutation
