"""The `clip_jax` layout of a released model: a folder of one safetensors file and one JSON.

The tensors are our parameters by flat name, each in the type that its source had, layers stacked; batch norm's
counters stand beside them as int64. The JSON has the config and what else the source held (`Origin`). A tokenizer
that is no part of this package has its files beside.
"""

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from clip_jax.config import ClipConfig
from clip_jax.errors import UserError
from clip_jax.weights.checkpoint import Checkpoint, Origin, Parameter
from clip_jax.weights.folders import inside
from clip_jax.weights.keys import COUNTER, Row, Table, slots
from clip_jax.weights.lazy_tensor import LazyTensor
from clip_jax.weights.tensors import open_tensors
from clip_jax.weights.translate import check
from clip_jax.weights.tree import parameter_shapes

WEIGHTS = "model.safetensors"
DESCRIPTION = "clip_jax.json"
FORMATS = (1, 2)  # the first had neither origin nor tokenizer files


def is_released(folder: Path) -> bool:
    """Whether `folder` holds a model in this layout."""
    return (folder / DESCRIPTION).is_file()


def contents(checkpoint: Checkpoint) -> tuple[dict[str, LazyTensor], dict[str, bytes]]:
    """The tensors of the safetensors file, and the other files by name."""
    tensors = {path: _tensor(parameter) for path, parameter in checkpoint.parameters.items()}
    for path, count in checkpoint.origin.buffers.items():
        tensors[path] = LazyTensor((), np.dtype(np.int64), lambda count=count: np.asarray(count, np.int64))
    description = {
        "format": FORMATS[-1],
        "config": checkpoint.config.to_dict(),
        "origin": checkpoint.origin.to_dict(),
        "tokenizer_files": sorted(checkpoint.tokenizer_files),
    }
    text = json.dumps(description, indent=2) + "\n"
    return tensors, {**checkpoint.tokenizer_files, DESCRIPTION: text.encode()}


def read(folder: Path) -> Checkpoint:
    """The model in `folder`, its parameters not read yet. Raises UserError listing every tensor that does not fit."""
    description = _describe(folder)
    try:
        config = ClipConfig.from_dict(description["config"])
        origin = Origin.from_dict(description.get("origin", {}))
        names = {str(name) for name in description.get("tokenizer_files", [])}
        if config.tokenizer.file and inside(folder, config.tokenizer.file).is_file():  # put there by hand
            names.add(config.tokenizer.file)
        files = {name: inside(folder, name).read_bytes() for name in sorted(names)}
    except FileNotFoundError as error:
        missing = Path(error.filename).name
        raise UserError(f"{folder} lacks {missing}; copy the whole folder, as it was written") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"the model in {folder} is damaged: {type(error).__name__} {error}") from error
    if not (folder / WEIGHTS).is_file():
        raise UserError(f"{folder} lacks {WEIGHTS}; copy the whole folder, as it was written")
    tensors = open_tensors(folder / WEIGHTS).tensors
    shapes = parameter_shapes(config)
    table = Table("clip_jax", tuple(Row(path, path) for path in shapes), ignored=(rf".*/{COUNTER}",))
    check(tensors, slots(table, shapes, config), table, set(shapes), str(folder))
    parameters = {
        path: Parameter(shape, tensors[path].dtype, partial(_read, folder / WEIGHTS, path, tensors[path]))
        for path, shape in shapes.items()
    }
    return Checkpoint(config, parameters, origin, files)


def _describe(folder: Path) -> dict[str, Any]:
    try:
        description = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        version = description["format"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"the model in {folder} is damaged: {type(error).__name__} {error}") from error
    if version not in FORMATS:
        raise UserError(f"{folder} is of format {version}; this version of clip_jax reads up to {FORMATS[-1]}")
    return description


def _tensor(parameter: Parameter) -> LazyTensor:
    return LazyTensor(parameter.shape, parameter.dtype, lambda: np.asarray(parameter.read(None), order="C"))


def _read(path: Path, name: str, tensor: LazyTensor, layer: int | None) -> np.ndarray:
    if layer is None:
        return tensor.read()
    try:
        with safe_open(path, "numpy") as file:
            return file.get_slice(name)[layer]
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is damaged: {error}") from error
