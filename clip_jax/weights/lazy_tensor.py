"""Named tensors of a file, each read from it when it is asked for."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import UInt8

from clip_jax.errors import UserError

_MAX_DIMENSIONS = 32
_MAX_ELEMENTS = 2**48  # numpy refuses shapes much larger, even where another dimension is zero


@dataclass(frozen=True)
class LazyTensor:
    """A tensor of a file: `dtype` is one of NumPy's or ml_dtypes', in the machine's byte order.

    `read` reads the values, C-contiguous, into a fresh array each time; `read_rows(start, stop)` some of the first
    axis, where the kind of file allows that. Both raise UserError where the file is damaged.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[], np.ndarray]
    read_rows: Callable[[int, int], np.ndarray] | None = None


Tensors = Mapping[str, LazyTensor]


@dataclass(frozen=True)
class TensorFile:
    """The tensors of a file, in its order, by name.

    `metadata` is what safetensors calls so, or the printable strings and numbers beside a state dict in a torch file
    (`epoch`, `name`, ...). Of a sharded model, `kind` is that of its shards, and `metadata` the index's.
    """

    kind: Literal["safetensors", "torch", "torchscript", "npz"]
    tensors: dict[str, LazyTensor]
    metadata: dict[str, str]


def read_bytes(path: Path, offset: int, size: int) -> UInt8[np.ndarray, " size"]:
    """`size` bytes of a file from `offset` on. Raises UserError where it ends before, or cannot be read."""
    content = np.empty(size, np.uint8)
    filled = 0
    try:
        with open(path, "rb", buffering=0) as file:
            file.seek(offset)
            while filled < size:
                count = file.readinto(content.data[filled:])
                if not count:
                    raise damaged(path, "it ends too soon")
                filled += count
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    return content


def check_shape(path: Path, name: str, shape: tuple[int, ...]) -> None:
    """Raises UserError for a shape that no array can have."""
    negative = any(size < 0 for size in shape)
    if negative or len(shape) > _MAX_DIMENSIONS or math.prod(size or 1 for size in shape) > _MAX_ELEMENTS:
        raise damaged(path, f"the shape of {shown(name)} is impossible")


def scalars(values: Any) -> dict[str, str]:
    """The printable strings and the numbers of a dict, as strings; nothing of what is no dict."""
    return {
        name: str(value)
        for name, value in (values.items() if isinstance(values, dict) else ())
        if isinstance(name, str)
        and name.isprintable()
        and ((isinstance(value, str) and value.isprintable()) or isinstance(value, float) or _is_short(value))
    }


def _is_short(value: Any) -> bool:
    return isinstance(value, int) and abs(value) < 2**63


def damaged(path: Path, what: str) -> UserError:
    """The error to raise for a file in which `what` is wrong."""
    return UserError(f"{path} is truncated or damaged ({what}); fetch it again")


def shown(name: str) -> str:
    """A name that a file gives, fit for one line of an error message."""
    short = name if len(name) <= 200 else name[:200] + "..."
    return short if short.isprintable() else ascii(short)
