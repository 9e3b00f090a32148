"""Locked towers, learning rates by parameter, averages and spikes, against figures by hand and PyTorch."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh
from support.updates import first_state

from clip_jax.config import ResNetConfig
from clip_jax.errors import UserError
from clip_jax.models.two_tower import init_params
from clip_jax.sharding import MeshConfig, make_mesh
from clip_jax.training.config import DataConfig, ModelConfig, OptimizerConfig, TrainConfig
from clip_jax.training.learning_rates import scale_by_factors
from clip_jax.training.optimizer import make_optimizer
from clip_jax.training.spikes import FIRST, skip_spikes
from clip_jax.training.state import abstract_state
from clip_jax.training.step import jit_step, make_step
from clip_jax.weights.tree import flatten

CONFIG = TrainConfig(
    data=DataConfig("scenes:train"), steps=10, batch_size=16, model=ModelConfig("tiny", "float32", "scan")
)
ADAMW = OptimizerConfig(learning_rate=1e-3, warmup=0, weight_decay=0.2)


def updated(
    model, optimizer_config: OptimizerConfig, updates: int = 1, spoil: bool = False, mesh: Mesh | None = None
) -> tuple[list[Any], list[dict[str, float]]]:
    """The states before and after every update, and its figures; on one device where no mesh is given.

    What is spoilt has a word without a number, so that the loss is none.
    """
    config, mesh = replace(CONFIG, optimizer=optimizer_config), mesh or make_mesh(MeshConfig(), jax.devices()[:1])
    optimizer = make_optimizer(optimizer_config, config.steps)
    state, shardings = first_state(model, optimizer, mesh, optimizer_config.ema is not None)
    if spoil:
        words = state["params"]["text"]["token_embedding"]
        state["params"]["text"]["token_embedding"] = jax.device_put(words.at[5].set(jnp.nan), words.sharding)
    states, figures = [jax.tree.map(np.asarray, state)], []
    step, rng = make_step(config, model, optimizer, mesh, shardings), np.random.default_rng(0)
    size = model.vision.image_size
    for _ in range(updates):
        pixels = rng.integers(0, 256, (16, size, size, 3), dtype=np.uint8)
        tokens = rng.integers(1, 699, (16, 12)).astype(np.int32)
        tokens[3, 0] = 5
        state, found = step(state, pixels, tokens)
        states.append(jax.tree.map(np.asarray, state))
        figures.append({name: float(value) for name, value in found.items()})
    return states, figures


@pytest.mark.parametrize("sizes", [(1, 1, 1), pytest.param((2, 2, 2), marks=pytest.mark.slow)], ids=str)
def test_a_locked_tower_stays_and_has_no_moments(toy_config, sizes):
    """LiT: the image tower to the bit; the text tower as when nothing is locked, as nothing flows between them."""
    mesh = make_mesh(MeshConfig(*sizes), jax.devices()[: int(np.prod(sizes))])
    (before, after), figures = updated(toy_config, replace(ADAMW, frozen="^visual/"), mesh=mesh)
    (_, free), free_figures = updated(toy_config, ADAMW, mesh=mesh)
    for name, leaf in flatten(before["params"]).items():
        same = np.array_equal(flatten(after["params"])[name], leaf)
        assert same == name.startswith("visual/"), name
        if not same:
            np.testing.assert_allclose(flatten(after["params"])[name], flatten(free["params"])[name], atol=2e-5)
    moments = sum(leaf.size for leaf in jax.tree.leaves(after["opt_state"]))
    trained = sum(leaf.size for name, leaf in flatten(before["params"]).items() if not name.startswith("visual/"))
    assert moments < 2 * trained + 10
    assert figures[0]["gradient_norm/visual"] == 0 < free_figures[0]["gradient_norm/visual"]
    assert figures[0]["loss"] == pytest.approx(free_figures[0]["loss"], rel=1e-6)


def test_gradients_of_what_is_locked_are_not_computed(toy_config):
    """By XLA's count of the whole update, unrolled, so that every layer counts: the backward pass of one tower less."""

    def counted(frozen: str | None) -> float:
        config = replace(
            CONFIG, model=ModelConfig("tiny", "float32", "unroll"), optimizer=replace(ADAMW, frozen=frozen)
        )
        mesh = make_mesh(MeshConfig(), jax.devices()[:1])
        optimizer = make_optimizer(config.optimizer, config.steps)
        state = abstract_state(toy_config, optimizer, mesh)
        shardings = jax.tree.map(lambda leaf: leaf.sharding, state)
        pixels, tokens = jax.ShapeDtypeStruct((16, 16, 16, 3), jnp.uint8), jax.ShapeDtypeStruct((16, 12), jnp.int32)
        analysis = jit_step(config, toy_config, optimizer, mesh, shardings).lower(state, pixels, tokens).cost_analysis()
        assert analysis is not None
        return analysis["flops"]

    from clip_jax.model_size import flops

    towers = flops(toy_config)
    saved = (counted(None) - counted("^text/")) / 16
    assert saved == pytest.approx(2 * towers.text, rel=0.15)  # moments and norms count a little too


@pytest.mark.slow
def test_a_locked_batch_norm_keeps_its_statistics(toy_config):
    resnet = replace(toy_config, vision=ResNetConfig(32, layers=(1, 1, 1, 1), width=4, heads=4))
    (before, after), _ = updated(resnet, replace(ADAMW, frozen="^visual/"))
    for name, leaf in flatten(before["params"]).items():
        if name.startswith("visual/"):
            np.testing.assert_array_equal(flatten(after["params"])[name], leaf, err_msg=name)


@pytest.mark.parametrize(
    ("frozen", "message"),
    [
        ("^vision/", "finds no parameter"),
        (".", "finds every parameter"),
        ("(", "is no regular expression"),
        ("^visual/stem", "finds some of the batch norms"),
    ],
)
def test_patterns_that_make_no_sense(toy_config, frozen, message):
    if "norms" in message:
        toy_config = replace(toy_config, vision=ResNetConfig(32, layers=(1, 1, 1, 1), width=4, heads=4))
    with pytest.raises(UserError, match=message):
        abstract_state(toy_config, make_optimizer(replace(ADAMW, frozen=frozen), 10), make_mesh(MeshConfig()))


def test_learning_rates_by_parameter(toy_config):
    shapes = jax.eval_shape(lambda: init_params(toy_config, jax.random.key(0)))
    params = ones = jax.tree.map(lambda shape: jnp.ones(shape.shape), shapes)
    scale = scale_by_factors([(r"^visual/.*bias$", 0.0), ("^visual/", 0.5)], layer_decay=0.8)
    scaled: Any = scale.update(ones, scale.init(params), params)[0]
    found = flatten(scaled)
    kernels = found["visual/transformer/block/mlp/up/kernel"]  # two layers
    np.testing.assert_allclose(kernels[0], 0.5 * 0.8, rtol=1e-6)
    np.testing.assert_allclose(kernels[1], 0.5, rtol=1e-6)
    np.testing.assert_array_equal(found["visual/transformer/block/mlp/up/bias"], 0)
    np.testing.assert_allclose(found["visual/patch_embedding/kernel"], 0.5 * 0.8**2, rtol=1e-6)
    np.testing.assert_allclose(found["text/token_embedding"], 0.8**3, rtol=1e-6)
    np.testing.assert_allclose(found["text/transformer/block/norm_1/scale"][:, 0], [0.64, 0.8, 1.0], rtol=1e-6)
    np.testing.assert_array_equal(found["text/projection"], 1)
    np.testing.assert_array_equal(found["logit_scale"], 1)
    with pytest.raises(UserError, match="'head' decides about no parameter"):
        scale_by_factors([("head", 2.0)], 1.0).update(ones, optax.EmptyState(), params)


def test_the_average_is_pytorchs(toy_config):
    torch = pytest.importorskip("torch")
    states, _ = updated(toy_config, replace(ADAMW, ema=0.9), updates=3)
    module = torch.nn.Linear(1, 1)
    average = torch.optim.swa_utils.AveragedModel(module, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9))
    for state in states:
        with torch.no_grad():
            module.weight.fill_(float(state["params"]["logit_scale"]))
        average.update_parameters(module)
        assert state["ema"]["logit_scale"] == pytest.approx(average.module.weight.item(), rel=1e-6)


def test_spikes_are_left_out():
    optimizer = skip_spikes(optax.adam(0.1), above=3.0)
    params = {"kernel": jnp.ones(4)}
    state, update = optimizer.init(params), jax.jit(optimizer.update)
    for _ in range(FIRST):
        updates, state = update({"kernel": jnp.full(4, 0.5)}, state, params)
        assert np.all(np.asarray(updates["kernel"]) != 0)
    before: Any = state
    for spike in (2.0, np.nan, np.inf):  # four times the usual norm, and no numbers
        updates, state = update({"kernel": jnp.full(4, spike)}, state, params)
        np.testing.assert_array_equal(updates["kernel"], 0)
    after: Any = state
    assert int(after.skipped) == 3
    assert jax.tree.all(jax.tree.map(np.array_equal, after.inner, before.inner))
    updates, state = update({"kernel": jnp.full(4, 1.0)}, state, params)  # twice the usual is none
    assert np.all(np.asarray(updates["kernel"]) != 0)
    for _ in range(40):  # norms that have risen for good are the usual ones after a while
        updates, state = update({"kernel": jnp.full(4, 4.0)}, state, params)
    assert np.all(np.asarray(updates["kernel"]) != 0)
    assert 3 < int(state.skipped) < 43


@pytest.mark.slow
def test_an_update_that_is_left_out_changes_nothing_else(toy_config):
    """The image tower's activations are sound, and its batch statistics would have moved."""
    resnet = replace(toy_config, vision=ResNetConfig(32, layers=(1, 1, 1, 1), width=4, heads=4))
    (before, after), figures = updated(resnet, replace(ADAMW, skip_above=4.0, ema=0.9), spoil=True)
    assert np.isnan(figures[0]["loss"])
    assert figures[0]["skipped_updates"] == 1
    for name in ("params", "ema"):
        jax.tree.map(np.testing.assert_array_equal, after[name], before[name])
    assert (before["step"], after["step"]) == (0, 1)


def test_moments_in_bfloat16(toy_config):
    optimizer_config = replace(ADAMW, moment_dtype="bfloat16")
    optimizer, mesh = make_optimizer(optimizer_config, CONFIG.steps), make_mesh(MeshConfig(), jax.devices()[:1])
    before = abstract_state(toy_config, optimizer, mesh)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, before)
    step = jit_step(replace(CONFIG, optimizer=optimizer_config), toy_config, optimizer, mesh, shardings)
    batch = jax.ShapeDtypeStruct((16, 16, 16, 3), jnp.uint8), jax.ShapeDtypeStruct((16, 12), jnp.int32)
    after, _ = jax.eval_shape(step, before, *batch)
    for moments, kind in (("mu", "bfloat16"), ("nu", "float32")):
        for state in (before, after):
            leaves = jax.tree.leaves(optax.tree_utils.tree_get(state["opt_state"], moments))
            assert {str(leaf.dtype) for leaf in leaves} == {kind}
