"""Patches left out, against a tower that is given the others alone by other means."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clip_jax.config import ComputeConfig
from clip_jax.models.two_tower import image_embedding, init_params


@pytest.mark.parametrize(
    "variant",
    [pytest.param("class_token", marks=pytest.mark.slow), "mean", pytest.param("map", marks=pytest.mark.slow)],
)
def test_only_kept_patches_matter(toy_config, variant):
    options = {} if variant == "class_token" else {"pooling": variant, "class_token": False}
    config = replace(toy_config, vision=replace(toy_config.vision, image_size=32, **options))  # 16 patches
    params = jax.jit(lambda: init_params(config, jax.random.key(0)))()
    rng = np.random.default_rng(0)
    pixels = rng.standard_normal((3, 32, 32, 3)).astype(np.float32)
    kept = np.stack([rng.permutation(16)[:6] for _ in range(3)]).astype(np.int32)
    embed = jax.jit(lambda pixels, kept: image_embedding(params, pixels, config, ComputeConfig(), kept=kept)[0])
    found = embed(jnp.asarray(pixels), jnp.asarray(kept))

    other = pixels.copy()  # all pixels outside of the kept patches are other ones
    for image, numbers in enumerate(kept):
        for patch in set(range(16)) - set(numbers.tolist()):
            row, column = divmod(patch, 4)
            other[image, row * 8 : row * 8 + 8, column * 8 : column * 8 + 8] = rng.standard_normal((8, 8, 3))
    np.testing.assert_allclose(embed(jnp.asarray(other), jnp.asarray(kept)), found, rtol=0, atol=1e-6)
    # The order of patches does not matter, as each brings its own position; which they are does.
    np.testing.assert_allclose(embed(jnp.asarray(pixels), jnp.asarray(kept[:, ::-1])), found, rtol=1e-4, atol=1e-5)
    assert np.abs(embed(jnp.asarray(pixels), jnp.asarray((kept + 1) % 16)) - found).max() > 1e-3
    # All of them are the same as none left out.
    everything = np.tile(np.arange(16, dtype=np.int32), (3, 1))
    whole = image_embedding(params, jnp.asarray(pixels), config, ComputeConfig())[0]
    np.testing.assert_allclose(embed(jnp.asarray(pixels), jnp.asarray(everything)), whole, rtol=1e-4, atol=1e-5)
