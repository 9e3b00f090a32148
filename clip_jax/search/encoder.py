"""A model's towers on every local device, in batches of one size whose results are fetched later."""

from collections.abc import Callable
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float32, Int32

from clip_jax.clip import Clip
from clip_jax.config import ClipConfig, ComputeConfig
from clip_jax.models.text import without_padding
from clip_jax.models.two_tower import Params
from clip_jax.sharding import MeshConfig, batch_sharding, make_mesh


class Encoder:
    """Embeddings of `clip`, of length one where `normalized`; every batch is filled up to `batch_size` rows.

    That is rounded up to what the devices divide. All batches have one shape, so nothing is compiled twice, and a row
    is computed by the same program wherever it comes.
    """

    def __init__(self, clip: Clip, batch_size: int, normalized: bool) -> None:
        mesh = make_mesh(MeshConfig(), jax.local_devices())
        self._sharding = batch_sharding(mesh)
        self._params = jax.device_put(clip.params, NamedSharding(mesh, P()))
        self.config, self.tokenize = clip.config, clip.tokenize
        self.width = clip.config.embed_dim
        self.batch_size = -(-batch_size // self._sharding.num_devices) * self._sharding.num_devices
        self._image, self._text = _programs(clip.config, clip.compute, normalized)

    def image(self, pixels: Float32[np.ndarray, "b size size 3"]) -> Float32[Array, "batch k"]:
        """Embeddings of preprocessed images, then rows of no meaning; on the device, perhaps not there yet."""
        return self._image(self._params, self._placed(pixels))

    def text(self, tokens: Int32[np.ndarray, "b context"]) -> Float32[Array, "batch k"]:
        """The same of tokens."""
        return self._text(self._params, self._placed(without_padding(self.config.text, tokens)))

    def _placed(self, rows: np.ndarray) -> Array:
        filling = np.zeros((self.batch_size - len(rows), *rows.shape[1:]), rows.dtype)
        return jax.device_put(np.concatenate([rows, filling]) if len(filling) else rows, self._sharding)


@lru_cache(maxsize=8)
def _programs(config: ClipConfig, compute: ComputeConfig, normalized: bool) -> tuple[Callable[..., Array], ...]:
    """Both towers, compiled once for all models of a kind."""

    def program(apply: Callable[..., Array]) -> Callable[..., Array]:
        def embed(params: Params, inputs: Array) -> Array:
            found = apply(params, inputs).astype(jnp.float32)
            return found / jnp.linalg.norm(found, axis=-1, keepdims=True) if normalized else found

        return jax.jit(embed)

    clip = Clip(config, {}, compute)
    return program(clip.apply_image), program(clip.apply_text)
