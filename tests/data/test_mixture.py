"""Several sources in one sequence: exact shares, and the same sequence from wherever it is asked for."""

from collections import Counter

import numpy as np
import pytest

from clip_jax.data.mixture import PERIOD, Mixture, Share
from clip_jax.errors import UserError

WEIGHTS = [(1.0,), (1.0, 1.0), (3.0, 2.0, 1.0), (1e6, 12_345.0, 1e4), (0.001, 0.999)]


@pytest.mark.parametrize("weights", WEIGHTS, ids=str)
def test_every_source_has_its_share(weights):
    mixture = Mixture.of_weights(weights, seed=3)
    sources = mixture.sources(0, PERIOD)
    for source, weight in enumerate(weights):
        wanted = weight / sum(weights)
        assert np.mean(sources == source) == pytest.approx(wanted, rel=0.01)
        # Spread evenly: within one of its share at any place, but for the jitter of a sample.
        if len(weights) > 1:
            behind = np.cumsum(sources == source) - wanted * np.arange(1, PERIOD + 1)
            assert np.abs(behind).max() < 3


@pytest.mark.parametrize("weights", WEIGHTS, ids=str)
def test_places_and_counts_agree_with_the_sequence(weights):
    mixture = Mixture.of_weights(weights, seed=1)
    start, stop = 3 * PERIOD - 500, 4 * PERIOD + 500
    sources = mixture.sources(start, stop)
    for source in range(len(weights)):
        share = Share(mixture, source)
        places = share.places(share.before(start), share.before(stop))
        np.testing.assert_array_equal(places, start + np.flatnonzero(sources == source))
    np.testing.assert_array_equal(mixture.sources(start + 100, start + 900), sources[100:900])


def test_seeds_and_periods_differ():
    one, other = (Mixture.of_weights((1.0, 1.0), seed) for seed in (0, 1))
    assert np.mean(one.sources(0, 1000) == other.sources(0, 1000)) < 0.9
    assert np.mean(one.sources(0, 1000) == one.sources(PERIOD, PERIOD + 1000)) < 0.9


def test_neighbours_are_not_regular():
    pairs = Counter(
        zip(*(Mixture.of_weights((1.0, 1.0), 0).sources(i, i + 5000).tolist() for i in (0, 1)), strict=True)
    )
    assert len(pairs) == 4
    assert min(pairs.values()) > 300


@pytest.mark.parametrize("weights", [(), (0.0, 1.0), (-1.0, 2.0), (float("nan"),), (1.0, 1e-9)], ids=str)
def test_refuses_weights_that_are_none(weights):
    with pytest.raises(UserError):
        Mixture.of_weights(weights, 0)
