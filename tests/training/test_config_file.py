"""Config files and overrides: what is right is taken, what is wrong is refused with the nearest valid key."""

from pathlib import Path

import pytest

from clip_jax.errors import UserError
from clip_jax.presets import get_config
from clip_jax.training.config_file import load_config
from clip_jax.training.share import in_steps

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.py"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_recipe_is_valid(path):
    config = load_config(str(path), [("data.source", "tar:x/*.tar")])
    get_config(config.model.name)
    assert config.data.source == "tar:x/*.tar"
    text = path.read_text(encoding="utf-8")
    assert f"--config=configs/{path.name} --workdir=" in text, "the docstring gives the command"


def write(tmp_path: Path, body: str) -> str:
    path = tmp_path / "config.py"
    path.write_text(f"from ml_collections import ConfigDict\ndef get_config(arg=None):\n    return {body}\n")
    return str(path)


def test_overrides_reach_keys_that_the_file_does_not_mention(tmp_path):
    path = write(tmp_path, "ConfigDict({'data': {'source': 'scenes:train'}, 'steps': 10})")
    overrides = [
        ("optimizer.learning_rate", "3e-4"),
        ("optimizer.clip_norm", "none"),
        ("mesh.fsdp", "2"),
        ("log.tensorboard", "false"),
        ("data.crop_scale", "(0.5, 1)"),
        ("model.name", "tiny"),
        ("checkpoint.every", "0.5"),
    ]
    config = load_config(path, overrides)
    assert config.optimizer.learning_rate == 3e-4
    assert config.optimizer.clip_norm is None
    assert config.mesh.fsdp == 2
    assert config.log.tensorboard is False
    assert config.data.crop_scale == (0.5, 1.0)
    assert config.model.name == "tiny"
    assert config.checkpoint.every == 0.5
    assert config.steps == 10


def test_the_argument_reaches_get_config(tmp_path):
    path = write(tmp_path, "ConfigDict({'data': {'source': 'scenes:train'}, 'seed': int(arg)})")
    assert load_config(f"{path}:7").seed == 7


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("optimizer.learning_rat", "1", r"config.optimizer has no key 'learning_rat'; did you mean 'learning_rate'\?"),
        ("stepz", "1", r"config has no key 'stepz'; did you mean 'steps'\?"),
        ("steps", "many", "config.steps must be an integer, not 'many'"),
        ("steps", "1.5", "config.steps must be an integer"),
        ("steps", "true", "config.steps must be an integer"),
        ("steps", "0", "must be at least 1"),
        ("model.dtype", "float16", r"config.model.dtype is 'float16'; did you mean"),
        ("checkpoint.every", "1.5", "a share of the steps"),
        ("checkpoint.keep", "0", "config.checkpoint.keep is 0"),
        ("evaluate.every", "0.0", "a share of the steps"),
        ("data.crop_scale", "(2.0, 1.0)", "a rising range within 0 and 1"),
        ("data.crop_scale", "0.5", "config.data.crop_scale must be a list"),
        ("steps.every", "1", "'steps' is a value"),
        ("data.source", "''", "config.data.source is empty"),
    ],
)
def test_wrong_keys_and_types_are_refused(tmp_path, key, value, message):
    path = write(tmp_path, "ConfigDict({'data': {'source': 'scenes:train'}, 'steps': 10})")
    with pytest.raises(UserError, match=message):
        load_config(path, [(key, value)])


@pytest.mark.parametrize(
    ("body", "message"),
    [("{}", "must return an ml_collections.ConfigDict"), ("ConfigDict({})", "config lacks the key 'data'")],
)
def test_wrong_files_are_refused(tmp_path, body, message):
    with pytest.raises(UserError, match=message):
        load_config(write(tmp_path, body))


def test_files_that_are_no_configs(tmp_path):
    with pytest.raises(UserError, match="there is no config file"):
        load_config(str(tmp_path / "none.py"))
    (tmp_path / "a.py").write_text("x = 1\n")
    with pytest.raises(UserError, match=r"has no function get_config"):
        load_config(str(tmp_path / "a.py"))
    (tmp_path / "b.py").write_text("def get_config(:\n")
    with pytest.raises(UserError, match=r"is not Python: .* line 1"):
        load_config(str(tmp_path / "b.py"))


def test_shares_of_the_steps():
    assert in_steps(0.1, 1000) == 100
    assert in_steps(100, 1000) == 100
    assert in_steps(1.0, 1000) == 1000
    assert in_steps(0.0001, 1000, least=1) == 1
    with pytest.raises(UserError, match="at least 1"):
        in_steps(0, 1000, least=1)


def test_a_config_that_fails_says_why(tmp_path):
    with pytest.raises(UserError, match="fails with ZeroDivisionError: division by zero"):
        load_config(write(tmp_path, "1 / 0"))
    path = tmp_path / "no_argument.py"
    path.write_text("def get_config():\n    return None\n")
    with pytest.raises(UserError, match="fails with TypeError"):
        load_config(f"{path}:large")
