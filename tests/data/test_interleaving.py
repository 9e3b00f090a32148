"""The regular sequence against a count of its own places, in numbers that 64 bits do not hold too."""

from fractions import Fraction

import numpy as np
import pytest

from clip_jax.data.interleaving import places_before, places_of, sources_at

COUNTS = [(1,), (1, 1), (3, 2, 1), (1, 99), (97, 2, 50, 1), (1, 1, 1, 1, 1, 1, 1)]
LARGE = (5_000_000_000, 4_000_000_000, 3)


@pytest.mark.parametrize("counts", COUNTS, ids=str)
def test_every_cycle_is_exact_and_even(counts):
    total = sum(counts)
    sources = sources_at(counts, 0, 5 * total)
    for cycle in sources.reshape(5, total):
        assert tuple(np.bincount(cycle, minlength=len(counts))) == counts
    for source, count in enumerate(counts):
        ahead = np.cumsum(sources == source) - count / total * np.arange(1, 5 * total + 1)
        assert np.abs(ahead).max() < 1.5


@pytest.mark.parametrize("counts", COUNTS, ids=str)
def test_places_and_counts_agree_with_the_sequence(counts):
    total = sum(counts)
    sources = sources_at(counts, 0, 4 * total)
    np.testing.assert_array_equal(sources_at(counts, total + 1, 3 * total), sources[total + 1 : 3 * total])
    for source, count in enumerate(counts):
        places = np.flatnonzero(sources == source)
        np.testing.assert_array_equal(places_of(counts, source, 0, 4 * count), places)
        np.testing.assert_array_equal(places_of(counts, source, count, 3 * count), places[count : 3 * count])
        before = [places_before(counts, source, place) for place in range(4 * total)]
        np.testing.assert_array_equal(before, np.cumsum(sources == source) - (sources == source))


def test_products_beyond_64_bits():
    """The first source's places, by rational numbers: its count is rounded, halves upwards."""
    count, total, start = LARGE[0], sum(LARGE), 7 * sum(LARGE) - 500
    share = Fraction(count, total)
    taken = [int(share * place + Fraction(total // 2, total)) for place in range(start, start + 1001)]
    np.testing.assert_array_equal(sources_at(LARGE, start, start + 1000) == 0, np.diff(taken) == 1)
    assert places_before(LARGE, 0, start) == taken[0]
    for source, count in enumerate(LARGE):
        (place,) = places_of(LARGE, source, 9 * count + 1, 9 * count + 2).tolist()
        assert 9 * total <= place < 10 * total
        assert sources_at(LARGE, place, place + 1).tolist() == [source]
        assert places_before(LARGE, source, place) == 9 * count + 1
