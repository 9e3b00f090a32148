"""Attention pooling: one query gathers a whole image, CLIP's ResNet's way and SigLIP's."""

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jax.nn import initializers
from jaxtyping import Array, Float

from clip_jax.config import ResNetConfig, TransformerConfig
from clip_jax.models.initializers import BlockInit, siglip_probe, torch_bias
from clip_jax.models.transformer import Mlp, layer_norm
from clip_jax.sharding import BATCH_AXES, constrain


class AttentionPool(nnx.Module):
    """The mean of a feature map asks, the mean and every position answer; all with learnt positions.

    Only the mean's row of the attention is computed, as the others are dropped. Source: openai/CLIP `AttentionPool2d`.
    """

    def __init__(self, config: ResNetConfig, embed_dim: int, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.heads = config.heads
        self.dtype = dtype
        width = config.pool_width
        normal, bias = initializers.normal(width**-0.5), torch_bias(width)
        self.positional_embedding = nnx.Param(normal(rngs.params(), (config.grid**2 + 1, width), jnp.float32))
        self.qkv = nnx.Linear(width, 3 * width, dtype=dtype, kernel_init=normal, bias_init=bias, rngs=rngs)
        self.out = nnx.Linear(width, embed_dim, dtype=dtype, kernel_init=normal, bias_init=bias, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w d"]) -> tuple[Float[Array, "b k"], Float[Array, "b d"]]:
        """The embedding, and what attention gathered before the output layer made it that."""
        tokens = rearrange(x, "b h w d -> b (h w) d")
        tokens = jnp.concatenate([tokens.mean(axis=1, keepdims=True), tokens], axis=1)
        tokens = tokens + self.positional_embedding.astype(self.dtype)[None]
        gathered = _attend(tokens[:, 0], tokens, self.qkv, self.heads)
        return self.out(gathered), gathered


class MapPool(nnx.Module):
    """Multi-head attention pooling: a learnt probe attends to every token, then an MLP with its residual.

    Source: big_vision `MAPHead`, timm `AttentionPoolLatent`.
    """

    def __init__(self, config: TransformerConfig, dtype: jnp.dtype, init: BlockInit, rngs: nnx.Rngs):
        self.heads = config.heads
        self.dtype = dtype
        width = config.width
        self.probe = nnx.Param(siglip_probe(width)(rngs.params(), (width,), jnp.float32))
        self.qkv = nnx.Linear(width, 3 * width, dtype=dtype, kernel_init=init.qkv, rngs=rngs)
        self.out = nnx.Linear(width, width, dtype=dtype, kernel_init=init.out, rngs=rngs)
        self.norm = layer_norm(width, config.norm_epsilon, dtype, rngs)
        self.mlp = Mlp(config, dtype, init, rngs)

    def __call__(self, tokens: Float[Array, "b n d"]) -> Float[Array, "b d"]:
        probe = jnp.broadcast_to(self.probe.astype(self.dtype), (len(tokens), tokens.shape[-1]))
        x = self.out(_attend(probe, tokens, self.qkv, self.heads))[:, None]
        return (x + self.mlp(self.norm(x)))[:, 0]


def _attend(
    query: Float[Array, "b d"], tokens: Float[Array, "b n d"], qkv: nnx.Linear, heads: int
) -> Float[Array, "b d"]:
    """What one query gathers from the tokens. A third of the fused projection is the query's, the rest the tokens'."""
    width = tokens.shape[-1]
    kernel, bias = (leaf.astype(tokens.dtype) for leaf in (qkv.kernel, qkv.bias))  # pyright: ignore[reportOptionalMemberAccess]
    q = query @ kernel[:, :width] + bias[None, :width]
    kv = constrain(tokens @ kernel[:, width:] + bias[None, None, width:], BATCH_AXES, None, "tensor")
    k, v = (rearrange(part, "b n (h e) -> b n h e", h=heads) for part in jnp.split(kv, 2, axis=-1))
    gathered = jax.nn.dot_product_attention(rearrange(q, "b (h e) -> b 1 h e", h=heads), k, v)
    return rearrange(gathered, "b 1 h e -> b (h e)")
