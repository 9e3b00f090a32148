"""Reading a set of embeddings: its rows part by part, what each is of, and what it says of itself."""

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from clip_jax.errors import UserError, reason
from clip_jax.schema import parse
from clip_jax.search.description import Description, read_description
from clip_jax.search.join import beside, pyarrow
from clip_jax.search.shards import (
    DESCRIPTION,
    bad_path,
    complete_shards,
    count_keys,
    keys_path,
    mapped_rows,
    progress,
    rows_path,
)
from clip_jax.search.source import Json

READ_AT_ONCE = 4096  # rows of a Parquet file


@dataclass(frozen=True)
class Key:
    """What a row is of: a sample's key, its place in the data, and of texts which one."""

    key: str
    sample: int | None = None
    caption: str | None = None


class EmbeddingSet:
    """Rows of numbers in memory-mapped .npy files, one after the other, with a file of keys beside each, or none.

    `description` is None for a file of somebody else's.
    """

    def __init__(self, pairs: list[tuple[Path, Path | None]], description: Description | None) -> None:
        self._pairs, self.description = pairs, description

    def parts(self) -> Iterator[Float[np.ndarray, "_ width"]]:
        """The rows of each file."""
        return (mapped_rows(rows) for rows, _ in self._pairs)

    @cached_property
    def width(self) -> int:
        """The length of a row."""
        return next(self.parts()).shape[1]

    @cached_property
    def sizes(self) -> list[int]:
        """How many rows each file has."""
        return [len(part) for part in self.parts()]

    def check_keys(self) -> None:
        """Raises UserError where a file of keys has not one for each row."""
        for (_, path), size in zip(self._pairs, self.sizes, strict=True):
            if path and (keys := count_keys(path)) != size:
                raise UserError(f"{path} has {keys} keys, and the set has {size} rows beside it; embed anew")

    def keys(self, rows: Iterable[int]) -> dict[int, Key]:
        """What some rows are of; where no keys are kept, the row's number. Raises UserError for lines that are none."""
        wanted, found, start = sorted(set(rows)), {}, 0
        for (_, path), size in zip(self._pairs, self.sizes, strict=True):
            here = [row - start for row in wanted if start <= row < start + size]
            if here:
                lines = _lines(path, here) if path else (Key(f"row {start + row}") for row in here)
                found |= {start + row: line for row, line in zip(here, lines, strict=True)}
            start += size
        return found


class ParquetSet(EmbeddingSet):
    """The same in a Parquet file, whose rows are read some at a time. Raises UserError for a file of another kind."""

    def __init__(self, path: Path, description: Description) -> None:
        super().__init__([(path, None)], description)
        self._path = path
        arrow, _ = pyarrow()
        with self._opened() as file:
            schema = file.schema_arrow
            kinds = {name: schema.field(name).type for name in schema.names}
        if not {"key", "embedding"} <= kinds.keys() or not arrow.types.is_fixed_size_list(kinds["embedding"]):
            raise UserError(f"{path} has not the columns key and embedding that clip-jax embed writes; embed anew")

    def parts(self) -> Iterator[Float[np.ndarray, "_ width"]]:
        with self._opened() as file:
            for batch in file.iter_batches(READ_AT_ONCE, columns=["embedding"]):
                yield batch.column(0).flatten().to_numpy().reshape(len(batch), -1)

    @cached_property
    def sizes(self) -> list[int]:
        with self._opened() as file:
            return [file.metadata.num_rows]

    def keys(self, rows: Iterable[int]) -> dict[int, Key]:
        wanted, found, start = sorted(set(rows)), {}, 0
        with self._opened() as file:
            columns = [one.name for one in fields(Key) if one.name in file.schema_arrow.names]
            for group in range(file.num_row_groups):
                size = file.metadata.row_group(group).num_rows
                here = [row - start for row in wanted if start <= row < start + size]
                if here:
                    table = file.read_row_group(group, columns=columns).take(here).to_pylist()
                    found |= {
                        start + row: parse(Key, one, f"{self._path} row {start + row}")
                        for row, one in zip(here, table, strict=True)
                    }
                start += size
        return found

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        arrow, parquet = pyarrow()
        try:
            with parquet.ParquetFile(self._path) as file:
                yield file
        except (arrow.ArrowException, OSError, ValueError) as error:
            raise UserError(f"cannot read {self._path} as a Parquet file: {reason(error)}") from error


def open_set(path: str | os.PathLike[str]) -> EmbeddingSet:
    """The set at `path`: what `clip-jax embed` made, or a .npy file of one's own.

    Raises UserError where there is none, where it is not complete, and where it cannot be read.
    """
    place = Path(path).expanduser()
    if place.is_dir():
        return _folder(place)
    if not place.exists():
        if (begun := beside(place, "partial") / DESCRIPTION).exists():
            raise _incomplete(place, begun)
        raise UserError(f"there is no set of embeddings {path}; clip-jax embed DATA --model M --out {path} makes one")
    described = beside(place, "json")
    description = read_description(described) if described.exists() else None
    if description and place.suffix.lower() == ".parquet":
        found = ParquetSet(place, description)
    elif place.suffix.lower() == ".parquet":
        raise UserError(f"{path} has no {described.name} beside it, as clip-jax embed writes; a .npy may do without")
    else:
        keys = beside(place, "keys.jsonl")
        found = EmbeddingSet([(place, keys if keys.exists() else None)], description)
    return _checked(found, place)


def read_bad(path: Path, most: int) -> list[Json]:
    """The first samples that were left out of the set at `path`, with the reasons."""
    files = (
        [bad_path(path, number) for number in sorted(complete_shards(path))]
        if path.is_dir()
        else [beside(path, "bad.jsonl")]
    )
    found: list[Json] = []
    for file in files:
        if len(found) < most and file.exists():
            with open(file, encoding="utf-8") as lines:
                found += map(json.loads, islice(lines, most - len(found)))
    return found


def _folder(place: Path) -> EmbeddingSet:
    if not (place / DESCRIPTION).exists():
        raise UserError(f"{place} is a folder without {DESCRIPTION}; give what clip-jax embed wrote, or a .npy file")
    description = read_description(place / DESCRIPTION)
    if description.rows is None:
        raise _incomplete(place, place / DESCRIPTION)
    pairs = [(rows_path(place, number), keys_path(place, number)) for number in range(description.shards)]
    return _checked(EmbeddingSet([*pairs], description), place)


def _checked(found: EmbeddingSet, place: Path) -> EmbeddingSet:
    """Raises UserError for a set without rows, and where the files are not what their description says."""
    rows, description = sum(found.sizes), found.description
    if not rows:
        raise UserError(f"{place} has no rows")
    if description and (rows, found.width) != (description.rows, description.width):
        raise UserError(
            f"{place} has {rows} rows of {found.width}, and its description says {description.rows} of "
            f"{description.width}; embed anew"
        )
    found.check_keys()
    return found


def _incomplete(place: Path, described: Path) -> UserError:
    done = progress(described.parent, read_description(described))
    return UserError(f"{place} is not complete, {done} are there; the clip-jax embed command that began it goes on")


def _lines(path: Path, wanted: list[int]) -> Iterator[Key]:
    """What those lines of a file of keys say, whose numbers rise; fields that are not known are passed over."""
    known, place = {one.name for one in fields(Key)}, 0
    try:
        with open(path, "rb") as lines:
            for number in wanted:
                value = json.loads(next(islice(lines, number - place, None)))
                if not isinstance(value, dict):
                    raise UserError(f"{path} line {number + 1} must be a mapping with a key, not {value!r}")
                told = {name: value[name] for name in known & value.keys()}
                yield parse(Key, told, f"{path} line {number + 1}")
                place = number + 1
    except (OSError, StopIteration, ValueError) as error:
        raise UserError(f"{path} has no key for row {wanted[0]} of its file; it is not the set's") from error
