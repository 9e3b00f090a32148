"""Several sources in one sequence: exact shares, and the same sequence from wherever it is asked for."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from clip_jax.data.mixture import Mixture, Share
from clip_jax.errors import UserError

WEIGHTS = [(1.0,), (1.0, 1.0), (3.0, 2.0, 1.0), (0.7, 0.3), (1e6, 12_345.0, 1e4), (0.001, 0.999), (70.0, 30.0, 1.0)]
SMALL = [(1e-4, 1.0), (3e-4, 0.5, 2.5), (1e-12, 1.0), (2.0**-40, 1e-3, 7.0)]
SIZES = [(50, 30), (1_000_000, 1_000), (12_000_000, 3_000_000, 20_000), (400_000_000, 3_000), (5 * 10**9, 4 * 10**9, 7)]


@pytest.mark.parametrize("weights", WEIGHTS, ids=str)
def test_every_source_has_its_share(weights):
    positions = 65_536
    sources = Mixture.of_weights(weights, seed=3).sources(0, positions)
    for source, weight in enumerate(weights):
        wanted = weight / sum(weights)
        assert np.mean(sources == source) == pytest.approx(wanted, rel=0.01, abs=1 / positions)
        # Spread evenly: by no more than a block's shuffling away from its share at any place.
        ahead = np.cumsum(sources == source) - wanted * np.arange(1, positions + 1)
        assert np.abs(ahead).max() < 16


@pytest.mark.parametrize("weights", SMALL, ids=str)
def test_small_weights_are_kept(weights):
    mixture = Mixture.of_weights(weights, seed=0)
    for source, weight in enumerate(weights):
        wanted = weight / sum(weights)
        positions = int(10_000 / wanted)
        assert Share(mixture, source).before(positions) == pytest.approx(positions * wanted, rel=0.01)


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_weighted_by_size_an_epoch_is_all_of_them(sizes):
    """Every epoch holds each source exactly once, and a few positions of a tiny one are found from anywhere."""
    mixture, epoch = Mixture.of_weights(list(map(float, sizes)), seed=1), sum(sizes)
    for source, size in enumerate(sizes):
        share = Share(mixture, source)
        assert [share.before(n * epoch) for n in (1, 2, 1000)] == [size, 2 * size, 1000 * size]
        places = share.places(999 * size, 999 * size + 5)
        assert 999 * epoch <= places[0] < places[-1] < 1000 * epoch
        for n, place in enumerate(places.tolist()):
            assert mixture.sources(place, place + 1).tolist() == [source]
            assert share.before(place) == 999 * size + n


@pytest.mark.parametrize("weights", WEIGHTS, ids=str)
def test_places_and_counts_agree_with_the_sequence(weights):
    mixture = Mixture.of_weights(weights, seed=1)
    start, stop = 200_003, 205_001
    sources = mixture.sources(start, stop)
    for source in range(len(weights)):
        share = Share(mixture, source)
        places = share.places(share.before(start), share.before(stop))
        np.testing.assert_array_equal(places, start + np.flatnonzero(sources == source))
        assert share.places(5, 5).shape == (0,)
    np.testing.assert_array_equal(mixture.sources(start + 100, start + 900), sources[100:900])


def test_seeds_and_cycles_differ():
    one, other = (Mixture.of_weights((500.0, 500.0), seed) for seed in (0, 1))
    assert np.mean(one.sources(0, 1000) == other.sources(0, 1000)) < 0.9
    assert np.mean(one.sources(0, 1000) == one.sources(1000, 2000)) < 0.9


@pytest.mark.parametrize("weights", [(1.0, 1.0), (0.5, 0.5)], ids=str)
def test_neighbours_are_not_regular(weights):
    sources = Mixture.of_weights(weights, 0).sources(0, 5001).tolist()
    pairs = Counter(pairwise(sources))
    assert len(pairs) == 4
    assert min(pairs.values()) > 300


@pytest.mark.parametrize("weights", [(), (0.0, 1.0), (-1.0, 2.0), (float("nan"),), (1.0, 1e-15)], ids=str)
def test_refuses_weights_that_are_none(weights):
    with pytest.raises(UserError):
        Mixture.of_weights(weights, 0)
