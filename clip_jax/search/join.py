"""The shards of a folder as one file, which may be killed at any moment and go on.

A .npy takes up each shard in turn, which is then removed, so that there is never room needed for all of it twice. The
file has its name only once it is whole, and the description stands beside it by then.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from clip_jax.errors import IOFailure, UserError
from clip_jax.search.description import Description
from clip_jax.search.shards import (
    COPIED_AT_ONCE,
    JOINED,
    bad_path,
    count_keys,
    keys_path,
    mapped_rows,
    npy_header,
    rows_path,
    write_kept,
)
from clip_jax.search.source import Json, printable
from clip_jax.whole_file import PARTIAL


def beside(path: Path, what: str) -> Path:
    """The file that is kept with the set `path`, as in set.npy.keys.jsonl."""
    return path.with_name(f"{path.name}.{what}")


def completed(folder: Path, description: Description) -> Description:
    """The description with what is known now that all shards are there.

    Raises UserError where the keys of one are lost, or not as many as its rows.
    """
    causes: dict[str, int] = {}
    for number in range(description.shards):
        if bad_path(folder, number).exists():
            with open(bad_path(folder, number), encoding="utf-8") as lines:
                for line in lines:
                    cause = json.loads(line)["cause"]
                    causes[cause] = causes.get(cause, 0) + 1
    rows = sum(_rows_of(folder, number) for number in range(description.shards))
    return replace(description, rows=rows, left_out=dict(sorted(causes.items())))


def join_npy(folder: Path, out: Path, description: Description) -> None:
    """Makes `out` and what is beside it of a folder of shards, and removes that.

    Raises IOFailure where the disk fails, UserError where rows were lost that `out` was begun with.
    """
    numbers = range(description.shards)
    assert description.rows is not None
    _explained(out, lambda: _append_rows(folder, description))
    _explained(out, lambda: _concatenate(folder, [keys_path(folder, n) for n in numbers], beside(out, "keys.jsonl")))
    _publish(folder, folder / JOINED, out, description)


def join_parquet(folder: Path, out: Path, description: Description) -> None:
    """The same as a Parquet file, a group of rows a shard, with the keys as columns beside `embedding`."""
    partial = folder / f".joined.parquet{PARTIAL}0"
    _explained(out, lambda: _write_parquet(folder, partial, description))
    _publish(folder, partial, out, description)


def pyarrow() -> Any:
    """The modules pyarrow and pyarrow.parquet. Raises UserError where they are not installed."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise UserError("Parquet needs the package pyarrow; pip install '.[parquet]' in the repository") from error
    return pyarrow, pyarrow.parquet


def _rows_of(folder: Path, number: int) -> int:
    path, keys = rows_path(folder, number), count_keys(keys_path(folder, number))
    if path.exists() and (rows := len(mapped_rows(path))) != keys:  # it is gone once it is in the joined file
        raise UserError(
            f"{path} has {rows} rows, but {keys} keys are beside it; remove it, and the same command embeds it again"
        )
    return keys


def _publish(folder: Path, joined: Path, out: Path, description: Description) -> None:
    bad = [path for number in range(description.shards) if (path := bad_path(folder, number)).exists()]

    def publish() -> None:
        beside(out, "bad.jsonl").unlink(missing_ok=True)
        if description.left_out:
            _concatenate(folder, bad, beside(out, "bad.jsonl"))
        write_kept(folder / "joined.json", description.to_json().encode())
        os.replace(folder / "joined.json", beside(out, "json"))
        os.replace(joined, out)
        shutil.rmtree(folder)

    _explained(out, publish)


def _append_rows(folder: Path, description: Description) -> None:
    assert description.rows is not None
    header = npy_header((description.rows, description.width), description.dtype)
    row_bytes = description.width * np.dtype(description.dtype).itemsize
    left = [number for number in range(description.shards) if rows_path(folder, number).exists()]
    taken = range(left[0] if left else description.shards)  # a shard goes once it is in the file
    size = len(header) + row_bytes * sum(count_keys(keys_path(folder, number)) for number in taken)
    with open(folder / JOINED, "ab") as file:
        if not taken:
            file.truncate(0)
            file.write(header)
            file.flush()
        if left != [*range(len(taken), description.shards)] or os.fstat(file.fileno()).st_size < size:
            raise UserError(f"{folder} has lost some of its rows; remove it, and the same command begins anew")
        file.truncate(size)
        for number in left:
            file.write(np.load(rows_path(folder, number)).data)
            file.flush()
            os.fsync(file.fileno())
            rows_path(folder, number).unlink()


def _concatenate(folder: Path, paths: Iterable[Path], target: Path) -> None:
    partial = folder / f".joined{PARTIAL}0"
    with open(partial, "wb") as joined:
        for path in paths:
            with open(path, "rb") as file:
                shutil.copyfileobj(file, joined, COPIED_AT_ONCE)
        joined.flush()
        os.fsync(joined.fileno())
    os.replace(partial, target)


def _write_parquet(folder: Path, partial: Path, description: Description) -> None:
    arrow, parquet = pyarrow()
    text = [("caption", arrow.string())] if description.of == "texts" else []
    number = arrow.float32() if description.dtype == "float32" else arrow.float16()
    columns = [("key", arrow.string()), ("sample", arrow.int64()), *text]
    schema = arrow.schema([*columns, ("embedding", arrow.list_(number, description.width))])
    with parquet.ParquetWriter(partial, schema) as writer:
        for shard in range(description.shards):
            rows = np.load(rows_path(folder, shard))
            if not len(rows):
                continue
            with open(keys_path(folder, shard), encoding="utf-8") as lines:
                keys = [_without_surrogates(json.loads(line)) for line in lines]
            named = [arrow.array([key[name] for key in keys], kind) for name, kind in columns]
            values = arrow.FixedSizeListArray.from_arrays(arrow.array(rows.reshape(-1)), description.width)
            writer.write_table(arrow.table([*named, values], schema=schema))


def _without_surrogates(key: Json) -> Json:
    """Parquet's strings are UTF-8."""
    return {name: printable(value) if isinstance(value, str) else value for name, value in key.items()}


def _explained(out: Path, action: Callable[[], None]) -> None:
    try:
        action()
    except OSError as error:
        raise IOFailure(f"cannot write {out}: {error.strerror}; the same command goes on from there") from error
