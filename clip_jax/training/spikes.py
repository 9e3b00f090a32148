"""Leaving out updates whose gradients are far larger than of late, which a single bad batch can cause."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

MEMORY = 0.98  # of the running mean of gradient norms: about the last fifty updates
FIRST = 50  # updates until there is a mean to compare with


class SpikeState(NamedTuple):
    """The inner optimizer's state, the running mean of gradient norms, updates made and updates left out."""

    inner: optax.OptState
    average: Float[Array, ""]
    made: Int[Array, ""]
    skipped: Int[Array, ""]


def skip_spikes(inner: optax.GradientTransformation, above: float) -> optax.GradientTransformation:
    """`inner`, but for updates whose gradient norm is more than `above` times the running mean, or no number.

    Those change neither parameters nor moments; what else a step would change asks `left_out`. A spike moves the mean
    as the largest norm that is none would, so that norms which have risen for good pass after a while.
    """

    def init(params):
        return SpikeState(inner.init(params), jnp.float32(0), jnp.int32(0), jnp.int32(0))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, SpikeState]:
        norm = optax.tree.norm(updates)
        spike = ~jnp.isfinite(norm) | ((state.made >= FIRST) & (norm > above * state.average))
        changed, new_inner = inner.update(updates, state.inner, params)
        kept = jax.tree.map(lambda new, old: jnp.where(spike, old, new), new_inner, state.inner)
        changed = jax.tree.map(lambda x: jnp.where(spike, jnp.zeros_like(x), x), changed)
        weight = jnp.where(state.made == 0, 0.0, MEMORY)
        counted = jnp.where(jnp.isfinite(norm), jnp.where(spike, above * state.average, norm), state.average)
        average = weight * state.average + (1 - weight) * counted
        return changed, SpikeState(kept, average, state.made + ~spike, state.skipped + spike)

    return optax.GradientTransformation(init, update)  # pyright: ignore[reportArgumentType]


def left_out(before: Any, after: Any) -> Bool[Array, ""]:
    """Whether the update between two states of an optimizer with `skip_spikes` was left out."""
    return skipped_updates(after) > skipped_updates(before)


def skipped_updates(state: Any) -> Int[Array, ""]:
    """How many updates were left out so far."""
    return optax.tree_utils.tree_get(state, "skipped")
