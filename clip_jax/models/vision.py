"""The vision transformer of CLIP, CLIPA and SigLIP."""

import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jax.nn.initializers import Initializer
from jaxtyping import Array, Float, Int

from clip_jax.config import ComputeConfig, VisionConfig
from clip_jax.models.initializers import clip_vision, siglip_vision, torch_bias, torch_linear
from clip_jax.models.pooling import MapPool
from clip_jax.models.transformer import Transformer, layer_norm, project


class VisionTransformer(nnx.Module):
    """Patches, and a class token before them, through a transformer; then pooled, normalised and projected.

    Source: section 2.4 of the paper; openai/CLIP and open_clip `VisionTransformer`; for SigLIP timm's.
    """

    def __init__(self, config: VisionConfig, embed_dim: int, compute: ComputeConfig, rngs: nnx.Rngs):
        self.config = config
        self.dtype = jnp.dtype(compute.dtype)
        stack = config.transformer
        width, epsilon = stack.width, stack.norm_epsilon
        init = siglip_vision(width) if config.pooling == "map" else clip_vision(width, stack.mlp_width)

        def param(initializer: Initializer, *shape: int) -> nnx.Param:
            return nnx.Param(initializer(rngs.params(), shape, jnp.float32))

        # A convolution whose stride is its size is a matrix product over flattened patches, which is also faster.
        pixels = 3 * config.patch_size**2
        self.patch_embedding = nnx.Linear(
            pixels,
            width,
            use_bias=config.patch_bias,
            dtype=self.dtype,
            kernel_init=torch_linear,
            bias_init=torch_bias(pixels),
            rngs=rngs,
        )
        tokens = config.patches + config.class_token
        self.class_embedding = param(init.class_embedding, width) if config.class_token else None
        self.positional_embedding = param(init.positional_embedding, tokens, width)
        self.norm_pre = layer_norm(width, epsilon, self.dtype, rngs) if config.norm_pre else None
        self.transformer = Transformer(stack, compute, causal=False, init=init.block, rngs=rngs)
        self.norm_post = layer_norm(width, epsilon, self.dtype, rngs)
        self.pool = MapPool(stack, self.dtype, init.block, rngs) if config.pooling == "map" else None
        self.projection = param(init.projection, width, embed_dim) if config.projection != "none" else None
        self.projection_bias = param(init.projection_bias, embed_dim) if config.projection == "bias" else None

    def __call__(
        self, pixels: Float[Array, "b size size 3"], kept: Int[Array, "b kept"] | None = None
    ) -> tuple[Float[Array, "b k"], dict[str, Array]]:
        """Image embeddings (not normalised) and named intermediates: every layer's output, pre-projection features.

        With `kept`, the numbers of those patches of each image that the tower is to see, as in FLIP (section 3 of Li
        et al. 2023, arXiv 2212.00794).
        """
        patches, positions = self._patches(pixels), self.positional_embedding.astype(self.dtype)
        first = int(self.config.class_token)
        positions, class_position = positions[None, first:], positions[None, :first]
        if kept is not None:
            patches = jnp.take_along_axis(patches, kept[..., None], axis=1)
            positions = jnp.take(positions[0], kept, axis=0)
        tokens = self.patch_embedding(patches) + positions
        if self.class_embedding is not None:
            class_token = self.class_embedding.astype(self.dtype)[None, None] + class_position
            class_token = jnp.broadcast_to(class_token, (len(tokens), 1, tokens.shape[-1]))
            tokens = jnp.concatenate([class_token, tokens], axis=1)
        if self.norm_pre is not None:
            tokens = self.norm_pre(tokens)
        tokens, layers = self.transformer(tokens)
        features = self._pooled(tokens)
        return project(features, self.projection, self.projection_bias), {"layers": layers, "pre_projection": features}

    def _patches(self, pixels: Float[Array, "b size size 3"]) -> Float[Array, "b n d"]:
        size = self.config.patch_size
        whole = self.config.grid * size
        pixels = pixels[:, :whole, :whole].astype(self.dtype)
        return rearrange(pixels, "b (h p) (w q) c -> b (h w) (p q c)", p=size, q=size)

    def _pooled(self, tokens: Float[Array, "b n d"]) -> Float[Array, "b d"]:
        if self.pool is not None:
            return self.pool(self.norm_post(tokens))
        if self.config.pooling == "class_token":
            return self.norm_post(tokens[:, 0])
        return self.norm_post(tokens[:, int(self.config.class_token) :].mean(axis=1))
