"""Runs that begin with another model's weights, in another layout, all or in part; and what is loaded after."""

from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

import clip_jax
from clip_jax.config import TokenizerConfig
from clip_jax.errors import UserError
from clip_jax.inputs.tokenizer import NO_FILES
from clip_jax.sharding import MeshConfig, make_mesh
from clip_jax.training import workdir as workdirs
from clip_jax.training.config import DataConfig, LossConfig, ModelConfig, OptimizerConfig, TrainConfig
from clip_jax.training.initial import initial_state, model_of, source_of, tokenizer_files
from clip_jax.training.optimizer import make_optimizer
from clip_jax.training.state import abstract_state
from clip_jax.weights.folders import CHECKPOINTS
from clip_jax.weights.orbax_checkpoints import CheckpointWriter
from clip_jax.weights.tree import flatten

CONFIG = TrainConfig(data=DataConfig(""), steps=10)


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> tuple[clip_jax.Clip, str]:
    clip = clip_jax.create("tiny-quickgelu", seed=3)
    folder = tmp_path_factory.mktemp("init") / "open_clip"
    clip_jax.save(clip, folder, layout="open_clip")
    return clip, str(folder)


def begun(config: TrainConfig):
    mesh, model = make_mesh(MeshConfig(2, 2, 2)), model_of(config)
    optimizer, ema = make_optimizer(config.optimizer, config.steps), config.optimizer.ema is not None
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract_state(model, optimizer, mesh, ema))
    state = initial_state(config, model, optimizer, shardings, source_of(config))
    assert jax.tree.map(lambda leaf: leaf.sharding, state) == shardings
    return model, state


def test_a_whole_model(exported):
    """Architecture and weights from an open_clip folder, whatever the name; scale and bias are the other loss's."""
    clip, folder = exported
    config = replace(CONFIG, model=ModelConfig("tiny", init=folder), loss=LossConfig("sigmoid"))
    model, state = begun(replace(config, optimizer=OptimizerConfig(ema=0.99)))
    assert model.vision == clip.config.vision
    params = flatten(state["params"])
    assert params.pop("logit_bias") == -10
    assert np.exp(params.pop("logit_scale")) == pytest.approx(10)
    for name, leaf in params.items():
        np.testing.assert_array_equal(leaf, flatten(clip.params)[name], err_msg=name)
    for name, leaf in flatten(state["ema"]).items():
        np.testing.assert_array_equal(leaf, flatten(state["params"])[name], err_msg=name)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(state["opt_state"]))


def test_a_part_of_a_model(exported):
    clip, folder = exported
    _, state = begun(replace(CONFIG, seed=1, model=ModelConfig("tiny-quickgelu", init=folder, init_only="^visual/")))
    fresh = flatten(clip_jax.create("tiny-quickgelu", seed=1).params)
    for name, leaf in flatten(state["params"]).items():
        expected = flatten(clip.params) if name.startswith("visual/") else fresh
        np.testing.assert_allclose(leaf, expected[name], rtol=1e-6, atol=1e-7, err_msg=name)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"name": "ViT-B-32", "init_only": "^visual/"}, r"has shape .* in .*open_clip, and .* in ViT-B-32"),
        ({"name": "tiny", "init_only": "^vision/"}, r"init_only '\^vision/' finds no parameter of"),
        ({"name": "tiny", "init_only": "("}, "is no regular expression"),
    ],
)
def test_parts_that_do_not_fit(exported, model, message):
    with pytest.raises(UserError, match=message):
        begun(replace(CONFIG, model=ModelConfig(init=exported[1], **model)))


def test_a_logit_scale_above_the_bound(exported):
    """It would be cut down by the first update, without a word."""
    config = replace(CONFIG, model=ModelConfig(init=exported[1]), optimizer=OptimizerConfig(max_logit_scale=14.0))
    with pytest.raises(UserError, match=r"has a logit scale of 14\.3, above config\.optimizer\.max_logit_scale 14"):
        begun(config)


def test_a_source_that_is_not_there():
    with pytest.raises(UserError, match="no-such-model"):
        source_of(replace(CONFIG, model=ModelConfig(init="no-such-model")))


def test_clip_needs_no_tokenizer_files(toy_config):
    assert tokenizer_files(toy_config, None) == NO_FILES


def save(folder: Path, state: dict, description: dict) -> None:
    writer = CheckpointWriter(folder, keep=1)
    writer.save(1, state, description)
    writer.wait()
    writer.close()


def test_the_tokenizer_of_a_run_loads_with_it(tmp_path: Path, exported):
    """A stand-in for a sentencepiece model, which only the run's source had."""
    words = TokenizerConfig(kind="sentencepiece", file="words.model")
    model, state = begun(replace(CONFIG, model=ModelConfig(init=exported[1])))
    workdirs.claim(tmp_path, CONFIG, {"words.model": b"pieces"})
    save(tmp_path / CHECKPOINTS, state, {"model": replace(model, tokenizer=words).to_dict()})
    assert clip_jax.load(tmp_path).tokenizer_files == {"words.model": b"pieces"}


def test_load_takes_the_average(tmp_path: Path, exported):
    config = replace(CONFIG, model=ModelConfig(init=exported[1]), optimizer=OptimizerConfig(ema=0.9))
    model, state = begun(config)
    state["ema"] = jax.tree.map(lambda leaf: leaf + 1, state["ema"])
    description = {"model": model.to_dict(), "config": {"optimizer": {"ema": 0.9}}}
    save(tmp_path / CHECKPOINTS, state, description)
    loaded = flatten(clip_jax.load(tmp_path).params)
    for name, leaf in flatten(state["ema"]).items():
        np.testing.assert_array_equal(loaded[name], leaf, err_msg=name)
