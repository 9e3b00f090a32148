"""What several processes decide together after each step: where one has its reasons, all of them do the same."""

from enum import IntEnum

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P


class Vote(IntEnum):
    """What a process wants after a step; the largest vote counts."""

    GO_ON = 0
    SAVE = 1
    STOP = 2


class Votes:
    """Votes of every step. Where several processes vote, the outcome comes a step later, so that nobody waits for it.

    It costs each step one reduction of a number a device, which runs behind the update.
    """

    def __init__(self, mesh: Mesh) -> None:
        self._shape = (mesh.size,)
        self._each = NamedSharding(mesh, P(mesh.axis_names))
        self._largest = jax.jit(jnp.max, out_shardings=NamedSharding(mesh, P()))
        self._pending: jax.Array | None = None

    def cast(self, vote: Vote) -> Vote:
        """Takes this process's vote on the step, and returns the outcome to act on, the same for all."""
        if jax.process_count() == 1:
            return vote
        before = self._pending
        ballots = jax.make_array_from_callback(self._shape, self._each, lambda _: np.array([vote], np.int32))
        self._pending = self._largest(ballots)
        return Vote.GO_ON if before is None else Vote(int(before))
