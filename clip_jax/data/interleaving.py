"""Several sources in one regular sequence: of every sum(counts) places, source s has exactly counts[s], evenly spread.

The first source takes its places out of all, the second out of those that the first left, and so on. Each takes them
as evenly as whole numbers allow, so that counting them and finding the n-th are divisions, wherever that is.
"""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from jaxtyping import Int64

Whole = TypeVar("Whole", int, Int64[np.ndarray, " b"])


def sources_at(counts: Sequence[int], start: int, stop: int) -> Int64[np.ndarray, " b"]:
    """The source of each place in [start, stop)."""
    sources = np.zeros(stop - start, np.int64)
    left, total = np.arange(stop - start), sum(counts)
    for source, count in enumerate(counts):
        taken = _taken(np.arange(start, stop + 1), count, total)
        own = np.diff(taken) > 0
        sources[left[own]] = source
        left, total = left[~own], total - count
        start, stop = start - int(taken[0]), stop - int(taken[-1])
    return sources


def places_before(counts: Sequence[int], source: int, place: int) -> int:
    """How many of the places before `place` are the source's."""
    total = sum(counts)
    for count in counts[:source]:
        place, total = place - _taken(place, count, total), total - count
    return _taken(place, counts[source], total)


def places_of(counts: Sequence[int], source: int, start: int, stop: int) -> Int64[np.ndarray, " b"]:
    """The places of the source, from its `start`-th (counted from 0) to before its `stop`-th."""
    total = sum(counts[source:])
    # The n-th taken is the last place before which no more than n are taken: _taken solved for the place.
    places = _scaled(np.arange(start + 1, stop + 1), total, -(total // 2) - 1, counts[source])
    for count in reversed(counts[:source]):
        left, total = total, total + count
        places = _scaled(places + 1, total, total // 2 - total, left)
    return places


def _taken(place: Whole, count: int, total: int) -> Whole:
    """How many of the first places are taken by whoever takes `count` of every `total`: its share, rounded."""
    return _scaled(place, count, total // 2, total)


def _scaled(n: Whole, times: int, plus: int, over: int) -> Whole:
    """(n * times + plus) // over, exactly."""
    whole, rest = n // over, n % over
    if not isinstance(rest, int) and over * times >= 2**62:  # beyond what 64 bits hold
        return whole * times + ((rest.astype(object) * times + plus) // over).astype(np.int64)
    return whole * times + (rest * times + plus) // over
