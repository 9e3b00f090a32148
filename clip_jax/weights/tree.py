"""Nested parameters and their flat names: {'visual': {'projection': x}} and {'visual/projection': x}."""

from functools import lru_cache
from typing import Any

import jax

from clip_jax.config import ClipConfig
from clip_jax.models.two_tower import Params, init_params


def flatten(params: Params) -> dict[str, Any]:
    """Nested parameters as {'visual/projection': leaf, ...}."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(params)
    return {"/".join(key.key for key in path): leaf for path, leaf in leaves}


def unflatten(tensors: dict[str, Any]) -> Params:
    """The inverse of `flatten`."""
    params: Params = {}
    for name, tensor in tensors.items():
        *parents, last = name.split("/")
        node = params
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = tensor
    return params


@lru_cache(maxsize=16)
def parameter_shapes(config: ClipConfig) -> dict[str, tuple[int, ...]]:
    """The shape of every parameter and statistic of a model, by its flat name, without making any."""
    abstract = flatten(jax.eval_shape(lambda: init_params(config, jax.random.key(0))))
    return {path: leaf.shape for path, leaf in abstract.items()}
