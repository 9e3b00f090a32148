"""The vision transformer of CLIP."""

import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jax.nn import initializers
from jaxtyping import Array, Float

from clip_jax.config import ComputeConfig, VisionConfig
from clip_jax.models.initializers import torch_linear, vision_block
from clip_jax.models.transformer import Transformer, layer_norm


class VisionTransformer(nnx.Module):
    """Patches and a class token through a transformer; the class token's row, normalised and projected.

    Source: section 2.4 of the paper; openai/CLIP `VisionTransformer`, which normalises once before the first block.
    """

    def __init__(self, config: VisionConfig, embed_dim: int, compute: ComputeConfig, rngs: nnx.Rngs):
        self.patch_size = config.patch_size
        self.dtype = jnp.dtype(compute.dtype)
        stack = config.transformer
        width, epsilon = stack.width, stack.norm_epsilon
        scaled_normal = initializers.normal(width**-0.5)
        # A convolution whose stride is its size is a matrix product over flattened patches, which is also faster.
        self.patch_embedding = nnx.Linear(
            3 * config.patch_size**2, width, use_bias=False, dtype=self.dtype, kernel_init=torch_linear, rngs=rngs
        )
        self.class_embedding = nnx.Param(scaled_normal(rngs.params(), (width,), jnp.float32))
        self.positional_embedding = nnx.Param(scaled_normal(rngs.params(), (config.patches + 1, width), jnp.float32))
        self.norm_pre = layer_norm(width, epsilon, self.dtype, rngs)
        self.transformer = Transformer(
            stack, compute, causal=False, init=vision_block(width, stack.mlp_width), rngs=rngs
        )
        self.norm_post = layer_norm(width, epsilon, self.dtype, rngs)
        self.projection = nnx.Param(scaled_normal(rngs.params(), (width, embed_dim), jnp.float32))

    def __call__(self, pixels: Float[Array, "b size size 3"]) -> tuple[Float[Array, "b k"], dict[str, Array]]:
        """Image embeddings (not normalised) and named intermediates: every layer's output, pre-projection features."""
        patches = rearrange(
            pixels.astype(self.dtype), "b (h p) (w q) c -> b (h w) (p q c)", p=self.patch_size, q=self.patch_size
        )
        tokens = self.patch_embedding(patches)
        class_token = jnp.broadcast_to(self.class_embedding.astype(self.dtype), (len(tokens), 1, tokens.shape[-1]))
        tokens = jnp.concatenate([class_token, tokens], axis=1) + self.positional_embedding.astype(self.dtype)[None]
        tokens, layers = self.transformer(self.norm_pre(tokens))
        features = self.norm_post(tokens[:, 0])
        embedding = features @ self.projection.astype(self.dtype)
        return embedding, {"layers": layers, "pre_projection": features}
