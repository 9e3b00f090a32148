"""Health figures against NumPy."""

import jax.numpy as jnp
import numpy as np
import pytest

from clip_jax.training.health import health


@pytest.mark.parametrize("batch", [24, 200])
def test_figures(batch):
    rng = np.random.default_rng(0)
    image, text = rng.standard_normal((2, batch, 16)).astype(np.float32)
    text += image
    image, text = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (image, text))
    tokens = rng.integers(0, 1000, (batch, 7)).astype(np.int32)
    tokens[5] = tokens[-1] = tokens[9]
    tokens[11, :6] = tokens[12, :6]  # nearly the same is not the same
    found = health(jnp.asarray(image), jnp.asarray(text), jnp.asarray(tokens), jnp.float32(10), jnp.float32(-2))
    count = min(batch, 128)
    logits = 10 * image[:count] @ text[:count].T - 2
    positives, negatives = np.diagonal(logits), logits[~np.eye(count, dtype=bool)]
    for p in (5, 50, 95):
        assert found[f"health/positive_p{p}"] == pytest.approx(np.percentile(positives, p), rel=1e-4, abs=1e-4)
        assert found[f"health/negative_p{p}"] == pytest.approx(np.percentile(negatives, p), rel=1e-4, abs=1e-4)
    assert found["health/image_top1"] == pytest.approx(np.mean(logits.argmax(1) == np.arange(count)))
    assert found["health/text_top1"] == pytest.approx(np.mean(logits.argmax(0) == np.arange(count)))
    assert found["health/repeated_captions"] == pytest.approx(3 / batch)
