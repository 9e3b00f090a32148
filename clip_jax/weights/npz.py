"""Tensors of NumPy's .npz files, as big_vision writes its checkpoints: a zip of one .npy file per tensor."""

import io
import math
from functools import partial
from typing import Literal

import ml_dtypes
import numpy as np

from clip_jax.errors import UserError
from clip_jax.weights.archive import Archive
from clip_jax.weights.lazy_tensor import LazyTensor, TensorFile, check_shape, damaged, shown

_MAX_RATIO = 100  # of the size of all tensors to that of the file
_MAX_HEADER = 10_000  # bytes; NumPy evaluates no longer one either
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def is_npz(archive: Archive) -> bool:
    """Whether an archive has .npy files and nothing else."""
    return bool(archive.entries) and all(name.endswith(".npy") for name in archive.entries)


def open_npz(archive: Archive) -> TensorFile:
    """The tensors by their names in the file, such as `params/img/embedding/kernel`.

    Raises UserError for objects, strings and other types that no tensor has, and for what is damaged.
    """
    total = sum(entry.file_size for entry in archive.entries.values())
    if total > _MAX_RATIO * archive.size:
        raise UserError(f"{archive.path} unpacks to {total} bytes, over {_MAX_RATIO} times its size; no weights do")
    tensors = {entry.removesuffix(".npy"): _lazy(archive, entry) for entry in archive.entries}
    return TensorFile("npz", tensors, {})


def _lazy(archive: Archive, entry: str) -> LazyTensor:
    path, size = archive.path, archive.entries[entry].file_size
    header = io.BytesIO(archive.read(entry, 0, min(size, _MAX_HEADER)).tobytes())
    try:
        shape, fortran, stored = _HEADERS[np.lib.format.read_magic(header)](header)
    except Exception as error:  # NumPy evaluates the header, and raises many things over a damaged one
        raise damaged(path, f"the header of {shown(entry)} makes no sense") from error
    # NumPy knows no bfloat16 and stores it as two bytes of anything.
    dtype = np.dtype(ml_dtypes.bfloat16) if stored.str[1:] == "V2" else stored.newbyteorder("=")
    if dtype != ml_dtypes.bfloat16 and (dtype.kind not in "biuf" or dtype.itemsize > 8):
        raise UserError(f"{shown(entry)} in {path} is of type {stored}; only tensors of real numbers are read")
    check_shape(path, entry, shape)
    if header.tell() + math.prod(shape) * dtype.itemsize != size:
        raise damaged(path, f"{shown(entry)} is not of the size that its header says")
    order = "F" if fortran else "C"
    stored = dtype if dtype == ml_dtypes.bfloat16 else stored
    return LazyTensor(shape, dtype, partial(_read, archive, entry, header.tell(), shape, stored, order))


def _read(
    archive: Archive, entry: str, start: int, shape: tuple[int, ...], stored: np.dtype, order: Literal["C", "F"]
) -> np.ndarray:
    values = archive.read(entry)[start:].view(stored).reshape(shape, order=order)
    return np.asarray(values, stored.newbyteorder("="), order="C")
