"""A checkpoint into a folder, in any layout, with the config files by which other libraries load it unmodified."""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from clip_jax.config import ClipConfig
from clip_jax.errors import UserError
from clip_jax.inputs.hf_tokenizer import TOKENIZER_FILES, tokenizer_files_for_hf
from clip_jax.schema import nearest
from clip_jax.weights import released
from clip_jax.weights.checkpoint import Checkpoint
from clip_jax.weights.evidence import as_openai_builds
from clip_jax.weights.folders import CHECKPOINTS, written_whole
from clip_jax.weights.hf_config import from_hf, is_siglip, to_hf, to_hf_processor
from clip_jax.weights.json_files import read_json
from clip_jax.weights.lazy_tensor import LazyTensor
from clip_jax.weights.open_clip_config import from_open_clip, to_open_clip
from clip_jax.weights.reading import (
    CONFIG_KEY,
    HF_CONFIG,
    HF_WEIGHTS,
    OPEN_CLIP_CONFIG,
    OPEN_CLIP_WEIGHTS,
    PROCESSOR,
    PROCESSORS,
)
from clip_jax.weights.safetensors_file import write_safetensors
from clip_jax.weights.tables import TABLES, open_clip_table
from clip_jax.weights.translate import scatter

PROGRESS_AFTER_SECONDS = 2
# What a model that is replaced may have left in a folder.
MODEL_FILES = (
    *(released.DESCRIPTION, OPEN_CLIP_CONFIG, HF_CONFIG, PROCESSOR, PROCESSORS),
    *OPEN_CLIP_WEIGHTS,
    *HF_WEIGHTS,
    *("model-*-of-*.safetensors", "pytorch_model-*-of-*.bin"),
    *TOKENIZER_FILES,
)

Tensors = dict[str, LazyTensor]
Files = dict[str, bytes]
TORCH = {"format": "pt"}  # transformers wants to be told for which library a safetensors file is


def write_checkpoint(checkpoint: Checkpoint, target: Path, layout: str, overwrite: bool) -> None:
    """Writes a model into the folder `target`, which appears whole or not at all.

    Tensors are read and written one by one. Raises UserError for an unknown layout, an architecture that the layout
    does not have, an existing target without `overwrite`, and weights that are not finite.
    """
    check_layout(layout)
    check_replaceable(target)
    weights, tensors, metadata, files = LAYOUTS[layout](checkpoint)
    replaced = MODEL_FILES if is_model(target) else ()
    if not replaced and (taken := [name for name in (weights, *files) if (target / name).exists()]):
        raise UserError(
            f"{target} has files of these names that are no model's: {', '.join(taken)}; give another folder"
        )
    strange: list[str] = []
    with (
        written_whole(target, overwrite, replaced) as folder,
        tqdm(total=len(tensors), unit=" tensors", delay=PROGRESS_AFTER_SECONDS, leave=False) as progress,
    ):
        watched = {
            name: replace(tensor, read=partial(_read_watched, name, tensor, strange, progress))
            for name, tensor in tensors.items()
        }
        write_safetensors(folder / weights, watched, metadata)
        for name, content in files.items():
            (folder / name).write_bytes(content)
        if strange:
            raise UserError(f"these weights are not finite (NaN or infinite): {', '.join(sorted(strange))}")


def check_layout(layout: str) -> None:
    """Raises UserError for a layout that cannot be written."""
    if layout not in LAYOUTS:
        raise UserError(f"unknown layout '{layout}'; {nearest(layout, LAYOUTS)}")


def check_replaceable(target: Path) -> None:
    """Raises UserError for a folder that cannot be listed, and for the workdir of a training run.

    Of that, a model's files would replace some.
    """
    try:
        names = os.listdir(target) if target.is_dir() else []
        is_workdir = (target / CHECKPOINTS).is_dir() or "metrics.jsonl" in names
    except OSError as error:
        raise UserError(f"cannot write to {target}: {error.strerror}") from error
    if is_workdir:
        raise UserError(f"{target} is the workdir of a training run; give another folder for the model")


def is_model(target: Path) -> bool:
    """Whether a folder holds a model of some layout, so that its files may be replaced by another's."""
    if any((target / name).is_file() for name in (released.DESCRIPTION, OPEN_CLIP_CONFIG)):
        return True
    with suppress(UserError):
        if read_json(target / HF_CONFIG).get("model_type") in ("clip", "siglip"):
            return True
    names = [path.name for path in target.iterdir()] if target.is_dir() else []
    weights = [name for name in names if name.endswith((".safetensors", ".bin", ".index.json"))]
    return bool(weights) and all(any(fnmatch(name, pattern) for pattern in MODEL_FILES) for name in names)


def is_finite(values: np.ndarray) -> bool:
    """Whether no value is NaN or infinite; also for types that NumPy itself does not have."""
    if values.dtype.kind not in "fV":
        return True
    return bool(np.isfinite(values if values.dtype.kind == "f" else values.astype(np.float32)).all())


def _clip_jax(checkpoint: Checkpoint) -> tuple[str, Tensors, dict[str, str], Files]:
    return released.WEIGHTS, *_with_metadata(released.contents(checkpoint), {})


def _open_clip(checkpoint: Checkpoint) -> tuple[str, Tensors, dict[str, str], Files]:
    config, origin = checkpoint.config, checkpoint.origin
    given = origin.configs.get(OPEN_CLIP_CONFIG)
    custom_text = origin.table.startswith("custom_text")
    written = to_open_clip(config, custom_text)
    if given is not None and _same(lambda: from_open_clip(given["model_cfg"], given.get("preprocess_cfg")), config):
        written = given
    table = open_clip_table(config, custom_text)
    if written is not given and origin.scalar_shape == (1,) and origin.table == table.name:
        written["model_cfg"]["nonscalar_logit_scale"] = True
    tensors = scatter(checkpoint, table)
    files = _json_files({OPEN_CLIP_CONFIG: written}) | _tokenizer_files(checkpoint)
    return OPEN_CLIP_WEIGHTS[0], tensors, TORCH, files


def _hf(checkpoint: Checkpoint) -> tuple[str, Tensors, dict[str, str], Files]:
    config = checkpoint.config
    given, processor = (checkpoint.origin.configs.get(name) for name in (HF_CONFIG, PROCESSOR))
    written = {HF_CONFIG: to_hf(config), PROCESSOR: to_hf_processor(config)}
    if given is not None and _same(lambda: from_hf(given, processor, config.tokenizer), config):
        written |= {HF_CONFIG: given} | ({PROCESSOR: processor} if processor else {})
    tensors = scatter(checkpoint, TABLES["hf_siglip" if is_siglip(config) else "hf_clip"])
    return HF_WEIGHTS[0], tensors, TORCH, _json_files(written) | _tokenizer_files(checkpoint)


def _openai(checkpoint: Checkpoint) -> tuple[str, Tensors, dict[str, str], Files]:
    config = checkpoint.config
    if differences := list(_differences(config.to_dict(), as_openai_builds(config).to_dict())):
        raise UserError(
            f"OpenAI's code would build something else than this model, which has {', '.join(differences)}; "
            "write the layout open_clip"
        )
    metadata = TORCH | {CONFIG_KEY: json.dumps(config.to_dict())}
    plain = replace(checkpoint, origin=replace(checkpoint.origin, scalar_shape=()))
    return HF_WEIGHTS[0], scatter(plain, open_clip_table(config)), metadata, {}


def _differences(ours: Mapping[str, Any], theirs: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """The settings of ours that theirs lacks, by dotted name, and what they are there."""
    for name, value in ours.items():
        other = theirs[name]
        if isinstance(value, Mapping) and isinstance(other, Mapping):
            yield from _differences(value, other, f"{prefix}{name}.")
        elif value != other:
            yield f"{prefix}{name} {value} (there {other})"


Contents = Callable[[Checkpoint], tuple[str, Tensors, dict[str, str], Files]]
LAYOUTS: Mapping[str, Contents] = {"clip_jax": _clip_jax, "open_clip": _open_clip, "hf": _hf, "openai": _openai}


def _with_metadata(parts: tuple[Tensors, Files], metadata: dict[str, str]) -> tuple[Tensors, dict[str, str], Files]:
    tensors, files = parts
    return tensors, metadata, files


def _same(build: Callable[[], ClipConfig], config: ClipConfig) -> bool:
    """Whether a config file that came with the model still describes it; the tokenizer has its own files."""
    try:
        return replace(build(), tokenizer=config.tokenizer) == config
    except (UserError, KeyError, TypeError, ValueError, AttributeError, ArithmeticError):
        return False


def _tokenizer_files(checkpoint: Checkpoint) -> Files:
    config = checkpoint.config
    return tokenizer_files_for_hf(config.tokenizer, config.text, checkpoint.tokenizer_files)


def _json_files(values: Mapping[str, Any]) -> Files:
    return {name: (json.dumps(value, indent=2) + "\n").encode() for name, value in values.items()}


def _read_watched(name: str, tensor: LazyTensor, strange: list[str], progress: tqdm) -> np.ndarray:
    values = tensor.read()
    if not is_finite(values):
        strange.append(name)
    progress.update()
    return values
