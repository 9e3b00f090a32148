"""Files of named tensors of every kind that models are published in, recognised by their content."""

import json
from pathlib import Path
from typing import Any

from clip_jax.errors import UserError
from clip_jax.weights.archive import open_archive
from clip_jax.weights.folders import inside
from clip_jax.weights.lazy_tensor import LazyTensor, TensorFile, Tensors, scalars, shown
from clip_jax.weights.npz import is_npz, open_npz
from clip_jax.weights.safetensors_file import MAX_HEADER, open_safetensors
from clip_jax.weights.torch_file import is_torch, open_torch

__all__ = ["LazyTensor", "TensorFile", "Tensors", "open_tensors"]

_READ = "safetensors, files of torch.save or TorchScript, .npz and indexes of sharded models are read"
_MAX_INDEX = 16 * 2**20  # bytes
_NAMED_PROBLEMS = 10
_OTHER_KINDS = {  # how a file begins, and what to say of it
    b"version https://git-lfs": "is a git-lfs pointer, not the file itself; fetch the file, with git lfs pull",
    b"<!doctype html": "is an HTML page, not the file that was to be downloaded; fetch the file itself",
    b"<html": "is an HTML page, not the file that was to be downloaded; fetch the file itself",
    b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19": (
        "is in the format of torch before 1.6, which is not read; load it in a newer torch and save it again"
    ),
    b"\x80": "is a bare pickle, which is not read; save the tensors with torch.save or as safetensors",
    b"\x1f\x8b": "is compressed with gzip; unpack it first",
    b"\x89HDF": f"is an HDF5 file, which is not read; {_READ}",
}


def open_tensors(path: Path) -> TensorFile:
    """The tensors of a file, none of which is read yet; of a sharded model's index, those of all its shards.

    The content tells the kind, never the name, and nothing in a file is run. Raises UserError for a file that is
    missing, of another kind, damaged, or built to do harm.
    """
    head = _head(path)
    return _open_index(path) if head.lstrip().startswith(b"{") and not _is_safetensors(head) else _open_file(path, head)


def _open_file(path: Path, head: bytes) -> TensorFile:
    if _is_safetensors(head):
        file = open_safetensors(path)
    elif head.startswith((b"PK\3\4", b"PK\5\6")):
        file = _open_zip(path)
    else:
        raise UserError(f"{path} {_unreadable(head)}")
    for name in file.tensors:
        if not name.isprintable():
            raise UserError(f"{path} has a tensor named {name[:100]!a}; names are printable")
    return file


def _open_zip(path: Path) -> TensorFile:
    archive = open_archive(path)
    if is_torch(archive):
        return open_torch(archive)
    if is_npz(archive):
        return open_npz(archive)
    raise UserError(f"{path} is a zip archive, but neither torch's nor NumPy's; {_READ}")


def _is_safetensors(head: bytes) -> bool:
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= MAX_HEADER


def _unreadable(head: bytes) -> str:
    """What is wrong with a file that begins so, and what would be right."""
    if not head:
        return "is empty; fetch it again"
    if head[257:262] == b"ustar":
        return "is a tar archive; unpack it and give the file of the weights"
    for beginning, what in _OTHER_KINDS.items():
        if head.lstrip().lower().startswith(beginning.lower()):
            return what
    return f"is no file of tensors; {_READ}"


def _head(path: Path) -> bytes:
    if path.exists() and not path.is_file():
        raise UserError(f"{path} is not a file; give the file of a model's weights")
    try:
        with open(path, "rb") as file:
            return file.read(512)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error


def _open_index(path: Path) -> TensorFile:
    """All tensors of the shards beside an index. Every problem is named, in one message."""
    index = _read_index(path)
    weight_map: dict[str, str] = index["weight_map"]
    problems: list[str] = []
    shards: dict[str, TensorFile] = {}
    for name in sorted(set(weight_map.values())):
        try:
            shard = inside(path.parent, name)
            shards[name] = _open_file(shard, _head(shard))
        except UserError as error:
            problems.append(str(error))
    tensors = {}
    for shard, file in shards.items():
        tensors |= file.tensors
        surplus = [name for name in file.tensors if weight_map.get(name) != shard]
        problems += [f"{shard} holds {name}, which the index does not place there" for name in surplus]
    for name, shard in weight_map.items():
        if shard in shards and name not in shards[shard].tensors:
            problems.append(f"{shown(name)} is missing from {shard}")
    kinds = {file.kind for file in shards.values()}
    if len(kinds) > 1:
        problems.append(f"the shards are of several kinds, {' and '.join(sorted(kinds))}")
    if problems:
        more = len(problems) - _NAMED_PROBLEMS
        listed = "; ".join(problems[:_NAMED_PROBLEMS]) + (f"; and {more} more problems" if more > 0 else "")
        raise UserError(f"the shards of {path} do not fit their index: {listed}")
    return TensorFile(next(iter(shards.values())).kind, tensors, scalars(index.get("metadata", {})))


def _read_index(path: Path) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            index = json.loads(file.read(_MAX_INDEX))
        weight_map = index["weight_map"]
        whole = weight_map and all(isinstance(name, str) for name in weight_map.values())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path} is JSON, but no index with a 'weight_map' of a sharded model; {_READ}") from error
    if not whole:
        raise UserError(f"the 'weight_map' of {path} must name a shard for each tensor")
    return index
