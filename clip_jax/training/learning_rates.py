"""Which parameters are trained, and how fast each is: frozen ones, factors by name, and layer-wise decay."""

import re
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from clip_jax.errors import UserError
from clip_jax.models.two_tower import Params
from clip_jax.weights.tree import flatten


def is_trained(params: Params, frozen: str | None) -> Params:
    """True for each parameter whose path, such as visual/transformer/block/mlp/up/kernel, `frozen` is not found in.

    Raises UserError for a pattern that is none, that finds nothing or everything, or some batch norms and not others.
    """
    if frozen is None:
        return jax.tree.map(lambda _: True, params)
    pattern = compiled(frozen, "config.optimizer.frozen")
    trained = jax.tree_util.tree_map_with_path(lambda path, _: not pattern.search(path_of(path)), params)
    flags = jax.tree.leaves(trained)
    if all(flags):
        raise UserError(f"config.optimizer.frozen '{frozen}' finds no parameter; '^visual/' locks the image tower")
    if not any(flags):
        raise UserError(f"config.optimizer.frozen '{frozen}' finds every parameter, so that nothing would be trained")
    norms = {flag for name, flag in flatten(trained).items() if name.endswith(("/mean", "/variance"))}
    if len(norms) > 1:
        raise UserError(
            f"config.optimizer.frozen '{frozen}' finds some of the batch norms, which take the statistics of a batch "
            "all or none; '^visual/' locks the image tower"
        )
    return trained


def compiled(pattern: str, where: str) -> re.Pattern:
    """The regular expression. Raises UserError for one that is none."""
    try:
        return re.compile(pattern)
    except re.error as error:
        raise UserError(f"{where} '{pattern}' is no regular expression: {error}") from error


def path_of(path: tuple[Any, ...]) -> str:
    """A key path of JAX's as the flat name of a parameter."""
    return "/".join(str(key.key) for key in path)


def scale_by_factors(factors: Sequence[tuple[str, float]], layer_decay: float) -> optax.GradientTransformation:
    """Multiplies each update, and with it the learning rate and the weight decay of its parameter.

    The first of `factors` whose pattern is found in the path applies. With `layer_decay` below 1, the top block of a
    tower learns at the full rate, each one below at so much of the one above, and what lies before the blocks slowest.

    Source: section 3 of Howard and Ruder 2018, arXiv 1801.06146, and appendix of Bao et al. 2021, arXiv 2106.08254.
    """
    patterns = [(compiled(pattern, "config.optimizer.factors"), factor) for pattern, factor in factors]

    def update(updates: Any, state: optax.OptState, params: Any = None) -> tuple[Any, optax.OptState]:
        del params
        found = {pattern.pattern: False for pattern, _ in patterns}
        layers = {tower: _layers(updates[tower]) for tower in ("visual", "text")}

        def scaled(path, leaf):
            name = path_of(path)
            factor = 1.0
            for pattern, value in patterns:
                if pattern.search(name):
                    factor, found[pattern.pattern] = value, True
                    break
            tower = name.split("/")[0]
            if tower in layers and layer_decay != 1:
                factor = factor * _depth_factor(name, leaf, layers[tower], layer_decay)
            return leaf * factor

        result = jax.tree_util.tree_map_with_path(scaled, updates)
        for pattern, any_found in found.items():
            if not any_found:
                raise UserError(f"config.optimizer.factors: '{pattern}' decides about no parameter")
        return result, state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)  # pyright: ignore[reportArgumentType]


def _layers(tower: Params) -> int:
    """The number of blocks of a transformer, or of stages of a ResNet."""
    if "transformer" not in tower:
        return 4
    return len(jax.tree.leaves(tower["transformer"]["block"])[0])


def _depth_factor(name: str, leaf: jax.Array, layers: int, decay: float) -> Any:
    """`decay` to the power of the steps below the top block; along their first axis for stacked layers."""
    if "/transformer/block/" in name:
        factors = decay ** jnp.arange(layers - 1, -1, -1, dtype=jnp.float32)
        return factors.reshape(-1, *[1] * (leaf.ndim - 1))
    if stage := re.search(r"/stage_(\d)/", name):
        return decay ** (layers - int(stage[1]))
    below = re.search(r"(patch_embedding|class_embedding|positional_embedding|token_embedding|norm_pre|stem)", name)
    return decay**layers if below and "pool/" not in name else 1.0
