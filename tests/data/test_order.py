from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from clip_jax.data import order as order_module
from clip_jax.data.order import Order
from clip_jax.errors import UserError

SIZES = [(1, 64, 64), (5, 64, 64), (64, 4, 3), (1000, 8, 5), (1003, 8, 5), (97, 1, 10), (30, 7, 1), (96, 8, 3)]

# Recorded once; a change here would change what a resumed run reads next.
GOLDEN = (
    [14, 10, 13, 11, 15, 9, 12, 8, 0, 2, 20, 3, 21, 1, 22, 19, 18, 5, 17, 4, 16, 6, 7],
    [0, 12, 3, 13, 15, 1, 14, 2],
)


@pytest.mark.parametrize(("samples", "block", "window"), SIZES)
def test_each_epoch_is_a_permutation(samples, block, window):
    order = Order(samples, seed=3, block=block, window=window)
    for epoch in range(3):
        indices = order.indices(epoch * samples, (epoch + 1) * samples)
        np.testing.assert_array_equal(np.sort(indices), np.arange(samples))


@pytest.mark.parametrize(("samples", "block", "window"), SIZES)
def test_random_access_equals_one_long_call(samples, block, window):
    order = Order(samples, seed=1, block=block, window=window)
    whole = order.indices(0, 3 * samples)
    stride = max(1, samples // 7)
    parts = [order.indices(p, min(p + stride, 3 * samples)) for p in range(0, 3 * samples, stride)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    for position in np.random.default_rng(0).integers(0, 3 * samples, 50).tolist():
        assert order.indices(position, position + 1)[0] == whole[position]


@pytest.mark.parametrize("samples", [1000, 1003, 999])
def test_windows_hold_whole_blocks(samples):
    block, window = 8, 5
    indices = Order(samples, seed=2, block=block, window=window).indices(0, samples)
    blocks = indices // block
    first, last = {}, {}
    for position, b in enumerate(blocks.tolist()):
        first.setdefault(b, position)
        last[b] = position
    # A sample is never further from the others of its block than one window is long.
    assert max(last[b] - first[b] for b in first) < block * window
    # Cut where no block reaches over: these are the windows, of at most `window` blocks each.
    cuts = [p for p in range(samples + 1) if not any(first[b] < p <= last[b] for b in first)]
    sizes = [len(set(blocks[a:b].tolist())) for a, b in pairwise(cuts)]
    assert max(sizes) == window
    assert len(sizes) == -(-len(first) // window)


def test_order_differs_between_epochs_and_seeds():
    a = Order(1000, seed=0, block=8, window=5)
    b = Order(1000, seed=1, block=8, window=5)
    orders = [a.indices(0, 1000), a.indices(1000, 2000), b.indices(0, 1000), b.indices(1000, 2000)]
    for i, one in enumerate(orders):
        for other in orders[:i]:
            assert np.mean(one == other) < 0.02  # chance agreement is 0.001


def test_blocks_and_samples_are_shuffled():
    """Neighbours in the order are hardly ever neighbours in the table, and an epoch does not drift through it."""
    indices = Order(20_000, seed=0, block=16, window=32).indices(0, 20_000)
    assert np.mean(np.abs(np.diff(indices)) == 1) < 0.02
    assert abs(np.corrcoef(indices, np.arange(20_000))[0, 1]) < 0.1


def test_position_distribution_is_uniform():
    """Over many epochs each sample comes first about equally often, the short last block included (chi-squared)."""
    samples, epochs = 20, 4000
    order = Order(samples, seed=7, block=3, window=2)
    firsts = [int(order.indices(e * samples, e * samples + 1)[0]) for e in range(epochs)]
    counts = np.bincount(firsts, minlength=samples)
    chi2 = np.sum((counts - epochs / samples) ** 2 / (epochs / samples))
    assert chi2 < (samples - 1) + 5 * np.sqrt(2 * (samples - 1))


def test_order_is_the_same_in_every_version():
    order = Order(23, seed=42, block=4, window=2)
    assert order.indices(0, 23).tolist() == GOLDEN[0]
    assert order.indices(23 * 1000, 23 * 1000 + 8).tolist() == GOLDEN[1]


def test_results_are_the_callers_own():
    order = Order(10, seed=0)
    order.indices(0, 10)[:] = -1
    assert order.indices(0, 10).min() == 0


def test_empty_range_and_large_positions():
    order = Order(100, seed=0)
    assert order.indices(5, 5).shape == (0,)
    assert set(order.indices(100 * 10**9, 100 * 10**9 + 100).tolist()) == set(range(100))


@pytest.mark.parametrize("arguments", [(0, 1), (10, -1), (10, 1, 0), (10, 1, 1, 0)])
def test_refuses_impossible_orders(arguments):
    with pytest.raises(UserError, match="must be at least"):
        Order(*arguments)


@pytest.mark.parametrize(("samples", "batch_size", "lanes"), [(4096, 64, 8), (1003, 24, 5), (100, 256, 16)])
def test_lanes_read_blocks(samples, batch_size, lanes):
    """Every epoch is still a permutation, and the rows of a lane take few blocks of a window, nearly whole."""
    block, window = 8, 16
    order = Order(samples, 5, block, window, batch_size, lanes)
    for epoch in range(2):
        indices = order.indices(epoch * samples, (epoch + 1) * samples)
        np.testing.assert_array_equal(np.sort(indices), np.arange(samples))
    position, epoch_end = samples, 2 * samples
    while position < epoch_end:
        stop = order.window_end(position)
        indices = order.indices(position, stop)
        rows = np.arange(position, stop) % batch_size
        for lane in range(lanes):
            own = indices[rows * lanes // batch_size == lane]
            assert len(set((own // block).tolist())) <= len(own) / block + 2
        position = stop
    assert position == epoch_end


def test_a_host_of_eight_reads_an_eighth_of_the_blocks():
    order = Order(64 * 64 * 4, 0, block=64, window=64, batch_size=512, lanes=64)
    indices = order.indices(0, 64 * 64)
    mine = indices[np.arange(64 * 64) % 512 < 64]
    assert len(mine) == 512
    assert len(set((mine // 64).tolist())) == 8


def test_many_sources_are_shuffled_once_an_epoch(monkeypatch):
    """However many are read in turn: the blocks of a large one take long to shuffle."""
    shuffled = []

    def permutation(n, seed, stream):
        shuffled.append((n, seed, stream))
        return original(n, seed, stream)

    original = order_module._permutation
    monkeypatch.setattr(order_module, "_permutation", permutation)
    orders = [Order(samples=1000, seed=seed, block=4, window=4) for seed in range(20)]
    for position in range(0, 2000, 100):
        for order in orders:
            order.indices(position, position + 10)
    assert Counter(seed for n, seed, _ in shuffled if n == 250) == Counter(list(range(20)) * 2)
