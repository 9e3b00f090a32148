"""A folder of shards: what some consecutive samples became, each written whole or not at all, so that any may be next.

NNNNN.npy has a row an embedding, NNNNN.keys.jsonl a line a row that says what it is of, and NNNNN.bad.jsonl, where
there is one, a line for each sample that was left out. The .npy comes last: with it the shard is complete, unless its
keys were lost since.
"""

import fcntl
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from clip_jax.errors import IOFailure, UserError
from clip_jax.search.description import Description, read_description
from clip_jax.whole_file import PARTIAL, write_whole

DESCRIPTION = "set.json"
JOINED = "joined.npy"  # of a set that is to be one file: the shards that are in it already are gone
COPIED_AT_ONCE = 2**22


class Shard(NamedTuple):
    """What some consecutive samples became: a row and a key each, or several, or a reason why not."""

    number: int
    embeddings: Float[np.ndarray, "n width"]
    keys: Sequence[Mapping[str, Any]]
    bad: Sequence[Mapping[str, Any]]


def begin(folder: Path, description: Description) -> Description:
    """Makes the empty `folder` one of shards of this set, or finds that it is, and returns what describes it.

    Raises UserError where it is of another set or holds something else, and where it cannot be written to.
    """
    path = folder / DESCRIPTION
    try:
        there = path.exists()
        if not there and any(not name.startswith(".") for name in os.listdir(folder)):
            raise UserError(f"{folder} holds other files, and no {DESCRIPTION} of a set; choose a new folder")
        for name in os.listdir(folder):  # of a process that was killed
            if name.startswith(".") and PARTIAL in name:
                (folder / name).unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror}; give a place that can be written to") from error
    if not there:
        write_kept(path, description.to_json().encode())
        return description
    found = read_description(path)
    check_same(folder, found, description)
    return found


def check_same(place: Path, found: Description, description: Description) -> None:
    """Raises UserError where what was found at `place` describes another set."""
    if difference := found.difference(description):
        raise UserError(f"{place} was begun with {difference}; give the same again, or another --out")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Makes the folder and holds it for this process. Raises UserError where that fails, or another one holds it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror}; give a place that can be written to") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(handle)
        raise UserError(f"another process is writing to {folder}; wait for it, or choose another --out") from error
    except OSError:  # some network file systems have no locks
        pass
    try:
        yield
    finally:
        os.close(handle)


def write_shard(folder: Path, shard: Shard) -> None:
    """Keeps a shard. Raises IOFailure where the disk fails."""
    write_kept(keys_path(folder, shard.number), _lines(shard.keys))
    if shard.bad:
        write_kept(bad_path(folder, shard.number), _lines(shard.bad))
    else:
        _remove(bad_path(folder, shard.number))  # of an earlier attempt, when something could not be read
    rows = shard.embeddings
    write_kept(rows_path(folder, shard.number), npy_header(rows.shape, rows.dtype), np.ascontiguousarray(rows).data)


def write_kept(path: Path, *contents: Any) -> None:
    """Writes bytes, on the disk before the file has its name. Raises IOFailure."""
    try:
        write_whole(path, contents, durable=True)
    except OSError as error:
        raise IOFailure(f"cannot write {path}: {error.strerror}; the same command goes on from there") from error


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise IOFailure(f"cannot remove {path}: {error.strerror}; the same command goes on from there") from error


def npy_header(shape: tuple[int, ...], dtype: Any) -> bytes:
    """What stands before the numbers in a .npy file."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape})
    return header.getvalue()


def _lines(values: Sequence[Mapping[str, Any]]) -> bytes:
    return "".join(f"{json.dumps(value)}\n" for value in values).encode()


def rows_path(folder: Path, number: int) -> Path:
    """Where a shard's rows are."""
    return folder / f"{number:05d}.npy"


def keys_path(folder: Path, number: int) -> Path:
    """Where the keys of a shard's rows are."""
    return folder / f"{number:05d}.keys.jsonl"


def bad_path(folder: Path, number: int) -> Path:
    """Where a shard's left-out samples are."""
    return folder / f"{number:05d}.bad.jsonl"


def complete_shards(folder: Path) -> set[int]:
    """The numbers of those whose rows and keys are there."""
    names = set(os.listdir(folder))
    numbers = {int(name[:-4]) for name in names if name.endswith(".npy") and name[:-4].isdecimal()}
    return {number for number in numbers if keys_path(folder, number).name in names}


def progress(folder: Path, description: Description) -> str:
    """How many of the shards of a set that is not complete there are."""
    joining = (folder / JOINED).exists()
    there = description.shards if joining else len(complete_shards(folder)) if folder.is_dir() else 0
    return f"{there:,} of {description.shards:,} shards"


def count_keys(path: Path) -> int:
    """How many lines a file of keys has. Raises UserError where it cannot be read."""
    count, last = 0, b"\n"
    try:
        with open(path, "rb") as file:
            while some := file.read(COPIED_AT_ONCE):
                count, last = count + some.count(b"\n"), some[-1:]
    except OSError as error:
        raise UserError(
            f"cannot read {path}, which says what each row is of: {error.strerror}; remove the set, and embed anew"
        ) from error
    return count + (last != b"\n")


def mapped_rows(path: Path) -> Float[np.ndarray, "n width"]:
    """The rows in a .npy file, memory-mapped. Raises UserError where it has none, or cannot be read."""
    try:
        rows = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, EOFError, ValueError) as error:
        raise UserError(f"cannot read {path} as a .npy file: {error}") from error
    if not isinstance(rows, np.ndarray) or rows.ndim != 2 or rows.dtype.kind != "f":
        told = f"{rows.dtype} {list(rows.shape)}" if isinstance(rows, np.ndarray) else "several arrays"
        raise UserError(f"{path} holds {told}; a set is one array of float16 or float32 [rows, width]")
    return rows
