"""Features of a batch in parts, for batches whose activations do not fit: exact, as the loss still sees all pairs.

Each part goes through the towers on its own and keeps nothing but its features; the backward pass computes it again.
So the activations in memory are one part's, at the price of a second forward pass, and the gradients are those of the
whole batch, which adding up the gradients of smaller batches would not give: their losses know fewer negatives.

Source: section 3 of Cui et al. 2022, arXiv 2112.09331, and Gao et al. 2021, arXiv 2101.06983.
"""

from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Array, Float

from clip_jax.sharding import BATCH_AXES, constrain

Features = tuple[Float[Array, "b k"], Float[Array, "b k"]]


def in_parts(embed: Callable[[Any], Features], batch: Any, parts: int, shards: int) -> Features:
    """`embed(batch)`, computed in `parts` parts one after the other, in the batch's own order.

    `batch` is a tree of arrays with a leading axis b that is split over `shards` groups of devices; every group takes
    its own share of each part, so that nothing moves between devices. b must divide by parts x shards.
    """
    if parts == 1:
        return embed(batch)

    def split(x: Array) -> Array:
        x = x.reshape(shards, parts, -1, *x.shape[1:]).swapaxes(0, 1)
        return constrain(x.reshape(parts, -1, *x.shape[3:]), None, BATCH_AXES)

    def joined(x: Array) -> Array:
        x = x.reshape(parts, shards, -1, *x.shape[2:]).swapaxes(0, 1)
        return constrain(x.reshape(-1, *x.shape[3:]), BATCH_AXES)

    return jax.tree.map(joined, jax.lax.map(jax.checkpoint(embed), jax.tree.map(split, batch)))
