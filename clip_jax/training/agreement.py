"""What several processes must decide alike: where one has its reasons, all of them do the same at the same step."""

from enum import IntEnum
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

Number = TypeVar("Number", int, float)


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


def from_first(value: Number) -> Number:
    """The first process's value, to 32 bits where there are several."""
    if jax.process_count() == 1:
        return value
    of = np.int32 if isinstance(value, int) else np.float32
    return type(value)(multihost_utils.broadcast_one_to_all(of(value)))


def everywhere(holds: bool) -> bool:
    """Whether it holds on every process."""
    if jax.process_count() == 1:
        return holds
    return bool(np.all(multihost_utils.process_allgather(np.array(holds))))
