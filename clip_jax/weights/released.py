"""The `clip_jax` layout of a released model: a folder of one safetensors file and one JSON.

The tensors are our parameters by flat name, each in the type that its source had, layers stacked; batch norm's
counters stand beside them as int64. The JSON has the config and what else the source held (`Origin`). A tokenizer
that is no part of this package has its files beside.
"""

import json
import os
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from clip_jax.config import ClipConfig
from clip_jax.errors import UserError
from clip_jax.inputs.hf_tokenizer import TOKENIZER_FILES
from clip_jax.weights.checkpoint import Checkpoint, Origin, Parameter
from clip_jax.weights.folders import inside
from clip_jax.weights.json_files import read_json, read_whole
from clip_jax.weights.keys import COUNTER, Row, Table, slots
from clip_jax.weights.lazy_tensor import LazyTensor
from clip_jax.weights.tensors import open_tensors
from clip_jax.weights.translate import check
from clip_jax.weights.tree import parameter_shapes

WEIGHTS = "model.safetensors"
DESCRIPTION = "clip_jax.json"
CONFIGS = ("open_clip_config.json", "config.json", "preprocessor_config.json", "processor_config.json")  # of others
MAX_TOKENIZER_FILE = 256 * 2**20  # bytes
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
    except UserError as error:
        raise UserError(f"{folder / DESCRIPTION} cannot be used: {error}") from error
    files = _tokenizer_files(folder, config, description.get("tokenizer_files", []))
    if not (folder / WEIGHTS).is_file():
        raise UserError(f"{folder} lacks {WEIGHTS}; copy the whole folder, as it was written")
    tensors = open_tensors(folder / WEIGHTS).tensors
    shapes = parameter_shapes(config)
    table = Table("clip_jax", tuple(Row(path, path) for path in shapes), ignored=(rf".*/{COUNTER}",))
    check(tensors, slots(table, shapes, config), table, set(shapes), str(folder))
    parameters = {
        path: Parameter(shape, tensors[path].dtype, partial(_read, tensors[path])) for path, shape in shapes.items()
    }
    return Checkpoint(config, parameters, origin, files)


def _describe(folder: Path) -> dict[str, Any]:
    description = read_json(folder / DESCRIPTION)
    version = description.get("format")
    if version is not None and version not in FORMATS:
        raise UserError(f"{folder} is of format {version!r:.40}; this version of clip_jax reads up to {FORMATS[-1]}")
    if version is None or "config" not in description:
        raise UserError(f"{folder / DESCRIPTION} is damaged: it lacks format or config")
    return description


def _tokenizer_files(folder: Path, config: ClipConfig, listed: Any) -> dict[str, bytes]:
    """The files that the description lists, and the one that the config names, which may be put there by hand.

    A model that came from elsewhere gets none but a tokenizer's: they are copied to wherever it is written.
    """
    if not isinstance(listed, list) or not all(isinstance(name, str) for name in listed):
        raise UserError(f"{folder / DESCRIPTION} is damaged: its tokenizer_files must be a list of names")
    own = config.tokenizer.file
    paths = {name: inside(folder, name) for name in sorted(listed)}
    if own and os.path.lexists(inside(folder, own)):
        paths[own] = inside(folder, own)
    for name, path in paths.items():
        if name not in TOKENIZER_FILES and (name != own or not _may_be_tokenizer(name)):
            raise UserError(f"{folder / DESCRIPTION} takes {name!r} for a tokenizer's file, which it is not")
        if not os.path.lexists(path):
            raise UserError(f"{folder} lacks {name}; copy the whole folder, as it was written")
    return {name: read_whole(path, MAX_TOKENIZER_FILE) for name, path in paths.items()}


def _may_be_tokenizer(name: str) -> bool:
    return not name.startswith(".") and not name.endswith(".safetensors") and name not in (DESCRIPTION, *CONFIGS)


def _tensor(parameter: Parameter) -> LazyTensor:
    return LazyTensor(parameter.shape, parameter.dtype, lambda: np.asarray(parameter.read(None), order="C"))


def _read(tensor: LazyTensor, layer: int | None) -> np.ndarray:
    if layer is None:
        return tensor.read()
    return tensor.read()[layer] if tensor.read_rows is None else tensor.read_rows(layer, layer + 1)[0]
