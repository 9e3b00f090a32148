"""JSON files that came with a model, and other files that are read whole. They may be damaged, or built to do harm."""

import json
import math
from pathlib import Path
from typing import Any

from etils import epath

from clip_jax.errors import UserError

MAX_JSON = 16 * 2**20  # bytes
MAX_DEPTH = 100  # values within values; deeper ones would overflow the stack of who writes them again


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises UserError, naming `path`, where there is none or it cannot be read."""
    return parse_json(read_whole(path, MAX_JSON), str(path))


def parse_json(content: bytes, where: str) -> dict[str, Any]:
    """The object in `content`, UTF-8, its numbers finite. Raises UserError, naming `where`, for anything else."""
    try:
        values = json.loads(content.decode("utf-8"), parse_constant=_refuse, parse_float=_finite)
    except ValueError as error:
        raise UserError(f"{where} is damaged, it is no JSON: {error}") from error
    except RecursionError as error:
        raise _too_deep(where) from error
    if not isinstance(values, dict):
        raise UserError(f"{where} is damaged: it holds no JSON object")
    if _is_deeper(values, MAX_DEPTH):
        raise _too_deep(where)
    return values


def read_whole(path: Path | epath.Path, most: int) -> bytes:
    """The content of a file of at most `most` bytes. Raises UserError where it is larger, or cannot be read."""
    if path.exists() and not path.is_file():
        raise UserError(f"{path} is not a file; put the one that came with the model there")
    try:
        with path.open("rb") as file:
            content = file.read(most + 1)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    if len(content) > most:
        raise UserError(f"{path} is too large for what it should be; {most // 2**20} MiB are the most")
    return content


def _is_deeper(values: Any, depth: int) -> bool:
    level = [values]
    for _ in range(depth):
        level = [
            child
            for value in level
            if isinstance(value, dict | list)
            for child in (value.values() if isinstance(value, dict) else value)
        ]
    return bool(level)


def _too_deep(where: str) -> UserError:
    return UserError(f"{where} is damaged: it is nested more than {MAX_DEPTH} deep")


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is no number")


def _finite(number: str) -> float:
    value = float(number)
    if not math.isfinite(value):
        raise ValueError(f"{number[:40]} is too large for a number")
    return value
