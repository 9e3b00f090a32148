"""The `clip_jax` layout of a released model: a folder of one safetensors file and one JSON."""

import json
import os
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from clip_jax.config import ClipConfig
from clip_jax.errors import UserError
from clip_jax.models.two_tower import Params, init_params

WEIGHTS = "model.safetensors"
DESCRIPTION = "clip_jax.json"
FORMAT = 1


def is_released(folder: Path) -> bool:
    """Whether `folder` holds a model in this layout."""
    return (folder / DESCRIPTION).is_file()


def write(folder: Path, config: ClipConfig, params: Params) -> None:
    """Writes config and parameters into `folder`, which is made if missing; each file appears whole or not at all."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write a model to {folder}: {error.strerror}") from error
    tensors = {name: np.asarray(leaf, order="C") for name, leaf in flatten(params).items()}
    partial = folder / f".{WEIGHTS}.partial"
    save_file(tensors, partial)
    os.replace(partial, folder / WEIGHTS)
    partial = folder / f".{DESCRIPTION}.partial"
    partial.write_text(json.dumps({"format": FORMAT, "config": config.to_dict()}, indent=2) + "\n", encoding="utf-8")
    os.replace(partial, folder / DESCRIPTION)


def read(folder: Path) -> tuple[ClipConfig, Params]:
    """Config and parameters (NumPy, as stored). Raises UserError listing every tensor that does not fit."""
    try:
        description = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        if description["format"] != FORMAT:
            raise UserError(f"{folder} is of format {description['format']}; this version of clip_jax reads {FORMAT}")
        config = ClipConfig.from_dict(description["config"])
        tensors = load_file(folder / WEIGHTS)
    except FileNotFoundError as error:
        raise UserError(f"{folder} lacks {WEIGHTS}; copy the whole folder that clip_jax.save wrote") from error
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise UserError(f"the model in {folder} is damaged: {error}") from error
    expected = flatten(jax.eval_shape(lambda: init_params(config, jax.random.key(0))))
    problems = [f"{name} is missing" for name in expected.keys() - tensors.keys()]
    problems += [f"{name} is unknown" for name in tensors.keys() - expected.keys()]
    problems += [
        f"{name} has shape {list(tensors[name].shape)}, not {list(expected[name].shape)}"
        for name in expected.keys() & tensors.keys()
        if tensors[name].shape != expected[name].shape
    ]
    problems += [
        f"{name} is of type {tensor.dtype}, not floating-point"
        for name, tensor in tensors.items()
        if not jax.numpy.issubdtype(tensor.dtype, jax.numpy.floating)
    ]
    if problems:
        raise UserError(f"the weights in {folder} do not fit their config: {'; '.join(sorted(problems))}")
    return config, unflatten(tensors)


def flatten(params: Params) -> dict[str, Any]:
    """Nested parameters as {'visual/projection': leaf, ...}."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(params)
    return {"/".join(key.key for key in path): leaf for path, leaf in leaves}


def unflatten(tensors: dict[str, Any]) -> Params:
    """The inverse of `flatten`."""
    params: Params = {}
    for name, tensor in tensors.items():
        *parents, last = name.split("/")
        node = params
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = tensor
    return params
