"""What every source of captioned images is: a table of samples with random access and no iterator state."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
from jaxtyping import Int

from clip_jax.errors import UserError

Indices: TypeAlias = Sequence[int] | Int[np.ndarray, " b"]


@dataclass(frozen=True)
class Sample:
    """One image as stored, with what is said about it.

    `key` is unique within its table. `image` is an encoded file (JPEG, PNG, WebP). `captions` may be empty where
    the source has labels only; `label` is an index into the table's `class_names`.
    """

    key: str
    image: bytes
    captions: tuple[str, ...]
    label: int | None = None


@runtime_checkable
class Table(Protocol):
    """Samples 0 to len-1, readable in any order and from several threads at once."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """The name of each label; empty where the source has none."""
        ...

    def __len__(self) -> int: ...

    def keys(self, indices: Indices) -> list[str]:
        """The keys of the samples at `indices`, without reading the samples."""
        ...

    def read(self, indices: Indices) -> list[Sample]:
        """The samples at `indices`, in that order. Raises UserError where one cannot be read."""
        ...


def check_indices(indices: Indices, samples: int) -> Int[np.ndarray, " b"]:
    """`indices` as an int64 array. Raises IndexError where one is not in [0, samples)."""
    array = np.asarray(indices, dtype=np.int64)
    if array.size and (array.min() < 0 or array.max() >= samples):
        raise IndexError(f"sample indices {array.min()} to {array.max()} leave the table's 0 to {samples - 1}")
    return array


def read_class_names(path: Path) -> tuple[str, ...]:
    """The names in a file of one class name a line. Raises UserError where it cannot be read."""
    try:
        return tuple(line.strip() for line in path.read_text(encoding="utf-8").strip().splitlines())
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text; one class name a line would be") from error
