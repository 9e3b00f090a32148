"""One update against PyTorch, and the same update on every mesh."""

from dataclasses import replace
from typing import Any

import jax
import numpy as np
import pytest
from support.updates import CONFIG, first_state, run

from clip_jax.config import ResNetConfig
from clip_jax.models.two_tower import init_params
from clip_jax.sharding import MeshConfig, make_mesh
from clip_jax.training.config import ModelConfig
from clip_jax.training.optimizer import make_optimizer
from clip_jax.training.step import make_step, normalise_pixels
from clip_jax.weights.tree import flatten


@pytest.fixture(scope="module")
def on_one_device(toy_config):
    return run(CONFIG, toy_config, MeshConfig(), devices=1)


def test_a_mesh_makes_the_same_updates(toy_config, on_one_device):
    params, figures = run(CONFIG, toy_config, MeshConfig(2, 2, 2), devices=8)
    expected_params, expected = on_one_device
    for here, there in zip(figures, expected, strict=True):
        # A logit near zero is a difference of terms as large as the logit scale, 14 here.
        assert here == pytest.approx(there, rel=1e-5, abs=1e-5)
    for name, leaf in flatten(params).items():
        # Adam divides by the gradient's size, which makes much of float32's rounding where a gradient is nearly zero.
        np.testing.assert_allclose(leaf, flatten(expected_params)[name], atol=2e-4, err_msg=name)


@pytest.fixture(scope="module")
def resnet_config(toy_config):
    return replace(toy_config, vision=ResNetConfig(64, layers=(1, 1, 1, 1), width=4, heads=4))


@pytest.mark.slow
def test_statistics_of_an_update_are_pytorchs(resnet_config):
    """Those of the first batch norm, which only a convolution of the pixels decides; no decay, no AdamW."""
    torch = pytest.importorskip("torch")
    params, _ = run(CONFIG, resnet_config, MeshConfig(), devices=1, updates=1)
    first = jax.jit(lambda: init_params(resnet_config, jax.random.key(0))["visual"]["stem"]["conv_1"]["kernel"])()
    pixels = np.random.default_rng(0).integers(0, 256, (16, 64, 64, 3), dtype=np.uint8)
    images = torch.tensor(np.asarray(normalise_pixels(jax.numpy.asarray(pixels), resnet_config.preprocess)))
    kernel = torch.tensor(np.asarray(first)).permute(3, 2, 0, 1)
    norm = torch.nn.BatchNorm2d(2).train()
    norm(torch.nn.functional.conv2d(images.permute(0, 3, 1, 2), kernel, stride=2, padding=1))
    ours = params["visual"]["stem"]["norm_1"]
    np.testing.assert_allclose(ours["mean"], norm.running_mean, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(ours["variance"], norm.running_var, rtol=1e-5)


@pytest.mark.slow
def test_statistics_are_the_whole_batchs_on_a_mesh(resnet_config):
    params, figures = run(CONFIG, resnet_config, MeshConfig(2, 2, 2), devices=8, updates=1)
    expected_params, expected = run(CONFIG, resnet_config, MeshConfig(), devices=1, updates=1)
    assert figures == [pytest.approx(expected[0], rel=1e-4)]
    for name, leaf in flatten(params).items():
        if name.endswith(("mean", "variance")):
            np.testing.assert_allclose(leaf, flatten(expected_params)[name], rtol=1e-5, atol=1e-6, err_msg=name)


def test_what_has_no_gradient_stays():
    """AdamW moves a kernel even where its gradient is zero, which is weight decay, but no gain and no statistic."""
    names = ("kernel", "probe", "scale", "bias", "mean", "variance", "scale_1", "scale_2", "projection_bias")
    params = {name: np.ones((2, 3), np.float32) for name in names}
    optimizer = make_optimizer(CONFIG.optimizer, CONFIG.steps)
    zeros = {name: np.zeros((2, 3), np.float32) for name in names}
    updates: Any = optimizer.update(zeros, optimizer.init(params), params)[0]
    assert {name for name in names if np.any(updates[name])} == {"kernel", "probe"}


@pytest.mark.parametrize(("layers", "remat"), [("scan", "block"), ("unroll", "dots")])
def test_how_layers_are_run_changes_nothing(toy_config, on_one_device, layers, remat):
    config = replace(CONFIG, model=ModelConfig(dtype="float32", layers=layers, remat=remat))
    _, figures = run(config, toy_config, MeshConfig(), devices=1)
    for here, there in zip(figures, on_one_device[1], strict=True):
        assert here == pytest.approx(there, rel=1e-5)


def test_training_learns_by_heart(toy_config):
    """The loss of a batch that is repeated goes well below that of guessing, log(16)."""
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    config = replace(CONFIG, steps=60)
    optimizer = make_optimizer(config.optimizer, config.steps)
    state, shardings = first_state(toy_config, optimizer, mesh)
    step = make_step(config, toy_config, optimizer, mesh, shardings)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (16, 16, 16, 3), dtype=np.uint8)
    tokens = rng.integers(1, 700, (16, 12)).astype(np.int32)
    losses = []
    for _ in range(60):
        state, metrics = step(state, pixels, tokens)
        losses.append(float(metrics["loss"]))
    assert losses[0] > 2
    assert losses[-1] < 0.3


def test_pixels_are_normalised_as_in_preprocessing(toy_config):
    from clip_jax.inputs.preprocess import normalise

    pixels = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
    np.testing.assert_allclose(
        normalise_pixels(jax.numpy.asarray(pixels), toy_config.preprocess),
        normalise(pixels, toy_config.preprocess),
        rtol=1e-6,
        atol=1e-6,
    )
