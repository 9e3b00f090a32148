"""The state of a run: parameters, optimizer state and step, laid out over the mesh from the moment they exist."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from clip_jax.config import ClipConfig
from clip_jax.models.two_tower import Params, init_params
from clip_jax.sharding import parameter_specs

TrainState = dict[str, Any]
"""{'params': nested dict, 'opt_state': optax state, 'step': int32 scalar, the number of updates made}.

With an average of the parameters, also 'ema', nested as 'params' are.
"""


def init_state(config: ClipConfig, optimizer: optax.GradientTransformation, seed: int, ema: bool = False) -> TrainState:
    """A fresh state; pure, so it runs under jit with `state_shardings`, and no host ever holds the whole model."""
    return begin(init_params(config, jax.random.key(seed)), optimizer, ema)


def begin(params: Params, optimizer: optax.GradientTransformation, ema: bool = False) -> TrainState:
    """The state before the first update of these parameters."""
    state = {"params": params, "opt_state": optimizer.init(params), "step": jnp.int32(0)}
    return state | {"ema": jax.tree.map(jnp.copy, params)} if ema else state


def abstract_state(
    config: ClipConfig, optimizer: optax.GradientTransformation, mesh: Mesh, ema: bool = False
) -> TrainState:
    """Shapes, types and shardings of the state, without computing any of it."""
    shapes = jax.eval_shape(lambda: init_state(config, optimizer, 0, ema))
    return jax.tree.map(
        lambda shape, sharding: jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding),
        shapes,
        state_shardings(shapes, optimizer, mesh),
    )


def state_shardings(shapes: TrainState, optimizer: optax.GradientTransformation, mesh: Mesh) -> TrainState:
    """Where each part of the state lives; the optimizer's moments lie with their parameters."""
    replicated = NamedSharding(mesh, P())
    params = parameter_specs(shapes["params"], mesh)
    moments = optax.tree_utils.tree_map_params(
        optimizer,
        lambda moment, sharding: moment if isinstance(moment, optax.MaskedNode) else sharding,
        shapes["opt_state"],
        params,
        transform_non_params=lambda _: replicated,
        is_leaf=lambda node: isinstance(node, optax.MaskedNode),  # in the place of what is frozen
    )
    shardings = {"params": params, "opt_state": moments, "step": replicated}
    return shardings | {"ema": params} if "ema" in shapes else shardings
