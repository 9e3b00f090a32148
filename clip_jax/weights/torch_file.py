"""Tensors of what torch.save (since torch 1.6) and TorchScript write: a zip of a pickle and one entry per storage."""

import math
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from clip_jax.errors import UserError
from clip_jax.weights.archive import Archive, open_archive
from clip_jax.weights.lazy_tensor import LazyTensor, TensorFile, check_shape, damaged, scalars, shown
from clip_jax.weights.pickled import PickledTensor, Record, unpickle

_MAX_SMALL = 64 * 2**20  # bytes; the pickles of the largest models have less than one
_MAX_MODULES, _MAX_DEPTH, _MAX_NAME = 20_000, 100, 1000

# Training checkpoints hold their state dict under one of these, the first that is there. Optimiser states are not read.
WRAPPERS = ("state_dict", "state_dict_ema", "model_state_dict", "model")
# What DistributedDataParallel and torch.compile put before every name.
PREFIXES = ("module.", "_orig_mod.")


def is_torch(archive: Archive) -> bool:
    """Whether an archive has the pickle that every torch file has."""
    return len(_pickles(archive)) == 1


def open_torch(archive: Archive) -> TensorFile:
    """The tensors of a state dict, or all parameters, buffers and other tensors of a TorchScript module.

    Names are those of torch's `state_dict()`, without PREFIXES where all have them. Raises UserError where the file is
    damaged, names anything that is no part of a tensor, or holds no state dict.
    """
    path, (pickle,) = archive.path, _pickles(archive)
    folder = pickle.removesuffix("data.pkl")
    byteorder = f"{folder}byteorder"
    if byteorder in archive.entries and _read_small(archive, byteorder) != b"little":
        raise UserError(f"{path} was saved in big-endian order; save it again on a little-endian machine")
    torchscript = f"{folder}constants.pkl" in archive.entries and any(
        name.startswith(f"{folder}code/") for name in archive.entries
    )
    content = unpickle(_read_small(archive, pickle), path, torchscript)
    if torchscript:
        named, beside = _of_module(path, content)
    else:
        named, beside = _of_state_dict(path, content)
    if not named:
        raise UserError(f"{path} holds no tensors; give the file of a model's weights")
    tensors = {name: _lazy(archive, folder, name, tensor) for name, tensor in named.items()}
    return TensorFile("torchscript" if torchscript else "torch", tensors, scalars(beside))


def torchscript_calls(path: Path, function: bytes) -> bool:
    """Whether the code of a TorchScript archive, which is never run, calls a function such as `gelu`."""
    archive = open_archive(path)
    codes = (name for name in archive.entries if "/code/" in name and name.endswith(".py"))
    return any(b"torch." + function + b"(" in archive.read(name).tobytes() for name in codes)


def _pickles(archive: Archive) -> list[str]:
    return [name for name in archive.entries if name.count("/") == 1 and name.endswith("/data.pkl")]


def _read_small(archive: Archive, name: str) -> bytes:
    """An entry that is no storage."""
    if archive.entries[name].file_size > _MAX_SMALL:
        raise UserError(f"{archive.path} has a {shown(name)} of over {_MAX_SMALL // 2**20} MiB; no model needs so much")
    return archive.read(_uncompressed(archive, name)).tobytes()


def _uncompressed(archive: Archive, name: str) -> str:
    if archive.entries[name].compress_type != zipfile.ZIP_STORED:
        raise UserError(f"{shown(name)} in {archive.path} is compressed; give the file as torch wrote it")
    return name


def _of_state_dict(path: Path, content: Any) -> tuple[dict[str, PickledTensor], dict[Any, Any]]:
    """The tensors by name, and all that lies beside them."""
    beside: dict[Any, Any] = {}
    if type(content) is dict:
        for wrapper in WRAPPERS:
            if type(content.get(wrapper)) is dict:
                beside = {key: value for key, value in content.items() if key != wrapper}
                content = content[wrapper]
                break
    if type(content) is not dict:
        raise UserError(f"{path} holds no state dict; give one that was saved with torch.save(model.state_dict(), ...)")
    tensors = {}
    for name, value in content.items():
        if not isinstance(value, PickledTensor):
            if _holds_tensor(value):
                where = shown(name) if isinstance(name, str) else "an entry without a name"
                raise UserError(f"{path} holds tensors inside of {where}; a state dict is flat")
            beside[name] = value
        else:
            tensors[_join(path, "", name)] = value
    while tensors and (prefix := next((p for p in PREFIXES if all(name.startswith(p) for name in tensors)), None)):
        tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors, beside


def _of_module(path: Path, content: Any) -> tuple[dict[str, PickledTensor], dict[Any, Any]]:
    """The tensors of a TorchScript module and its submodules by dotted name, and the other attributes of the root."""
    if not isinstance(content, Record):
        raise UserError(f"{path} is a TorchScript file that holds no module")
    tensors: dict[str, PickledTensor] = {}
    for count, (prefix, module) in enumerate(_modules(path, content)):
        if count > _MAX_MODULES:  # a few modules that share theirs can make any number
            raise UserError(f"{path} has more than {_MAX_MODULES} modules; no model needs so many")
        for name, value in module.attributes.items():
            if isinstance(value, PickledTensor):
                full = _join(path, prefix, name)
                if full in tensors:
                    raise damaged(path, f"two tensors are named {shown(full)}")
                tensors[full] = value
    return tensors, content.attributes


def _modules(path: Path, module: Record, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Record]]:
    """A module and all below it, with what stands before the names of its tensors."""
    if depth > _MAX_DEPTH:
        raise UserError(f"{path} has modules nested more than {_MAX_DEPTH} deep; no model needs so many")
    yield prefix, module
    for name, value in module.attributes.items():
        if isinstance(value, Record):
            yield from _modules(path, value, f"{_join(path, prefix, name)}.", depth + 1)


def _join(path: Path, prefix: str, name: Any) -> str:
    if not isinstance(name, str) or len(prefix) + len(name) > _MAX_NAME:
        raise UserError(f"{path} has a tensor or module whose name is no string of up to {_MAX_NAME} characters")
    return prefix + name


def _holds_tensor(value: Any) -> bool:
    """Whether there is a tensor anywhere in nested containers, which may share parts or contain themselves."""
    seen: set[int] = set()
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, PickledTensor):
            return True
        if isinstance(value, dict | list | tuple) and id(value) not in seen:
            seen.add(id(value))
            waiting.extend(value.values() if isinstance(value, dict) else value)
    return False


def _lazy(archive: Archive, folder: str, name: str, tensor: PickledTensor) -> LazyTensor:
    """Raises UserError where the tensor reaches outside of its storage."""
    path, itemsize = archive.path, tensor.dtype.itemsize
    storage = f"{folder}data/{tensor.storage.key}"
    if storage not in archive.entries:
        raise damaged(path, f"the storage of {shown(name)} is missing")
    size = archive.entries[_uncompressed(archive, storage)].file_size
    check_shape(path, name, tensor.size)
    elements = math.prod(tensor.size)
    stop = tensor.offset
    if elements:
        stop += 1 + sum((n - 1) * stride for n, stride in zip(tensor.size, tensor.stride, strict=True))
    if stop * itemsize > size:
        raise damaged(path, f"{shown(name)} reaches outside of its storage")
    if elements * itemsize > archive.size:  # repeated by strides of zero
        raise UserError(f"{path} blows {shown(name)} up to more than the file has; save it contiguous")
    return LazyTensor(tensor.size, tensor.dtype, partial(_read, archive, storage, tensor, stop))


def _read(archive: Archive, storage: str, tensor: PickledTensor, stop: int) -> np.ndarray:
    itemsize = tensor.dtype.itemsize
    content = archive.read(storage, tensor.offset * itemsize, stop * itemsize)
    strides = tuple(stride * itemsize for stride in tensor.stride)
    if not content.size:
        return np.empty(tensor.size, tensor.dtype)
    return np.asarray(np.ndarray(tensor.size, tensor.dtype, content, 0, strides), order="C")
