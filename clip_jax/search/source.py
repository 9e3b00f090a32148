"""What can be embedded: samples one after the other, each of which becomes a row, several, or a reason why not."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal, NamedTuple, Protocol, TypeVar, runtime_checkable

import numpy as np
from jaxtyping import Array, Float32

from clip_jax.data.table import BadSample
from clip_jax.search.encoder import Encoder

T = TypeVar("T")
Json = dict[str, Any]


class Embedded(NamedTuple):
    """Embeddings, what each is of (`key`, `sample` and of texts `caption`), and what could not be used, with why."""

    embeddings: Float32[np.ndarray, "n width"]
    keys: list[Json]
    bad: list[Json]


@runtime_checkable
class Source(Protocol):
    """Samples 0 to len-1."""

    @property
    def of(self) -> Literal["images", "texts"]:
        """What is embedded."""
        ...

    @property
    def kind(self) -> Literal["table", "lines"]:
        """What the samples are: those of a table, or the lines of a file."""
        ...

    def __len__(self) -> int: ...

    def digest(self, spec: str) -> str:
        """What tells these data, which `spec` names, from others."""
        ...

    def embed(self, encoder: Encoder, shards: Sequence[range], advance: Callable[[int], Any]) -> Iterator[Embedded]:
        """What each of `shards` becomes, ranges of samples; `advance` is told how many more samples are done.

        Raises UserError where the source itself fails: a disk, another machine.
        """
        ...


def printable(text: str) -> str:
    """`text` as UTF-8 can hold it: bytes of a file's name that are not UTF-8, surrogates in Python, become escapes."""
    return text.encode(errors="backslashreplace").decode()


def bad_json(place: int, sample: BadSample) -> Json:
    """A sample that cannot be used, at its place in the data."""
    return {"key": sample.key, "sample": place, "cause": sample.cause, "reason": sample.reason}


def one_behind(batches: Iterable[tuple[T, Array, int]]) -> Iterator[tuple[T, Float32[np.ndarray, "b k"]]]:
    """What belongs to each batch, and the first so many rows of its embeddings, fetched once the next one is begun."""
    waiting = None
    for coming in batches:
        if waiting:
            yield _fetched(*waiting)
        waiting = coming
    if waiting:
        yield _fetched(*waiting)


def _fetched(about: T, embeddings: Array, rows: int) -> tuple[T, np.ndarray]:
    return about, np.asarray(embeddings)[:rows]
