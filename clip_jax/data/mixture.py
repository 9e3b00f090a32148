"""Several sources in one sequence: which source each position is of, as a pure function of weights and seed."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Int64

from clip_jax.errors import UserError

PERIOD = 65_536  # positions among which every source has its exact share


@dataclass(frozen=True)
class Mixture:
    """Of every 65,536 positions, source s has `quotas[s]`, spread evenly and otherwise at random."""

    quotas: tuple[int, ...]
    seed: int

    @staticmethod
    def of_weights(weights: Sequence[float], seed: int) -> "Mixture":
        """The mixture whose shares are nearest to the weights. Raises UserError where one has no share."""
        if not weights or not all(np.isfinite(weight) and weight > 0 for weight in weights):
            raise UserError(f"the weights of the data's sources are {list(weights)}; each must be above 0")
        exact = np.asarray(weights) / np.sum(weights) * PERIOD
        quotas = np.floor(exact).astype(int)
        rest = np.argsort(quotas - exact, kind="stable")[: PERIOD - quotas.sum()]
        quotas[rest] += 1  # largest remainders first
        if quotas.min() == 0:
            raise UserError(f"a source of weight {min(weights)} among {list(weights)} would hardly ever be seen")
        return Mixture(tuple(quotas.tolist()), seed)

    def sources(self, start: int, stop: int) -> Int64[np.ndarray, " b"]:
        """The source of each position in [start, stop)."""
        positions = np.arange(start, stop)
        sources = np.zeros(len(positions), np.int64)
        if len(self.quotas) > 1:
            for period in range(start // PERIOD, -(-stop // PERIOD)):
                here = positions // PERIOD == period
                sources[here] = _period(self, period)[0][positions[here] % PERIOD]
        return sources


@dataclass(frozen=True)
class Share:
    """One source's part of a mixture."""

    mixture: Mixture
    source: int

    def before(self, position: int) -> int:
        """How many positions of the mixture before `position` are this source's."""
        quota = self.mixture.quotas[self.source]
        period, offset = divmod(position, PERIOD)
        if quota == PERIOD:
            return position
        return period * quota + int(np.searchsorted(_period(self.mixture, period)[1][self.source], offset))

    def places(self, start: int, stop: int) -> Int64[np.ndarray, " b"]:
        """The mixture's position of each of this source's own positions in [start, stop)."""
        quota = self.mixture.quotas[self.source]
        own = np.arange(start, stop)
        if quota == PERIOD:
            return own
        places = np.empty(len(own), np.int64)
        for period in range(start // quota, -(-stop // quota)):
            here = own // quota == period
            places[here] = period * PERIOD + _period(self.mixture, period)[1][self.source][own[here] % quota]
        return places


@lru_cache(maxsize=16)
def _period(mixture: Mixture, period: int) -> tuple[Int64[np.ndarray, " p"], tuple[Int64[np.ndarray, " q"], ...]]:
    """The source of each position of a period, and the positions of each source."""
    raw = np.random.Philox(np.random.SeedSequence(mixture.seed, spawn_key=(3, period))).random_raw(PERIOD)
    jitter = (raw >> np.uint64(11)) * 2.0**-53
    ranks = np.concatenate([np.arange(quota) for quota in mixture.quotas])
    quotas = np.repeat(mixture.quotas, mixture.quotas)
    order = np.argsort((ranks + jitter) / quotas, kind="stable")
    sources = np.repeat(np.arange(len(mixture.quotas)), mixture.quotas)[order]
    return sources, tuple(np.flatnonzero(sources == source) for source in range(len(mixture.quotas)))
