"""The stack of pre-norm attention blocks that both towers share.

Layers are stacked: each parameter of a block has a leading axis of length `layers`, whichever way the stack is run.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Float

from clip_jax.config import Activation, AttentionKernel, ComputeConfig, TransformerConfig
from clip_jax.models.initializers import BlockInit
from clip_jax.sharding import BATCH_AXES, constrain

ACTIVATIONS: dict[Activation, Callable[[Array], Array]] = {
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "gelu_tanh": lambda x: jax.nn.gelu(x, approximate=True),
}


def layer_norm(width: int, epsilon: float, dtype: jnp.dtype, rngs: nnx.Rngs) -> nnx.LayerNorm:
    """LayerNorm with float32 statistics by the two-pass formula, which agrees with PyTorch's to the last bits."""
    return nnx.LayerNorm(width, epsilon=epsilon, dtype=dtype, use_fast_variance=False, rngs=rngs)


def project(features: Float[Array, "b d"], kernel: nnx.Param | None, bias: nnx.Param | None) -> Float[Array, "b k"]:
    """Features of a tower in the space that both share; as they are where there is no kernel."""
    if kernel is not None:
        features = features @ kernel.astype(features.dtype)
    return features if bias is None else features + bias.astype(features.dtype)[None]


class Attention(nnx.Module):
    """Multi-head self-attention with one fused projection, its rows ordered q, k, v and head-major inside each."""

    def __init__(
        self, config: TransformerConfig, compute: ComputeConfig, causal: bool, init: BlockInit, rngs: nnx.Rngs
    ):
        self.heads = config.heads
        self.causal = causal
        self.kernel: AttentionKernel = compute.attention
        width, dtype = config.width, jnp.dtype(compute.dtype)
        self.qkv = nnx.Linear(width, 3 * width, dtype=dtype, kernel_init=init.qkv, rngs=rngs)
        self.out = nnx.Linear(width, width, dtype=dtype, kernel_init=init.out, rngs=rngs)

    def __call__(self, x: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
        qkv = constrain(self.qkv(x), BATCH_AXES, None, "tensor")
        q, k, v = (rearrange(part, "b n (h e) -> b n h e", h=self.heads) for part in jnp.split(qkv, 3, axis=-1))
        attended = jax.nn.dot_product_attention(q, k, v, is_causal=self.causal, implementation=self.kernel)
        return self.out(rearrange(attended, "b n h e -> b n (h e)"))


class Mlp(nnx.Module):
    """Two linear layers around the activation."""

    def __init__(self, config: TransformerConfig, dtype: jnp.dtype, init: BlockInit, rngs: nnx.Rngs):
        self.activation: Activation = config.activation
        width, hidden = config.width, config.mlp_width
        self.up = nnx.Linear(width, hidden, dtype=dtype, kernel_init=init.up, bias_init=init.up_bias, rngs=rngs)
        self.down = nnx.Linear(hidden, width, dtype=dtype, kernel_init=init.down, bias_init=init.down_bias, rngs=rngs)

    def __call__(self, x: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
        hidden = constrain(self.up(x), BATCH_AXES, None, "tensor")
        return self.down(ACTIVATIONS[self.activation](hidden))


class Block(nnx.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)), each branch times its layer scale where there is one."""

    def __init__(
        self, config: TransformerConfig, compute: ComputeConfig, causal: bool, init: BlockInit, rngs: nnx.Rngs
    ):
        dtype = jnp.dtype(compute.dtype)
        self.norm_1 = layer_norm(config.width, config.norm_epsilon, dtype, rngs)
        self.attention = Attention(config, compute, causal, init, rngs)
        self.norm_2 = layer_norm(config.width, config.norm_epsilon, dtype, rngs)
        self.mlp = Mlp(config, dtype, init, rngs)
        self.scale_1 = _layer_scale(config)
        self.scale_2 = _layer_scale(config)

    def __call__(self, x: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
        x = constrain(x + _scaled(self.attention(self.norm_1(x)), self.scale_1), BATCH_AXES, None, None)
        return constrain(x + _scaled(self.mlp(self.norm_2(x)), self.scale_2), BATCH_AXES, None, None)


def _layer_scale(config: TransformerConfig) -> nnx.Param | None:
    return None if config.layer_scale is None else nnx.Param(jnp.full(config.width, config.layer_scale, jnp.float32))


def _scaled(x: Float[Array, "b n d"], scale: nnx.Param | None) -> Float[Array, "b n d"]:
    return x if scale is None else x * scale.astype(x.dtype)[None, None]


class Transformer(nnx.Module):
    """`layers` blocks with stacked parameters, run by a scan or unrolled."""

    def __init__(
        self, config: TransformerConfig, compute: ComputeConfig, causal: bool, init: BlockInit, rngs: nnx.Rngs
    ):
        self.layers = config.layers
        self.compute = compute

        @nnx.split_rngs(splits=config.layers)
        @nnx.vmap
        def stack(rngs: nnx.Rngs) -> Block:
            return Block(config, compute, causal, init, rngs)

        self.block = stack(rngs)

    def __call__(self, x: Float[Array, "b n d"]) -> tuple[Float[Array, "b n d"], Float[Array, "layers b n d"]]:
        """The output, and the output of every layer (unused ones are dropped by the compiler)."""
        graph, stacked = nnx.split(self.block)
        stacked = nnx.to_pure_dict(stacked)

        def run(x, params):
            x = nnx.merge(graph, params)(x)
            return x, x

        run = rematerialise(run, self.compute.remat)
        if self.compute.layers == "scan":
            return jax.lax.scan(run, x, stacked)
        outputs = []
        for layer in range(self.layers):
            x, _ = run(x, jax.tree.map(lambda leaf, layer=layer: leaf[layer], stacked))
            outputs.append(x)
        return x, jnp.stack(outputs)


def rematerialise(run: Callable, remat: str) -> Callable:
    """`run`, with what ComputeConfig's `remat` says computed again in the backward pass."""
    if remat == "none":
        return run
    # Inside a scan the loop itself keeps the recomputation apart; unrolled, the compiler must be kept from
    # merging it with the forward pass again.
    policies = {"block": None, "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable}
    return jax.checkpoint(run, policy=policies[remat])
