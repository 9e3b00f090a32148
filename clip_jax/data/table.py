"""What every source of captioned images is: a table of samples with random access and no iterator state."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np
from jaxtyping import Int

from clip_jax.errors import UserError

Indices: TypeAlias = Sequence[int] | Int[np.ndarray, " b"]
Cause: TypeAlias = Literal[
    "no image", "bad image", "too many pixels", "no caption", "bad caption", "bad label", "cut short"
]
"""Why a sample cannot be used; `cut short` where its file ends before it."""


@dataclass(frozen=True)
class Sample:
    """One image as stored, with what is said about it.

    `key` is unique within its table. `image` is an encoded file (JPEG, PNG, WebP). `captions` may be empty where
    the source has labels only; where they are of several fields, `captions_by_field` says how many each gave, in the
    order that these were named in. `label` is an index into the table's `class_names`; where images have several,
    `labels` are those of this one, which may have none.
    """

    key: str
    image: bytes
    captions: tuple[str, ...]
    label: int | None = None
    captions_by_field: tuple[int, ...] = ()
    labels: tuple[int, ...] | None = None

    def caption_weights(self, weights: tuple[float, ...]) -> tuple[float, ...]:
        """Of each caption, from `weights` of the fields, or of the first, second, ... caption where there are none.

        A field's captions share its weight, and those without a weight have none. Empty, which means that each is
        taken as often as any, where there are no weights, or none of a caption that there is.
        """
        sizes = self.captions_by_field or (1,) * len(self.captions)
        weights = (*weights, *(0.0 for _ in sizes))
        shares = tuple(weight / size for weight, size in zip(weights, sizes, strict=False) for _ in range(size))
        return shares if any(shares) else ()


@dataclass(frozen=True)
class BadSample:
    """What stands in a sample's place where it cannot be used; `reason` is a sentence without its key."""

    key: str
    cause: Cause
    reason: str


@runtime_checkable
class Table(Protocol):
    """Samples 0 to len-1, readable in any order and from several threads at once."""

    @property
    def parts(self) -> dict[str, int]:
        """The files (shards, say) that the samples come from, and how many each holds, in the table's order."""
        ...

    @property
    def is_remote(self) -> bool:
        """Whether every read is a request to another machine, so that few and long ones are better."""
        ...

    @property
    def class_names(self) -> tuple[str, ...]:
        """The name of each label; empty where the source has none."""
        ...

    def __len__(self) -> int: ...

    def keys(self, indices: Indices) -> list[str]:
        """The keys of the samples at `indices`, without reading the samples."""
        ...

    def read(self, indices: Indices) -> list[Sample | BadSample]:
        """The samples at `indices`, in that order; images are not decoded yet.

        Raises UserError where the source itself fails: a shard that has gone or changed, a disk that answers no more.
        """
        ...


def usable(samples: Sequence[Sample | BadSample]) -> list[Sample]:
    """All of them. Raises UserError, naming the sample, where one is bad."""
    for sample in samples:
        if isinstance(sample, BadSample):
            raise UserError(f"sample {sample.key}: {sample.reason}")
    return [sample for sample in samples if isinstance(sample, Sample)]


def check_indices(indices: Indices, samples: int) -> Int[np.ndarray, " b"]:
    """`indices` as an int64 array. Raises IndexError where one is not in [0, samples)."""
    array = np.asarray(indices, dtype=np.int64)
    if array.size and (array.min() < 0 or array.max() >= samples):
        raise IndexError(f"sample indices {array.min()} to {array.max()} leave the table's 0 to {samples - 1}")
    return array


def locate(indices: Indices, part_sizes: Sequence[int]) -> list[tuple[int, int]]:
    """The part that holds each index, and its row there. Raises IndexError where one is outside all."""
    ends = np.cumsum(part_sizes, dtype=np.int64)
    array = check_indices(indices, int(ends[-1]))
    parts = np.searchsorted(ends, array, side="right")
    starts = np.concatenate([[0], ends])[parts]
    return list(zip(parts.tolist(), (array - starts).tolist(), strict=True))
