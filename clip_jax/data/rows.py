"""The rows of batches, made whole where some are missing because their images could not be decoded."""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Int8, Int32, Int64, UInt8


class Rows(NamedTuple):
    """Samples as a model is trained on them; `place`, `bad` and `used` as in `reader.Drawn`."""

    place: Int64[np.ndarray, " b"]
    pixels: UInt8[np.ndarray, "b size size 3"]
    tokens: Int32[np.ndarray, "b n"]
    bad: Int8[np.ndarray, " b"]
    used: Int64[np.ndarray, " b"]


def whole_batches(
    found: Iterator[Rows], batches: Iterable[Int64[np.ndarray, " b"]], read: Callable[[int], Rows]
) -> Iterator[Rows]:
    """The rows of each of `batches`, which are given by their places; those that `found` lacks are read singly.

    Places rise, in `found` and from batch to batch.
    """
    waiting: Rows | None = None
    for places in batches:
        while waiting is None or waiting.place[-1] < places[-1]:
            more = next(found, None)
            if more is None:
                break
            waiting = more if waiting is None else _joined([waiting, more])
        if waiting is not None and np.array_equal(waiting.place, places):  # as nearly always; nothing is copied then
            yield waiting
            waiting = None
            continue
        end = 0 if waiting is None else int(np.searchsorted(waiting.place, places[-1], side="right"))
        here = [] if waiting is None else [_taken(waiting, slice(end))]
        waiting = None if waiting is None or end == len(waiting.place) else _taken(waiting, slice(end, None))
        missing = np.setdiff1d(places, here[0].place if here else [])
        rows = _joined([*here, *map(read, missing.tolist())])
        yield _taken(rows, np.argsort(rows.place))


def _joined(several: list[Rows]) -> Rows:
    return Rows(*(np.concatenate(arrays) for arrays in zip(*several, strict=True)))


def _taken(rows: Rows, which: slice | np.ndarray) -> Rows:
    return Rows(*(array[which] for array in rows))
