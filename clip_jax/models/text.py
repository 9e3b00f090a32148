"""The causal text transformer of CLIP."""

import jax.numpy as jnp
from flax import nnx
from jax.nn import initializers
from jaxtyping import Array, Float, Int

from clip_jax.config import ComputeConfig, TextConfig
from clip_jax.models.initializers import text_block
from clip_jax.models.transformer import Transformer, layer_norm


class TextTransformer(nnx.Module):
    """Tokens through a causal transformer; the end token's row, normalised and projected.

    The end token has the largest id of the vocabulary, so its row is the argmax of the ids. Padding needs no mask:
    it stands behind the end token, where causality hides it. Source: section 2.4 of the paper; openai/CLIP
    `CLIP.encode_text`.
    """

    def __init__(self, config: TextConfig, embed_dim: int, compute: ComputeConfig, rngs: nnx.Rngs):
        self.dtype = jnp.dtype(compute.dtype)
        stack = config.transformer
        width = stack.width
        self.token_embedding = nnx.Param(
            initializers.normal(0.02)(rngs.params(), (config.vocab_size, width), jnp.float32)
        )
        self.positional_embedding = nnx.Param(
            initializers.normal(0.01)(rngs.params(), (config.context_length, width), jnp.float32)
        )
        self.transformer = Transformer(
            stack, compute, causal=True, init=text_block(width, stack.mlp_width, stack.layers), rngs=rngs
        )
        self.norm_final = layer_norm(width, stack.norm_epsilon, self.dtype, rngs)
        self.projection = nnx.Param(initializers.normal(width**-0.5)(rngs.params(), (width, embed_dim), jnp.float32))

    def __call__(self, tokens: Int[Array, "b n"]) -> tuple[Float[Array, "b k"], dict[str, Array]]:
        """Text embeddings (not normalised) and named intermediates: every layer's output, pre-projection features."""
        x = jnp.take(self.token_embedding[...], tokens, axis=0) + self.positional_embedding[...][None]
        x, layers = self.transformer(x.astype(self.dtype))
        end = jnp.argmax(tokens, axis=-1)
        # Normalising the pooled row alone gives what normalising every row and pooling would.
        pooled = jnp.take_along_axis(x, end[:, None, None], axis=1)[:, 0]
        features = self.norm_final(pooled)
        embedding = features @ self.projection.astype(self.dtype)
        return embedding, {"layers": layers, "pre_projection": features}
