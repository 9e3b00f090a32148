"""AdamW as CLIP was trained: warmup and cosine, decay on weights only, a bound on the temperature."""

import re

import jax
import jax.numpy as jnp
import optax

from clip_jax.models.two_tower import Params
from clip_jax.training.config import OptimizerConfig, in_steps

# "All weights that are not gains or biases" (appendix F of the paper); the class token is left out, as in open_clip.
# Batch norm's statistics have no gradients either, so that AdamW leaves them as they are.
NOT_DECAYED = r"(scale(_[12])?|bias|class_embedding|mean|variance)$"


def make_schedule(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """The learning rate at each step: linear from 0 over the warmup, then half a cosine down to 0 at `steps`."""
    warmup = min(in_steps(config.warmup, steps), max(steps - 1, 0))
    return optax.warmup_cosine_decay_schedule(0.0, config.learning_rate, warmup, max(steps, 1))


def make_optimizer(config: OptimizerConfig, steps: int) -> optax.GradientTransformation:
    """Clipping (where asked for) and AdamW."""
    adamw = optax.adamw(
        make_schedule(config, steps),
        b1=config.b1,
        b2=config.b2,
        eps=config.epsilon,
        weight_decay=config.weight_decay,
        mask=decayed,
    )
    if config.clip_norm is None:
        return adamw
    return optax.chain(optax.clip_by_global_norm(config.clip_norm), adamw)


def decayed(params: Params) -> Params:
    """True where weight decay applies. By name: stacked layers give biases a second axis."""

    def is_decayed(path, _) -> bool:
        return re.search(NOT_DECAYED, str(path[-1].key)) is None

    return jax.tree_util.tree_map_with_path(is_decayed, params)


def clamp_logit_scale(params: Params, most: float) -> Params:
    """The parameters with the logit scale within [1, most], as CLIP clips it after every update."""
    return params | {"logit_scale": jnp.clip(params["logit_scale"], 0.0, jnp.log(most))}
