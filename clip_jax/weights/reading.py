"""A checkpoint from a path, in whatever layout it is, which is recognised by content."""

import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from clip_jax.config import ClipConfig, TokenizerConfig
from clip_jax.errors import UserError
from clip_jax.inputs.hf_tokenizer import (
    SETTINGS,
    TOKENIZER_FILES,
    special_token_id,
    tokenizer_config_from_files,
)
from clip_jax.weights import released
from clip_jax.weights.checkpoint import Checkpoint
from clip_jax.weights.evidence import Hints, big_vision_facts, config_from_shapes, openai_facts
from clip_jax.weights.hf_config import from_hf
from clip_jax.weights.keys import Table, observed_shapes
from clip_jax.weights.open_clip_config import from_open_clip
from clip_jax.weights.tables import OPENAI_SIZES, table_of
from clip_jax.weights.tensors import TensorFile, open_tensors
from clip_jax.weights.torch_file import torchscript_calls
from clip_jax.weights.translate import gather

OPEN_CLIP_CONFIG = "open_clip_config.json"
HF_CONFIG = "config.json"
PROCESSOR, PROCESSORS = "preprocessor_config.json", "processor_config.json"

# What each library looks for, in its order.
OPEN_CLIP_WEIGHTS = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pth",
)
HF_WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
WEIGHTS_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".npz")
CONFIG_KEY = "clip_jax"  # of safetensors metadata: the config of weights that are written without a config file


NO_HINTS = Hints()


def read_checkpoint(path: Path, hints: Hints = NO_HINTS, fallback: Hints = NO_HINTS) -> Checkpoint:
    """A model in any layout but training checkpoints: a folder or a file, its parameters not read yet.

    `hints` are a user's word about weights without a config, `fallback` what else is known of those. Raises UserError
    for what is no model, is damaged, leaves the architecture open, or has a config and yet gets hints.
    """
    if path.is_dir():
        return _read_folder(path, hints, fallback)
    beside = path.parent
    if path.name == released.WEIGHTS and released.is_released(beside):
        return released.read(beside)
    file = open_tensors(path)
    if hints == NO_HINTS and file.kind != "npz":  # a file of a folder that says what it is
        table = _table(file)
        if (beside / OPEN_CLIP_CONFIG).is_file() and not table.name.startswith("hf"):
            return _read_open_clip(beside, path, file)
        if table.name.startswith("hf") and _hf_kind(beside):
            return _read_hf(beside, path, file)
    return _read_bare(path, file, hints)


def _read_folder(folder: Path, hints: Hints, fallback: Hints) -> Checkpoint:
    open_clip = (folder / OPEN_CLIP_CONFIG).is_file()
    if hints != NO_HINTS and (open_clip or released.is_released(folder) or _hf_kind(folder)):
        raise UserError(
            f"{folder} has a config, which says what the model is; leave out --model, --activation, --vision-heads and "
            "--text-heads, or give the path of its file of weights to overrule the config"
        )
    if released.is_released(folder):
        return released.read(folder)
    if open_clip and (weights := _first(folder, OPEN_CLIP_WEIGHTS)):
        return _read_open_clip(folder, weights, open_tensors(weights))
    if _hf_kind(folder) and (weights := _first(folder, HF_WEIGHTS)):
        return _read_hf(folder, weights, open_tensors(weights))
    weights = _only_weights(folder)
    file = open_tensors(weights)
    return _read_open_clip(folder, weights, file) if open_clip else _read_bare(weights, file, hints.over(fallback))


def _read_open_clip(folder: Path, weights: Path, file: TensorFile) -> Checkpoint:
    values = _read_json(folder / OPEN_CLIP_CONFIG)
    model = values.get("model_cfg", values)
    files = _tokenizer_files(folder)

    def build() -> ClipConfig:
        config = from_open_clip(model, values.get("preprocess_cfg"))
        return replace(config, tokenizer=_open_clip_tokenizer(config.tokenizer, files))

    config = _checked(build, folder / OPEN_CLIP_CONFIG)
    return _finish(gather(_tensors(file), _table(file), config, str(weights)), {OPEN_CLIP_CONFIG: values}, files)


def _open_clip_tokenizer(tokenizer: TokenizerConfig, files: Mapping[str, bytes]) -> TokenizerConfig:
    """The files say how to tokenise, the config says how open_clip cleans a text before."""
    if tokenizer.kind == "clip_bpe" or not files:
        return tokenizer
    found = tokenizer_config_from_files(files)
    if found.kind == "clip_bpe":
        return found
    separator = special_token_id(files, "sep_token")
    zeroed = None if tokenizer.zeroed_id is None else separator or tokenizer.zeroed_id
    pad_id = found.pad_id if SETTINGS in files else tokenizer.pad_id  # a vocabulary alone does not tell it
    return replace(found, clean=tokenizer.clean, repository=tokenizer.repository, pad_id=pad_id, zeroed_id=zeroed)


def _read_hf(folder: Path, weights: Path, file: TensorFile) -> Checkpoint:
    values = _read_json(folder / HF_CONFIG)
    processor = _hf_processor(folder)
    files = _tokenizer_files(folder)
    if processor is None:
        warnings.warn(f"{folder} has no {PROCESSOR}; the library's defaults are used", stacklevel=2)
    if not files:
        warnings.warn(f"{folder} has no tokenizer files; the library's defaults are used", stacklevel=2)

    def build() -> ClipConfig:
        return from_hf(values, processor, tokenizer_config_from_files(files, values.get("model_type")))

    config = _checked(build, folder / HF_CONFIG)
    configs = {HF_CONFIG: values} | ({} if processor is None else {PROCESSOR: processor})
    return _finish(gather(_tensors(file), _table(file), config, str(weights)), configs, files)


def _read_bare(path: Path, file: TensorFile, hints: Hints) -> Checkpoint:
    table, tensors = _table(file), _tensors(file)
    if CONFIG_KEY in file.metadata and hints == NO_HINTS:
        config = _checked(lambda: ClipConfig.from_dict(json.loads(file.metadata[CONFIG_KEY])), path)
        return gather(tensors, table, config, str(path))
    file_shapes = {key: tensor.shape for key, tensor in tensors.items()}
    shapes = observed_shapes(table, file_shapes)
    facts = NO_HINTS
    if file.kind == "npz":
        facts = big_vision_facts(file_shapes)
    elif _is_openai(path, file):
        facts = openai_facts(shapes)
    config = config_from_shapes(shapes, hints, facts, str(path))
    files = _tokenizer_files(path.parent)
    config = replace(config, tokenizer=_open_clip_tokenizer(config.tokenizer, files))
    return _finish(gather(tensors, table, config, str(path)), {}, files)


def _is_openai(path: Path, file: TensorFile) -> bool:
    """Whether a file is OpenAI's: it has the sizes as tensors, or is a TorchScript archive that computes no GELU."""
    sizes = set(OPENAI_SIZES.split("|"))
    return bool(sizes & file.tensors.keys()) or (file.kind == "torchscript" and not torchscript_calls(path, b"gelu"))


def _finish(checkpoint: Checkpoint, configs: dict[str, Any], files: Mapping[str, bytes]) -> Checkpoint:
    tokenizer_files = {} if checkpoint.config.tokenizer.kind == "clip_bpe" else files
    return replace(
        checkpoint, origin=replace(checkpoint.origin, configs=configs), tokenizer_files=dict(tokenizer_files)
    )


def _table(file: TensorFile) -> Table:
    return table_of(set(_tensors(file)))


def _tensors(file: TensorFile) -> Mapping[str, Any]:
    """The tensors by name, without big_vision's root `params/`."""
    root = "params/"
    if file.tensors and all(key.startswith(root) for key in file.tensors):
        return {key.removeprefix(root): tensor for key, tensor in file.tensors.items()}
    return file.tensors


def _checked(build: Callable[[], ClipConfig], source: Path) -> ClipConfig:
    """A config built from somebody else's JSON, every value of the type that it should have."""
    try:
        return ClipConfig.from_dict(build().to_dict())
    except UserError as error:
        raise UserError(f"{source} cannot be used: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError) as error:
        raise UserError(f"{source} is damaged: {type(error).__name__} {error}") from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged: {error}") from error
    if not isinstance(values, dict):
        raise UserError(f"{path} is damaged: it holds no JSON object")
    return values


def _hf_kind(folder: Path) -> str | None:
    path = folder / HF_CONFIG
    return _read_json(path).get("model_type") if path.is_file() else None


def _hf_processor(folder: Path) -> dict[str, Any] | None:
    if (folder / PROCESSOR).is_file():
        return _read_json(folder / PROCESSOR)
    if (folder / PROCESSORS).is_file():
        return _read_json(folder / PROCESSORS).get("image_processor")
    return None


def _tokenizer_files(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in TOKENIZER_FILES if (folder / name).is_file()}


def _first(folder: Path, names: tuple[str, ...]) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _only_weights(folder: Path) -> Path:
    if preferred := _first(folder, OPEN_CLIP_WEIGHTS + HF_WEIGHTS):
        return preferred
    found = sorted(path for path in folder.iterdir() if path.suffix in WEIGHTS_SUFFIXES)
    if len(found) == 1:
        return found[0]
    if found:
        raise UserError(f"{folder} holds {', '.join(p.name for p in found)}; give the path of the one to read")
    raise UserError(
        f"{folder} holds no model: neither {released.DESCRIPTION}, {OPEN_CLIP_CONFIG} nor {HF_CONFIG} with weights, "
        "nor training checkpoints"
    )
