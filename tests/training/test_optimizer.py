"""The optimizer against a textbook AdamW in float64, and what decays."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from clip_jax.models.two_tower import init_params
from clip_jax.training.config import OptimizerConfig
from clip_jax.training.optimizer import clamp_logit_scale, decayed, make_optimizer, make_schedule
from clip_jax.weights.tree import flatten


def test_weights_decay_and_gains_and_biases_do_not(toy_config):
    shapes = jax.eval_shape(lambda: init_params(toy_config, jax.random.key(0)))
    mask = flatten(decayed(shapes))
    for name, decays in mask.items():
        last = name.split("/")[-1]
        gain_or_bias = last in ("scale", "bias", "logit_scale", "class_embedding")
        assert decays is not gain_or_bias, name
    assert (
        sum(mask.values()) == 2 * 4 + 1 + 2 * 2 + 1
    )  # kernels of both stacks, patches, projections, positions, tokens


def test_updates_are_those_of_the_textbook():
    """Loshchilov and Hutter 2019, algorithm 2, in float64, on gradients clipped to a global norm."""
    rng = np.random.default_rng(0)
    start = {"kernel": rng.normal(size=(5, 4)), "bias": rng.normal(size=4)}
    gradients = [{name: rng.normal(size=value.shape) * 3 for name, value in start.items()} for _ in range(6)]
    config = OptimizerConfig(learning_rate=0.01, warmup=2, weight_decay=0.3, clip_norm=1.5)

    params: Any = jax.tree.map(jnp.float32, start)
    optimizer = make_optimizer(config, steps=6)
    state = optimizer.init(params)
    for gradient in gradients:
        updates, state = optimizer.update(jax.tree.map(jnp.float32, gradient), state, params)
        params = optax.apply_updates(params, updates)

    expected = {name: value.copy() for name, value in start.items()}
    first, second = ({name: np.zeros_like(value) for name, value in start.items()} for _ in range(2))
    for step, gradient in enumerate(gradients):
        # The schedule in words: half the rate, all of it, then half a cosine over the 4 updates that are left.
        rate = 0.01 * ((step + 1) / 2 if step < 2 else (1 + np.cos(np.pi * (step - 2) / 4)) / 2)
        norm = np.sqrt(sum((g**2).sum() for g in gradient.values()))
        for name, value in expected.items():
            g = gradient[name] * min(1, 1.5 / norm)
            first[name] = 0.9 * first[name] + 0.1 * g
            second[name] = 0.98 * second[name] + 0.02 * g**2
            direction = (
                first[name] / (1 - 0.9 ** (step + 1)) / (np.sqrt(second[name] / (1 - 0.98 ** (step + 1))) + 1e-6)
            )
            value -= rate * (direction + (0.3 * value if name == "kernel" else 0))
    for name, value in expected.items():
        np.testing.assert_allclose(params[name], value, rtol=2e-5, atol=1e-6)


def test_the_schedule_ends_at_zero_and_peaks_after_warmup():
    schedule = make_schedule(OptimizerConfig(learning_rate=1.0, warmup=0.1), 100)
    rates = np.array([schedule(step) for step in range(101)])
    assert rates[0] == pytest.approx(0.1)
    assert rates[4] == pytest.approx(0.5)
    assert rates.argmax() in (9, 10)
    assert rates[9] == rates[10] == pytest.approx(1.0)
    assert rates[55] == pytest.approx(0.5)
    assert rates[100] == pytest.approx(0.0, abs=1e-7)


@pytest.mark.parametrize(("before", "after"), [(-1.0, 0.0), (2.0, 2.0), (9.0, np.log(100))])
def test_the_logit_scale_stays_between_1_and_100(before, after):
    assert clamp_logit_scale({"logit_scale": jnp.float32(before)}, 100.0)["logit_scale"] == pytest.approx(after)
