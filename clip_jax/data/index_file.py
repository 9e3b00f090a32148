"""The index of a file that has none of its own: made in one pass, and kept beside it as NAME.index.npz.

Where nothing can be written there, it is kept in the user's cache instead. It holds for one version of the file.
"""

import hashlib
import io
import os
import zipfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
from tqdm import tqdm

from clip_jax.data import files
from clip_jax.data.files import Stamp
from clip_jax.data.numpy_files import ONE_AT_A_TIME
from clip_jax.errors import UserError
from clip_jax.whole_file import write_whole

SUFFIX = ".index.npz"
WHOLE = -1  # in place of the byte from which on a file cannot be read
Columns = Mapping[str, np.ndarray]
Scan = Callable[[str, int], Columns]
"""From a path and the file's size in bytes to the columns of its index."""


def open_indexes(
    paths: Sequence[str], scan: Scan, version: int, columns: Sequence[str]
) -> list[tuple[dict[str, np.ndarray], Stamp]]:
    """Those `columns` of every file's index, and which version of the file they hold for.

    Files without an index of this `version` are scanned, several at a time. Raises UserError where one cannot be.
    """
    with ThreadPoolExecutor(max_workers=files.AT_ONCE) as pool:
        indexes = pool.map(lambda path: _open(path, scan, version, columns), paths)
        return list(tqdm(indexes, "indexing shards", len(paths), unit="shard", delay=2))


def _open(path: str, scan: Scan, version: int, columns: Sequence[str]) -> tuple[dict[str, np.ndarray], Stamp]:
    found = files.stamp(path)
    stamp = np.array([version, found.size, found.version])
    for place in (path + SUFFIX, cache_path(path)):
        stored = _load(place, stamp, columns)
        if stored is not None:
            return stored, found
    everything = scan(path, found.size)
    _check_unchanged(path, found)
    content = io.BytesIO()
    np.savez(content, allow_pickle=False, stamp=stamp, **everything)
    _keep(path, content.getvalue())
    return {name: everything[name] for name in columns}, found


def cache_path(path: str) -> str:
    """Where the index of a file goes that none can be written beside."""
    place = path if files.is_remote(path) else os.path.abspath(path)
    digest = hashlib.blake2b(place.encode(errors="surrogateescape"), digest_size=16).hexdigest()
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.path.join(base, "clip_jax", "index", f"{digest}.npz")


def _check_unchanged(path: str, found: Stamp) -> None:
    if files.stamp(path, anew=True) != found:
        raise UserError(f"{path} changed while it was indexed; wait until it is written, and start again")


def _load(place: str, stamp: np.ndarray, columns: Sequence[str]) -> dict[str, np.ndarray] | None:
    """The columns of an index file, or None where it is not there, not readable or not of this version."""
    content = files.read_files([place])[place]
    if isinstance(content, UserError):
        return None
    try:
        with ONE_AT_A_TIME, np.load(io.BytesIO(content)) as stored:
            return {name: stored[name] for name in columns} if np.array_equal(stored["stamp"], stamp) else None
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
        return None


def _keep(path: str, content: bytes) -> None:
    """Writes an index beside its file, else into the cache, else not at all: then it is made anew next time."""
    try:
        if files.is_remote(path):
            system, name = files.remote(path + SUFFIX)
            system.pipe_file(name, content)
        else:
            write_whole(Path(path + SUFFIX), [content])
    except Exception:  # each file system has its own way to say no
        with suppress(OSError):
            cache = Path(cache_path(path))
            cache.parent.mkdir(parents=True, exist_ok=True)
            write_whole(cache, [content])
