"""Several sources in one sequence: which source each position is of, as a pure function of weights and seed."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from clip_jax.data.interleaving import Whole, places_before, places_of, sources_at
from clip_jax.data.splitmix import splitmix64
from clip_jax.errors import UserError

BLOCK = 64  # positions that are shuffled with each other
FINE, FINEST = 2**31, 2**50  # positions of a cycle, where weights are not whole numbers
LEAST = 64  # of them for each source, which rounds its weight by less than 1 %


@dataclass(frozen=True)
class Mixture:
    """An endless sequence in which source s has exactly `counts[s]` of every sum(counts) positions, a cycle.

    They are spread evenly, and then shuffled in blocks, of which none reaches beyond a cycle.
    """

    counts: tuple[int, ...]
    seed: int

    @staticmethod
    def of_weights(weights: Sequence[float], seed: int) -> "Mixture":
        """The mixture of these weights; those that are whole numbers, such as sizes of tables, are kept exactly.

        Raises UserError for weights that are not above 0, and for one that is nearly nothing beside the others.
        """
        if not weights or not all(np.isfinite(weight) and weight > 0 for weight in weights):
            raise UserError(f"the weights of the data's sources are {list(weights)}; each must be above 0")
        shares = [weight / sum(weights) for weight in weights]
        cycle = max(FINE, LEAST / min(shares))
        if all(float(weight).is_integer() for weight in weights) and sum(weights) <= FINEST:
            return Mixture(tuple(map(int, weights)), seed)
        if cycle > FINEST:
            raise UserError(f"a source of weight {min(weights)} among {list(weights)} would hardly ever be seen")
        return Mixture(tuple(round(share * cycle) for share in shares), seed)

    def sources(self, start: int, stop: int) -> Int64[np.ndarray, " b"]:
        """The source of each position in [start, stop)."""
        if len(self.counts) == 1 or stop == start:
            return np.zeros(stop - start, np.int64)
        positions, places = self.shuffled(np.arange(self.block_of(start), self.block_of(stop - 1) + 1))
        first, last = int(positions[0]), int(positions[-1])
        return sources_at(self.counts, first, last + 1)[places - first][start - first : stop - first]

    def shuffled(self, blocks: Int64[np.ndarray, " m"]) -> tuple[Int64[np.ndarray, " b"], Int64[np.ndarray, " b"]]:
        """The positions in these blocks, and which place of the regular sequence has come to each."""
        positions = self.start_of(blocks)[:, None] + np.arange(min(BLOCK, sum(self.counts)))
        is_here = positions < self.start_of(blocks + 1)[:, None]  # the last block of a cycle is shorter
        keys = np.where(is_here, splitmix64(self.seed, 3, positions), np.iinfo(np.uint64).max)
        places = np.take_along_axis(positions, np.argsort(keys, axis=1, kind="stable"), axis=1)
        return positions[is_here], places[is_here]

    def block_of(self, position: Whole) -> Whole:
        """The block that holds a position, or those that hold several."""
        cycle, offset = position // sum(self.counts), position % sum(self.counts)
        return cycle * self._blocks + offset // BLOCK

    def start_of(self, block: Whole) -> Whole:
        """The position at which a block begins, or several do."""
        cycle, offset = block // self._blocks, block % self._blocks
        return cycle * sum(self.counts) + offset * BLOCK

    @property
    def _blocks(self) -> int:
        return -(-sum(self.counts) // BLOCK)


@dataclass(frozen=True)
class Share:
    """One source's part of a mixture."""

    mixture: Mixture
    source: int

    def before(self, position: int) -> int:
        """How many positions of the mixture before `position` are this source's."""
        start = self.mixture.start_of(self.mixture.block_of(position))
        own = self.mixture.sources(start, position) == self.source
        return places_before(self.mixture.counts, self.source, start) + int(own.sum())

    def places(self, start: int, stop: int) -> Int64[np.ndarray, " b"]:
        """The mixture's position of each of this source's own positions in [start, stop)."""
        mixture = self.mixture
        if len(mixture.counts) == 1 or stop == start:
            return np.arange(start, stop)
        # Blocks are shuffled whole, so the source's other places in the first and the last are needed too.
        begin, end = self._block_of(start)[0], self._block_of(stop - 1)[1]
        own = places_of(mixture.counts, self.source, begin, end)
        positions, places = mixture.shuffled(np.unique(mixture.block_of(own)))
        return positions[np.isin(places, own)][start - begin : stop - begin]

    def _block_of(self, n: int) -> tuple[int, int]:
        """The source's own positions that are in one block with its n-th, as [first, stop)."""
        (place,) = places_of(self.mixture.counts, self.source, n, n + 1).tolist()
        block = self.mixture.block_of(place)
        first, stop = (
            places_before(self.mixture.counts, self.source, self.mixture.start_of(one)) for one in (block, block + 1)
        )
        return first, stop
