"""From a config file and overrides to a checked `TrainConfig`."""

import ast
import runpy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from clip_jax.errors import UserError
from clip_jax.schema import parse
from clip_jax.training.config import TrainConfig


def load_config(
    path_and_argument: str, overrides: Sequence[tuple[str, str]] = (), needs_data: bool = True
) -> TrainConfig:
    """The config of FILE or FILE:ARG, that is what its `get_config()` or `get_config(ARG)` returns, with overrides.

    Overrides are (dotted key, text) pairs; the text is read as a Python literal where it is one. `needs_data` asks for
    the training data to be named, as a run needs. Raises UserError.
    """
    path, _, argument = path_and_argument.partition(":")
    if not Path(path).is_file():
        raise UserError(f"there is no config file {path}; configs/scenes.py of the repository is one")
    try:
        get_config = runpy.run_path(path).get("get_config")
        if not callable(get_config):
            raise UserError(f"{path} has no function get_config(); it must return an ml_collections.ConfigDict")
        config = get_config(argument) if argument else get_config()
    except SyntaxError as error:
        raise UserError(f"{path} is not Python: {error.msg} in line {error.lineno}") from error
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{path_and_argument} fails with {type(error).__name__}: {error}") from error
    return check_config(config, overrides, needs_data)


def check_config(config: Any, overrides: Sequence[tuple[str, str]] = (), needs_data: bool = True) -> TrainConfig:
    """A ConfigDict checked against the schema, overrides applied. Raises UserError naming the nearest valid key."""
    if not isinstance(config, ConfigDict):
        raise UserError(f"get_config() must return an ml_collections.ConfigDict, not a {type(config).__name__}")
    values = config.to_dict()
    for key, text in overrides:
        _set(values, key.split("."), _literal(text), f"config.{key}")
    checked = parse(TrainConfig, values, "config")
    if needs_data and not checked.data.source:
        raise UserError(
            "config.data.source is empty; name the training data, as in --config.data.source=tar:'shards/*.tar'"
        )
    return checked


def _set(values: dict[str, Any], keys: list[str], value: Any, where: str) -> None:
    """Sets values[a][b][c]; whether such a key may exist is the schema's to say."""
    *parents, last = keys
    node = values
    for parent in parents:
        child = node.get(parent, {})
        if not isinstance(child, dict):
            raise UserError(f"{where} cannot be set: '{parent}' is a value, not a group of keys")
        node[parent] = node = child
    node[last] = value


def _literal(text: str) -> Any:
    lowered = {"true": True, "false": False, "none": None}
    if text.lower() in lowered:
        return lowered[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
