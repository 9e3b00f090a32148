"""Batches in parts: the same loss and gradients as whole, and a mesh and a batch that do not go together."""

from dataclasses import replace
from functools import lru_cache

import jax
import numpy as np
import optax
import pytest
from support.updates import first_state

from clip_jax.config import ResNetConfig
from clip_jax.errors import UserError
from clip_jax.losses import Kind
from clip_jax.sharding import MeshConfig, make_mesh
from clip_jax.training.config import DataConfig, LossConfig, ModelConfig, TrainConfig
from clip_jax.training.model import check_mesh, training_model
from clip_jax.training.step import make_step
from clip_jax.weights.tree import flatten

CONFIG = TrainConfig(
    data=DataConfig("scenes:train"), steps=10, batch_size=64, model=ModelConfig("tiny", "float32", "scan")
)
# Keeps the gradients where the moments would be, and moves nothing.
KEEP_GRADIENTS = optax.GradientTransformation(
    lambda params: jax.tree.map(jax.numpy.zeros_like, params),
    lambda gradients, state, params: (jax.tree.map(jax.numpy.zeros_like, gradients), gradients),  # pyright: ignore[reportArgumentType]
)


@lru_cache
def loss_and_gradients(model, loss: LossConfig, sizes: tuple[int, int, int], parts: int) -> tuple[float, dict]:
    config = replace(CONFIG, loss=loss, microbatches=parts)
    mesh = make_mesh(MeshConfig(*sizes), jax.devices()[: int(np.prod(sizes))])
    state, shardings = first_state(model, KEEP_GRADIENTS, mesh)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (64, 16, 16, 3), dtype=np.uint8)
    tokens = rng.integers(1, 699, (64, 12)).astype(np.int32)
    tokens[np.arange(64), rng.integers(3, 12, 64)] = 699
    state, metrics = make_step(config, model, KEEP_GRADIENTS, mesh, shardings)(state, pixels, tokens)
    return float(metrics["loss"]), jax.tree.map(np.asarray, flatten(state["opt_state"]))


@pytest.fixture(scope="module")
def models(toy_config):
    siglip = replace(toy_config, initial_logit_scale=np.log(10).item(), initial_logit_bias=-10.0)
    return {"softmax": toy_config, "sigmoid": siglip}


slow = pytest.mark.slow


@pytest.mark.parametrize(
    ("method", "sizes", "parts"),
    [
        pytest.param("gather", (1, 1, 1), 2, marks=slow),
        ("ring", (2, 2, 2), 8),
        pytest.param("gather", (8, 1, 1), 8, marks=slow),
        pytest.param("gather", (2, 2, 2), 2, marks=slow),
        pytest.param("ring", (8, 1, 1), 2, marks=slow),
        pytest.param("ring", (1, 1, 1), 8, marks=slow),
        pytest.param("ring", (2, 4, 1), 1, marks=slow),
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", ["softmax", pytest.param("sigmoid", marks=slow)])
def test_parts_change_nothing(models, kind, method, sizes, parts):
    """Against one device, whole, by the textbook loss; every parameter, scale and bias included."""
    expected, expected_gradients = loss_and_gradients(models[kind], LossConfig(kind, "gather"), (1, 1, 1), 1)
    found, gradients = loss_and_gradients(models[kind], LossConfig(kind, method), sizes, parts)
    assert found == pytest.approx(expected, rel=1e-6)
    assert gradients.keys() == expected_gradients.keys()
    for name, reference in expected_gradients.items():
        np.testing.assert_allclose(
            gradients[name], reference, rtol=0, atol=1e-5 * np.abs(reference).max(), err_msg=name
        )


def test_any_model_with_either_loss():
    cases: list[tuple[str, Kind, bool]] = [("tiny", "sigmoid", True), ("ViT-B-16-SigLIP", "softmax", False)]
    for name, kind, biased in cases:
        model = training_model(replace(CONFIG, model=ModelConfig(name), loss=LossConfig(kind)))
        assert (model.initial_logit_bias is not None) == biased
        assert np.exp(model.initial_logit_scale) == pytest.approx(10 if biased else 1 / 0.07)


def test_what_a_mesh_cannot_do_is_named(toy_config):
    mesh = make_mesh(MeshConfig(4, 1, 2))
    large = replace(CONFIG, model=ModelConfig("ViT-B-32"))
    check_mesh(large, training_model(large), mesh)
    with pytest.raises(UserError, match="batch_size 30 does not divide over data x fsdp = 4 devices; 32 would"):
        check_mesh(replace(CONFIG, batch_size=30), toy_config, mesh)
    with pytest.raises(UserError, match=r"batch_size 64 does not divide .* 4 devices in 3 microbatches; 72 would"):
        check_mesh(replace(CONFIG, microbatches=3), toy_config, mesh)
    with pytest.raises(UserError, match="tensor 2 does not divide the 5 heads of the text tower of tiny"):
        check_mesh(CONFIG, toy_config, mesh)
    resnet = replace(toy_config, vision=ResNetConfig(64, layers=(1, 1, 1, 1), width=4, heads=4))
    cudnn = replace(CONFIG, model=ModelConfig(attention="cudnn"))
    with pytest.raises(UserError, match="attention cudnn is for bfloat16 on NVIDIA GPUs, not bfloat16 on cpu; use xla"):
        check_mesh(cudnn, training_model(cudnn), mesh)
    with pytest.raises(UserError, match="batch norms of tiny take the statistics of a whole batch; use microbatches=1"):
        check_mesh(replace(CONFIG, microbatches=2), resnet, make_mesh(MeshConfig()))


@pytest.mark.slow
def test_patches_that_are_left_out_are_the_same_on_any_mesh_and_in_parts(toy_config):
    """Fewer patches, another loss; the tail sees all of them again."""

    def losses(sizes: tuple[int, int, int], **changes) -> list[float]:
        model = ModelConfig("tiny", "float32", "scan", patch_dropout=0.5, unmasked_tail=changes.pop("tail", 0))
        config = replace(CONFIG, model=model, steps=3, **changes)
        mesh = make_mesh(MeshConfig(*sizes), jax.devices()[: int(np.prod(sizes))])
        state, shardings = first_state(toy_config, KEEP_GRADIENTS, mesh)
        step, found = make_step(config, toy_config, KEEP_GRADIENTS, mesh, shardings), []
        rng = np.random.default_rng(0)
        pixels = rng.integers(0, 256, (64, 16, 16, 3), dtype=np.uint8)
        tokens = rng.integers(1, 699, (64, 12)).astype(np.int32)
        for _ in range(3):
            state, metrics = step(state, pixels, tokens)
            found.append(float(metrics["loss"]))
        return found

    masked = losses((1, 1, 1))
    assert len(set(masked)) == 3  # other patches every time, as the parameters stay
    assert losses((2, 2, 2), microbatches=2) == pytest.approx(masked, rel=1e-6)
    tail = losses((1, 1, 1), tail=2)
    assert tail[0] == masked[0]
    assert tail[1] == tail[2] != masked[1]
