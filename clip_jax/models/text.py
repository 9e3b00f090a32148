"""The text transformer of CLIP and SigLIP."""

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.nn import initializers
from jax.nn.initializers import Initializer
from jaxtyping import Array, Float, Int, Int32

from clip_jax.config import ComputeConfig, TextConfig
from clip_jax.models.initializers import text_block
from clip_jax.models.transformer import Transformer, layer_norm, project
from clip_jax.sharding import BATCH_AXES, constrain

SHORTEST = 16  # tokens; programs are compiled for multiples of it


class TextTransformer(nnx.Module):
    """Tokens through a transformer; one row, by default the end token's, normalised and projected.

    Padding has no mask. Behind CLIP's end token causality hides it; SigLIP, which is not causal, is trained on texts
    padded to the full length and attends to the padding. Source: section 2.4 of the paper; openai/CLIP
    `CLIP.encode_text`; open_clip `TextTransformer`.
    """

    def __init__(self, config: TextConfig, embed_dim: int, compute: ComputeConfig, rngs: nnx.Rngs):
        self.config = config
        self.dtype = jnp.dtype(compute.dtype)
        stack = config.transformer
        width = stack.width

        def param(initializer: Initializer, *shape: int) -> nnx.Param:
            return nnx.Param(initializer(rngs.params(), shape, jnp.float32))

        self.token_embedding = param(initializers.normal(0.02), config.vocab_size, width)
        self.positional_embedding = param(initializers.normal(0.01), config.context_length, width)
        self.transformer = Transformer(
            stack, compute, causal=config.causal, init=text_block(width, stack.mlp_width, stack.layers), rngs=rngs
        )
        self.norm_final = layer_norm(width, stack.norm_epsilon, self.dtype, rngs)
        projection = initializers.normal(width**-0.5)
        self.projection = param(projection, width, embed_dim) if config.projection != "none" else None
        self.projection_bias = param(initializers.zeros, embed_dim) if config.projection == "bias" else None

    def __call__(self, tokens: Int[Array, "b n"]) -> tuple[Float[Array, "b k"], dict[str, Array]]:
        """Text embeddings (not normalised), and named intermediates: every layer's output, pre-projection features.

        `n` may be less than the context length.
        """
        # Each device looks words up in the columns of the table that it has; then each gets its texts' rows whole.
        words = constrain(jnp.take(self.token_embedding[...], tokens, axis=0), "data", None, "fsdp")
        x = constrain(words, BATCH_AXES, None, None) + self.positional_embedding[: tokens.shape[1]][None]
        x, layers = self.transformer(x.astype(self.dtype))
        # Normalising the pooled row alone gives what normalising every row and pooling would.
        pooled = jnp.take_along_axis(x, self._pooled_row(tokens)[:, None, None], axis=1)[:, 0]
        features = self.norm_final(pooled)
        return project(features, self.projection, self.projection_bias), {"layers": layers, "pre_projection": features}

    def _pooled_row(self, tokens: Int[Array, "b n"]) -> Int[Array, " b"]:
        match self.config.pooling:
            case "argmax":
                return jnp.argmax(tokens, axis=-1)
            case "end_token":  # the first; row 0 of a text that has none
                return jnp.argmax(tokens == self.config.end_token_id, axis=-1)
            case "last":
                return jnp.full(len(tokens), tokens.shape[1] - 1)


def without_padding(config: TextConfig, tokens: Int32[np.ndarray, "b context"]) -> Int32[np.ndarray, "b n"]:
    """The tokens up to the last row that counts, to a multiple of 16: what is behind it cannot reach an embedding.

    Where a text tower is not causal, or takes the last row, that is all of them.
    """
    if not config.causal or config.pooling == "last":
        return tokens
    ends = tokens if config.pooling == "argmax" else tokens == config.end_token_id
    needed = int(ends.argmax(axis=1).max(initial=0)) + 1
    return tokens[:, : -(-needed // SHORTEST) * SHORTEST]
