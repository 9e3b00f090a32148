"""Reading and writing of safetensors files, a tensor at a time.

The library checks a file's header, and the values are read at the offsets that it gives: the library maps the whole
file into memory, and its NumPy interface knows no float8. The library writes only what is in memory as a whole.

The format: https://github.com/huggingface/safetensors#format
"""

import json
import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from clip_jax.errors import UserError
from clip_jax.weights.lazy_tensor import LazyTensor, TensorFile, Tensors, check_shape, damaged, read_bytes, shown

MAX_HEADER = 100_000_000  # bytes, the library's limit
# In the order in which the library writes them, so that each lies at a multiple of its size.
DTYPES = {
    name: np.dtype(dtype)
    for name, dtype in {
        "U64": np.uint64,
        "I64": np.int64,
        "F64": np.float64,
        "F32": np.float32,
        "U32": np.uint32,
        "I32": np.int32,
        "BF16": ml_dtypes.bfloat16,
        "F16": np.float16,
        "U16": np.uint16,
        "I16": np.int16,
        "F8_E5M2FNUZ": ml_dtypes.float8_e5m2fnuz,
        "F8_E4M3FNUZ": ml_dtypes.float8_e4m3fnuz,
        "F8_E8M0": ml_dtypes.float8_e8m0fnu,
        "F8_E4M3": ml_dtypes.float8_e4m3fn,
        "F8_E5M2": ml_dtypes.float8_e5m2,
        "I8": np.int8,
        "U8": np.uint8,
        "BOOL": np.bool_,
    }.items()
}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_RANKS = {dtype: rank for rank, dtype in enumerate(_NAMES)}


def open_safetensors(path: Path) -> TensorFile:
    """The tensors in the order of their values. Raises UserError for a damaged file or a type that NumPy lacks."""
    try:
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise damaged(path, f"safetensors says: {shown(str(error))}") from error
    length = int.from_bytes(read_bytes(path, 0, 8).tobytes(), "little")
    header = json.loads(read_bytes(path, 8, length).tobytes())
    header.pop("__metadata__", None)
    entries = sorted(header.items(), key=lambda item: item[1]["data_offsets"])
    tensors = {name: _lazy(path, name, entry, 8 + length) for name, entry in entries}
    return TensorFile("safetensors", tensors, metadata)


def _lazy(path: Path, name: str, entry: dict[str, Any], base: int) -> LazyTensor:
    shape, (start, _) = tuple(entry["shape"]), entry["data_offsets"]
    if entry["dtype"] not in DTYPES:
        raise UserError(f"{shown(name)} in {path} is of type {shown(entry['dtype'])}; read are {', '.join(DTYPES)}")
    check_shape(path, name, shape)
    dtype = DTYPES[entry["dtype"]]
    place = (path, base + start, shape, dtype)
    return LazyTensor(shape, dtype, partial(_read, *place), partial(_read_rows, *place) if shape else None)


def _read(path: Path, offset: int, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    return read_bytes(path, offset, math.prod(shape) * dtype.itemsize).view(dtype).reshape(shape)


def _read_rows(path: Path, offset: int, shape: tuple[int, ...], dtype: np.dtype, start: int, stop: int) -> np.ndarray:
    row = math.prod(shape[1:]) * dtype.itemsize
    return _read(path, offset + start * row, (stop - start, *shape[1:]), dtype)


def write_safetensors(path: Path, tensors: Tensors, metadata: Mapping[str, str]) -> None:
    """Writes a file of named tensors, holding one of them at a time; an existing file is overwritten.

    Raises UserError where a tensor is not what it promised, is of a type that safetensors lacks, or where the file
    cannot be written, which leaves a part of it behind.
    """
    for name, tensor in tensors.items():
        if tensor.dtype not in _NAMES:
            raise UserError(f"{name} is of type {tensor.dtype}, which safetensors lacks; it has {', '.join(DTYPES)}")
    ordered = dict(sorted(tensors.items(), key=lambda item: (_RANKS[item[1].dtype], item[0])))
    try:
        with open(path, "wb") as file:
            file.write(_header(ordered, metadata))
            for name, tensor in ordered.items():
                _write(file, name, tensor)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error


def _write(file: BinaryIO, name: str, tensor: LazyTensor) -> None:
    values = tensor.read()
    if values.shape != tensor.shape or values.dtype != tensor.dtype:
        found, promised = (f"{kind.dtype}{list(kind.shape)}" for kind in (values, tensor))
        raise UserError(f"{name} was read as {found}, not as {promised} as its file promised")
    file.write(np.asarray(values, order="C").reshape(-1).view(np.uint8).data)


def _header(ordered: Tensors, metadata: Mapping[str, str]) -> bytes:
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name, tensor in ordered.items():
        start, end = end, end + math.prod(tensor.shape) * tensor.dtype.itemsize
        header[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
