"""A checkpoint from a path, in whatever layout it is, which is recognised by content."""

import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

from einops import EinopsError

from clip_jax.config import ClipConfig, PreprocessConfig, TokenizerConfig
from clip_jax.errors import UserError
from clip_jax.inputs.hf_tokenizer import (
    SETTINGS,
    TOKENIZER_FILES,
    special_token_id,
    tokenizer_config_from_files,
)
from clip_jax.schema import parse
from clip_jax.weights import released
from clip_jax.weights.checkpoint import Checkpoint
from clip_jax.weights.evidence import Hints, big_vision_facts, config_from_shapes, openai_facts
from clip_jax.weights.hf_config import from_hf, from_hf_processor, is_siglip
from clip_jax.weights.json_files import parse_json, read_json, read_whole
from clip_jax.weights.keys import Shape, Table, observed_shapes
from clip_jax.weights.open_clip_config import from_open_clip
from clip_jax.weights.tables import OPENAI_SIZES, table_of
from clip_jax.weights.tensors import TensorFile, open_tensors
from clip_jax.weights.torch_file import torchscript_calls
from clip_jax.weights.translate import gather

T = TypeVar("T", ClipConfig, PreprocessConfig, TokenizerConfig)

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
    return _read_file(path, open_tensors(path), hints, NO_HINTS)


def _read_folder(folder: Path, hints: Hints, fallback: Hints) -> Checkpoint:
    open_clip = _has(folder, OPEN_CLIP_CONFIG)
    if hints != NO_HINTS and (open_clip or released.is_released(folder) or _hf_weights(folder)):
        raise UserError(
            f"{folder} has a config, which says what the model is; leave out --model, --activation, --vision-heads and "
            "--text-heads, or give the path of its file of weights to overrule the config"
        )
    if released.is_released(folder):
        return released.read(folder)
    if open_clip and (weights := _first(folder, OPEN_CLIP_WEIGHTS)):
        return _read_open_clip(folder, weights, open_tensors(weights))
    if weights := _hf_weights(folder):
        return _read_hf(folder, weights, open_tensors(weights))
    weights = _only_weights(folder)
    file = open_tensors(weights)
    return _read_open_clip(folder, weights, file) if open_clip else _read_file(weights, file, hints, fallback)


def _read_file(path: Path, file: TensorFile, hints: Hints, fallback: Hints) -> Checkpoint:
    """By the config that lies beside, unless there are hints, or none."""
    folder, hf = path.parent, _table(file).name.startswith("hf")
    if hints == NO_HINTS and hf and _has(folder, HF_CONFIG):
        return _read_hf(folder, path, file)
    if hints == NO_HINTS and not hf and file.kind != "npz" and _has(folder, OPEN_CLIP_CONFIG):
        return _read_open_clip(folder, path, file)
    return _read_bare(path, file, hints.over(fallback))


def _read_open_clip(folder: Path, weights: Path, file: TensorFile) -> Checkpoint:
    path = folder / OPEN_CLIP_CONFIG
    values = read_json(path)
    files = _tokenizer_files(folder)
    model = values.get("model_cfg", values)
    config = _checked(lambda: from_open_clip(model, values.get("preprocess_cfg")), str(path))
    config = _with_tokenizer(config, files, folder)
    return _finish(gather(_tensors(file), _table(file), config, str(weights)), {OPEN_CLIP_CONFIG: values}, files)


def _with_tokenizer(config: ClipConfig, files: Mapping[str, bytes], folder: Path) -> ClipConfig:
    tokenizer = _checked(lambda: _open_clip_tokenizer(config.tokenizer, files), _tokenizer_of(folder))
    return replace(config, tokenizer=tokenizer)


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
    values = read_json(folder / HF_CONFIG)
    source, processor = _hf_processor(folder)
    files = _tokenizer_files(folder)
    if processor is None:
        warnings.warn(f"{folder} has no {PROCESSOR}; the library's defaults are used", stacklevel=2)
    if not files:
        warnings.warn(f"{folder} has no tokenizer files; the library's defaults are used", stacklevel=2)
    config = _checked(lambda: from_hf(values, None, TokenizerConfig()), str(folder / HF_CONFIG))
    size, siglip = config.vision.image_size, is_siglip(config)
    config = replace(
        config,
        preprocess=_checked(lambda: from_hf_processor(processor, size, siglip), str(source)),
        tokenizer=_checked(lambda: tokenizer_config_from_files(files, values["model_type"]), _tokenizer_of(folder)),
    )
    configs = {HF_CONFIG: values} | ({} if processor is None else {PROCESSOR: processor})
    return _finish(gather(_tensors(file), _table(file), config, str(weights)), configs, files)


def _read_bare(path: Path, file: TensorFile, hints: Hints) -> Checkpoint:
    table, tensors = _table(file), _tensors(file)
    if CONFIG_KEY in file.metadata and hints == NO_HINTS:
        values = parse_json(file.metadata[CONFIG_KEY].encode(), f"the config in {path}")
        config = _checked(lambda: ClipConfig.from_dict(values), str(path))
        return gather(tensors, table, config, str(path))
    file_shapes = {key: tensor.shape for key, tensor in tensors.items()}
    shapes = _observed(table, file_shapes, path)
    facts = NO_HINTS
    if file.kind == "npz":
        facts = big_vision_facts(file_shapes)
    elif _is_openai(path, file):
        facts = openai_facts(shapes)
    config = config_from_shapes(shapes, hints, facts, str(path))
    files = _tokenizer_files(path.parent)
    config = _with_tokenizer(config, files, path.parent)
    return _finish(gather(tensors, table, config, str(path)), {}, files)


def _is_openai(path: Path, file: TensorFile) -> bool:
    """Whether a file is OpenAI's: it has the sizes as tensors, or is a TorchScript archive that computes no GELU."""
    sizes = set(OPENAI_SIZES.split("|"))
    return bool(sizes & file.tensors.keys()) or (file.kind == "torchscript" and not torchscript_calls(path, b"gelu"))


def _observed(table: Table, shapes: Mapping[str, Shape], path: Path) -> dict[str, Shape]:
    """The shapes of our parameters. Raises UserError for one that the table's pattern cannot be of."""
    try:
        return observed_shapes(table, shapes)
    except EinopsError as error:
        if len(shapes) > 1:  # which of them
            for key, shape in shapes.items():
                _observed(table, {key: shape}, path)
        key, shape = next(iter(shapes.items()))
        raise UserError(f"{key} in {path} has shape {list(shape)}, as no CLIP has it") from error


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


def _checked(build: Callable[[], T], source: str) -> T:
    """A config built from somebody else's JSON, every value of the type that it should have."""
    try:
        built = build()
        return parse(type(built), asdict(built), "model config" if isinstance(built, ClipConfig) else "config")
    except UserError as error:
        raise UserError(f"{source} cannot be used: {error}") from error
    except KeyError as error:
        raise UserError(f"{source} is damaged: {error} is missing") from error
    except (TypeError, AttributeError) as error:
        raise UserError(f"{source} is damaged: a value has the wrong type ({_line(error)})") from error
    except ArithmeticError as error:
        raise UserError(f"{source} is damaged: a number is zero or too large ({_line(error)})") from error
    except ValueError as error:
        raise UserError(f"{source} is damaged: a value is none that there can be ({_line(error)})") from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


def _has(folder: Path, name: str) -> bool:
    """Whether there is anything of that name: what cannot be read is to be told, not passed over."""
    return os.path.lexists(folder / name)


def _hf_weights(folder: Path) -> Path | None:
    """The weights that config.json describes, None where there are none or it belongs to others.

    Beside open_clip's files, one without a model_type is timm's, of an image tower alone.
    """
    if not _has(folder, HF_CONFIG):
        return None
    values = read_json(folder / HF_CONFIG)
    if "model_type" not in values and any(_has(folder, name) for name in (OPEN_CLIP_CONFIG, *OPEN_CLIP_WEIGHTS)):
        return None
    return _first(folder, HF_WEIGHTS)


def _hf_processor(folder: Path) -> tuple[Path, dict[str, Any] | None]:
    """The image processor's config, None where there is none, and the file that it is in."""
    if _has(folder, PROCESSOR):
        return folder / PROCESSOR, read_json(folder / PROCESSOR)
    path = folder / PROCESSORS
    values = read_json(path).get("image_processor") if _has(folder, PROCESSORS) else None
    if not isinstance(values, dict | None):
        raise UserError(f"{path} is damaged: its image_processor is no JSON object")
    return path, values


def _tokenizer_of(folder: Path) -> str:
    return f"the tokenizer in {folder}"


def _tokenizer_files(folder: Path) -> dict[str, bytes]:
    paths = {name: folder / name for name in TOKENIZER_FILES if _has(folder, name)}
    return {name: read_whole(path, released.MAX_TOKENIZER_FILE) for name, path in paths.items()}


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
