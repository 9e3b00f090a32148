"""AdamW as CLIP was trained: warmup and cosine, decay on weights only, a bound on the temperature."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import optax

from clip_jax.models.two_tower import Params
from clip_jax.training.config import OptimizerConfig
from clip_jax.training.learning_rates import is_trained, scale_by_factors
from clip_jax.training.share import in_steps
from clip_jax.training.spikes import skip_spikes

# "All weights that are not gains or biases" (appendix F of the paper); the class token is left out, as in open_clip.
# Batch norm's statistics have no gradients either, so that AdamW leaves them as they are.
NOT_DECAYED = r"(scale(_[12])?|bias|class_embedding|mean|variance)$"


def make_schedule(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """The learning rate of each update: linear over the warmup, then half a cosine down to 0 at `steps`.

    The first update has 1 / warmup of the full rate, not 0 of it, as in open_clip.
    """
    warmup = min(in_steps(config.warmup, steps), max(steps - 1, 0))
    peak = config.learning_rate
    cosine = optax.cosine_decay_schedule(peak, max(steps - warmup, 1))
    if warmup == 0:
        return cosine
    return optax.join_schedules([lambda step: peak * (step + 1) / warmup, cosine], [warmup])


def make_optimizer(config: OptimizerConfig, steps: int) -> optax.GradientTransformation:
    """AdamW, and around it what the config asks for. What is frozen gets no state, and must get no gradient.

    The learning rate comes last: it goes down by the steps of the run, also where an update is left out.
    """
    optimizer = optax.chain(
        optax.scale_by_adam(config.b1, config.b2, config.epsilon, mu_dtype=config.moment_dtype),
        optax.add_decayed_weights(config.weight_decay, decayed),
    )
    if config.clip_norm is not None:
        optimizer = optax.chain(optax.clip_by_global_norm(config.clip_norm), optimizer)
    if config.frozen is not None:
        optimizer = optax.masked(optimizer, partial(is_trained, frozen=config.frozen))
    if config.factors or config.layer_decay != 1:
        optimizer = optax.chain(optimizer, scale_by_factors(config.factors, config.layer_decay))
    if config.skip_above is not None:
        optimizer = skip_spikes(optimizer, config.skip_above)
    return optax.chain(optimizer, optax.scale_by_learning_rate(make_schedule(config, steps)))


def decayed(params: Params) -> Params:
    """True where weight decay applies. By name: stacked layers give biases a second axis."""

    def is_decayed(path, _) -> bool:
        return re.search(NOT_DECAYED, str(path[-1].key)) is None

    return jax.tree_util.tree_map_with_path(is_decayed, params)


def clamp_logit_scale(params: Params, most: float | None) -> Params:
    """The parameters with the logit scale within [1, most], as CLIP clips it after every update; none is no bound."""
    if most is None:
        return params
    return params | {"logit_scale": jnp.clip(params["logit_scale"], 0.0, jnp.log(most))}
