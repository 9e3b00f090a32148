"""Config keys as the pages name them, by the schema of a run's config."""

import ast
import shlex
from typing import Any

from ml_collections import ConfigDict

from clip_jax.training.config import TrainConfig
from clip_jax.training.config_file import check_config


def key_and_text(override: str) -> tuple[str, str]:
    """The key and the text of KEY=VALUE, without the quotes that VALUE has for a shell."""
    key, _, text = override.partition("=")
    return key, shlex.split(text)[0] if text.startswith(("'", '"')) else text


def config_with(override: str, base: ConfigDict | None = None) -> TrainConfig:
    """The config of `base`, or of the defaults, with KEY=VALUE. Raises UserError where the schema refuses it."""
    return check_config(base or ConfigDict({"data": {"source": "synthetic:8"}}), [key_and_text(override)])


def at(values: Any, key: str) -> Any:
    """What nested dicts have at a dotted key. Raises KeyError."""
    for name in key.split("."):
        values = values[name]
    return values


def holds(found: Any, expected: Any) -> bool:
    """Whether a config's value is the given one, but for defaults beside it and lists that became tuples."""
    if isinstance(expected, dict):
        return all(holds(found[name], value) for name, value in expected.items())
    if isinstance(expected, list | tuple):
        return len(found) == len(expected) and all(map(holds, found, expected))
    return found == expected


def literal(text: str) -> Any:
    """The Python literal that a text is, or the text."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
