"""Batch normalisation as a pure function: the running statistics are parameters, and new ones a result."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.nn import initializers
from jax.nn.initializers import Initializer
from jaxtyping import Array, Float

EPSILON = 1e-5
MOMENTUM = 0.1

Statistics = dict[str, Array]
"""{'mean': [c], 'variance': [c]}, both float32."""


class BatchNorm(nnx.Module):
    """Each channel less its mean and over its deviation, then a learnt gain and bias; float32 inside.

    Source: PyTorch's nn.BatchNorm2d, whose running variance is the unbiased one.
    """

    def __init__(self, channels: int, rngs: nnx.Rngs, scale_init: Initializer = initializers.ones):
        self.scale = nnx.Param(scale_init(rngs.params(), (channels,), jnp.float32))
        self.bias = nnx.Param(jnp.zeros(channels))
        self.mean = nnx.Param(jnp.zeros(channels))
        self.variance = nnx.Param(jnp.ones(channels))

    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> tuple[Float[Array, "b h w c"], Statistics]:
        """`x` normalised, in training by the whole batch's own statistics, and the running statistics from now on."""
        values = x.astype(jnp.float32)
        mean, variance = (jax.lax.stop_gradient(leaf.astype(jnp.float32)) for leaf in (self.mean, self.variance))
        running = {"mean": mean, "variance": variance}
        if train:
            mean, variance = values.mean(axis=(0, 1, 2)), values.var(axis=(0, 1, 2))
            count = x.size // x.shape[-1]
            batch = {"mean": mean, "variance": variance * (count / max(count - 1, 1))}
            running = {
                name: jax.lax.stop_gradient((1 - MOMENTUM) * running[name] + MOMENTUM * batch[name]) for name in running
            }
        gain = self.scale.astype(jnp.float32) * jax.lax.rsqrt(variance + EPSILON)
        mean, gain, bias = (leaf[None, None, None] for leaf in (mean, gain, self.bias.astype(jnp.float32)))
        return ((values - mean) * gain + bias).astype(x.dtype), running
