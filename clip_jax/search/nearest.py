"""The rows of a set that are nearest to queries: exact, in chunks, on every local device.

The devices multiply in float32 and hand back only the greatest product of each block of rows. A bound on its rounding
tells which blocks can matter, and the products of those few are computed again in float64. So the answer depends
neither on the device nor on how the rows are cut into chunks, and memory not on how many there are.
"""

from collections.abc import Iterable, Iterator
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Float64, Int64

from clip_jax.errors import UserError
from clip_jax.sharding import MeshConfig, batch_sharding, make_mesh

BLOCK = 32  # rows of which a device tells the greatest product only
BLOCKS_AT_ONCE = 64  # whose exact products are kept until they are ranked
CHUNK_BYTES = 2**23  # of rows that are multiplied at once
QUERIES_AT_ONCE = 1024
NOWHERE = np.iinfo(np.int64).max  # the row of what has not been found yet


class Nearest(NamedTuple):
    """For each query the rows that are nearest to it, the best first, and their scores."""

    rows: Int64[np.ndarray, "q k"]
    scores: Float32[np.ndarray, "q k"]


def nearest(
    parts: np.ndarray | Iterable[np.ndarray], queries: Float[np.ndarray, "q width"], k: int = 10, cosine: bool = False
) -> Nearest:
    """The `k` rows of the greatest inner product with each query, or all where there are fewer than `k`.

    `parts` are the rows: one array [n, width], which may be memory-mapped, or several one after the other, of float16,
    float32 or float64. A score is the exact product of the rows as float32, rounded once to float32; of equal scores
    the earlier row comes first. `cosine` takes the products of directions, all lengths set to one. Raises UserError for
    widths that differ, for what is no number, for no queries, and with `cosine` for a row or query of zeros.
    """
    if k < 1:
        raise UserError(f"k is {k}; it must be at least 1")
    if not len(queries):
        raise UserError("there are no queries; give at least one to find the nearest rows to")
    exact = queries.astype(np.float64)
    norms = np.linalg.norm(exact, axis=1, keepdims=True)
    _check(norms[:, 0], cosine, "query")
    exact = exact / norms if cosine else exact
    best = [_Best(exact[start : start + QUERIES_AT_ONCE], k, cosine) for start in range(0, len(exact), QUERIES_AT_ONCE)]
    sharding = batch_sharding(make_mesh(MeshConfig(), jax.local_devices()))
    multiple = BLOCK * sharding.num_devices
    size = max(1, CHUNK_BYTES // (4 * multiple * exact.shape[1])) * multiple
    on_device = [jnp.asarray(one.queries, jnp.float32) for one in best]
    waiting = None
    for start, rows in _chunks([parts] if isinstance(parts, np.ndarray) else parts, exact.shape[1], size):
        padded = rows if len(rows) == size else np.concatenate([rows, np.repeat(rows[-1:], size - len(rows), axis=0)])
        placed = jax.device_put(padded, sharding)
        found = [_greatest(placed, some, cosine) for some in on_device]
        if waiting:  # the devices work on this chunk meanwhile
            _finish(best, *waiting, cosine)
        waiting = start, rows, found
    if waiting:
        _finish(best, *waiting, cosine)
    return Nearest(np.concatenate([one.rows for one in best]), np.concatenate([one.scores for one in best]))


class _Greatest(NamedTuple):
    """Of each block of rows the greatest product with each query, and the least and greatest squared length."""

    product: Float[Array | np.ndarray, "blocks q"]
    least: Float[Array | np.ndarray, " blocks"]
    most: Float[Array | np.ndarray, " blocks"]


@partial(jax.jit, static_argnames="cosine")
def _greatest(rows: Float32[Array, "b width"], queries: Float32[Array, "q width"], cosine: bool) -> _Greatest:
    with jax.default_matmul_precision("highest"):
        products = rows @ queries.T
    squares = jnp.sum(rows * rows, axis=1)
    products = products / jnp.sqrt(squares)[:, None] if cosine else products
    squares = squares.reshape(-1, BLOCK)
    return _Greatest(
        products.reshape(-1, BLOCK, products.shape[1]).max(axis=1), squares.min(axis=1), squares.max(axis=1)
    )


class _Best:
    """The best rows of some queries so far, a sorted row of each query: `k`, or as many as there have been."""

    def __init__(self, queries: Float64[np.ndarray, "q width"], k: int, cosine: bool) -> None:
        self.queries, self._k, self._cosine = queries, k, cosine
        self.rows = np.zeros((len(queries), 0), np.int64)
        self.scores = np.zeros((len(queries), 0), np.float32)
        self._lengths = np.linalg.norm(queries, axis=1)

    def merge(self, start: int, rows: Float32[np.ndarray, "b width"], found: _Greatest) -> None:
        """Takes in the rows from `start` on, which follow those before, and of which the devices found this."""
        self._widen(min(self._k, start + len(rows)))
        blocks = -(-len(rows) // BLOCK)
        product = np.asarray(found.product)[:blocks]
        lengths = np.ones(blocks) if self._cosine else np.sqrt(np.asarray(found.most, np.float64)[:blocks])
        slack = _rounding(rows.shape[1], np.float32) * lengths[:, None] * self._lengths
        wanted = product + slack >= self._bar(product - slack)
        needed = np.flatnonzero(wanted.any(axis=1))
        for first in range(0, len(needed), BLOCKS_AT_ONCE):
            some = needed[first : first + BLOCKS_AT_ONCE]
            places = (some[:, None] * BLOCK + np.arange(BLOCK)).ravel()
            places = places[places < len(rows)]
            scores = np.full((len(self.queries), len(places)), -np.inf, np.float32)
            for number, block in enumerate(some.tolist()):
                here = slice(number * BLOCK, (number + 1) * BLOCK)
                asking = np.flatnonzero(wanted[block])
                scores[asking, here] = _scores(rows[places[here]], self.queries[asking], self._cosine)
            self._insert(scores, start + places)

    def _widen(self, k: int) -> None:
        more = ((0, 0), (0, k - self.rows.shape[1]))
        self.rows = np.pad(self.rows, more, constant_values=NOWHERE)
        self.scores = np.pad(self.scores, more, constant_values=-np.inf)

    def _bar(self, at_least: Float64[np.ndarray, "blocks q"]) -> Float[np.ndarray, " q"]:
        """What a score has to reach to count: the k-th so far, or the k-th that is sure to be where there are fewer."""
        k, last = self.scores.shape[1], self.scores[:, -1]
        if len(at_least) < k or np.isfinite(last).all():
            return last
        return np.maximum(last, -np.partition(-at_least, k - 1, axis=0)[k - 1])

    def _insert(self, scores: Float32[np.ndarray, "q b"], rows: Int64[np.ndarray, " b"]) -> None:
        """Rows behind all before: where scores are equal, those before stay, which a stable sort sees to."""
        better = np.flatnonzero(scores.max(axis=1) > self.scores[:, -1])
        scores = np.concatenate([self.scores[better], scores[better]], axis=1)
        rows = np.concatenate([self.rows[better], np.broadcast_to(rows, (len(better), len(rows)))], axis=1)
        order = np.argsort(-scores, axis=1, kind="stable")[:, : self.rows.shape[1]]
        self.scores[better] = np.take_along_axis(scores, order, axis=1)
        self.rows[better] = np.take_along_axis(rows, order, axis=1)


def _scores(
    rows: Float32[np.ndarray, "b width"], queries: Float64[np.ndarray, "q width"], cosine: bool
) -> Float32[np.ndarray, "q b"]:
    """Products in float64, rounded to float32; of equal rows they are equal.

    einsum promises no order of summing. Where that might change how a sum is rounded to float32, it is summed again, in
    one order always. (A matrix product would wait for BLAS's threads at each small block.)
    """
    rows = rows.astype(np.float64, order="C")
    lengths = np.sqrt((rows * rows).sum(axis=1))
    products = np.einsum("qw,bw->qb", queries, rows)
    slack = _rounding(rows.shape[1], np.float64) * np.linalg.norm(queries, axis=1)[:, None] * lengths
    if cosine:
        products, slack = products / lengths, slack / lengths
    scores = (products + slack).astype(np.float32)
    unsure = scores != (products - slack).astype(np.float32)
    for query in np.flatnonzero(unsure.any(axis=1)).tolist():
        some = np.flatnonzero(unsure[query])
        sums = (rows[some] * queries[query]).sum(axis=1)
        scores[query, some] = sums / lengths[some] if cosine else sums
    return scores


def _rounding(width: int, dtype: type) -> float:
    """Twice and more what a product can be off by in any order of summing, for vectors of length one."""
    return (4 * width + 16) * float(np.finfo(dtype).eps)


def _finish(best: list[_Best], start: int, rows: np.ndarray, found: list[_Greatest], cosine: bool) -> None:
    for one, of_blocks in zip(best, found, strict=True):
        of_blocks = _Greatest(*map(np.asarray, of_blocks))
        suspicious = ~(np.isfinite(of_blocks.most) & (of_blocks.least > 0 if cosine else True))
        if suspicious.any():
            _check(np.linalg.norm(rows.astype(np.float64), axis=1), cosine, "row", start)
        one.merge(start, rows, of_blocks)


def _chunks(parts: Iterable[np.ndarray], width: int, size: int) -> Iterator[tuple[int, Float32[np.ndarray, "b width"]]]:
    """The rows of all parts, `size` at once but for the last ones, with the place of the first."""
    start, waiting, count = 0, [], 0
    for part in parts:
        if part.ndim != 2 or part.dtype.kind != "f" or part.dtype.itemsize not in (2, 4, 8):
            told = f"{part.dtype} {list(part.shape)}"
            raise UserError(f"embeddings must be float16, float32 or float64 [rows, width], not {told}")
        if part.shape[1] != width:
            raise UserError(f"queries of {width} numbers do not fit rows of {part.shape[1]}; take the set's own model")
        for begin in range(0, len(part), size):
            piece = np.asarray(part[begin : begin + size], np.float32)
            waiting, count = [*waiting, piece] if count else [piece], count + len(piece)
            if count >= size:
                rows = waiting[0] if len(waiting) == 1 else np.concatenate(waiting)  # no copy where the parts fit
                yield start, rows[:size]
                waiting, count, start = [rows[size:]], count - size, start + size
    if count:
        yield start, np.concatenate(waiting)


def _check(norms: np.ndarray, cosine: bool, what: str, start: int = 0) -> None:
    """Raises UserError, naming the first, where one is not finite, or zero with `cosine`."""
    bad = ~np.isfinite(norms) | (norms > 1e18)
    if bad.any():
        raise UserError(f"{what} {start + int(np.argmax(bad))} is not finite (NaN, infinite or beyond 1e18)")
    if cosine and (norms < 1e-18).any():
        raise UserError(
            f"{what} {start + int(np.argmax(norms < 1e-18))} is zero, and so has no direction; leave it out"
        )
