"""What tells a table's contents from another's, without reading them."""

import hashlib
import os
from collections.abc import Iterable, Iterator
from itertools import chain, islice

import numpy as np

from clip_jax.data import files
from clip_jax.data.beside import files_beside
from clip_jax.data.csv_file import CsvTable
from clip_jax.data.files import Stamp
from clip_jax.data.folder import FolderTable
from clip_jax.data.table import Table

KEYS_AT_ONCE = 65_536
ABSENT = Stamp(-1, -1)


def fingerprint(table: Table, spec: str) -> str:
    """A digest of the data spec, of the class names, of every sample's key, and of the versions of all files read.

    Those are the files that hold the samples, images and captions in a folder, images on this machine that a CSV names,
    and what lies beside, as classnames.txt.
    """
    digest = hashlib.blake2b(spec.encode(errors="surrogateescape"), digest_size=16)
    for name in table.class_names:
        digest.update(name.encode(errors="surrogatepass") + b"\0")
    for keys in _keys(table):
        digest.update("\0".join(keys).encode(errors="surrogatepass"))
    stamps = ((stamp.size, stamp.version) for stamp in _stamps(table))
    while some := list(islice(stamps, KEYS_AT_ONCE)):
        digest.update(np.array(some, np.int64).tobytes())
    return digest.hexdigest()


def _keys(table: Table) -> Iterator[list[str]]:
    for start in range(0, len(table), KEYS_AT_ONCE):
        yield table.keys(range(start, min(start + KEYS_AT_ONCE, len(table))))


def _stamps(table: Table) -> Iterator[Stamp]:
    keys = chain.from_iterable(_keys(table))
    if isinstance(table, FolderTable):
        for key in keys:
            image = os.path.join(table.root, key)
            yield from _those_there([image, f"{os.path.splitext(image)[0]}.txt"])
        return
    for part in table.parts:
        if files.kind(part) == "file":
            yield files.stamp(part)
    first = next(iter(table.parts))
    if files.kind(first) == "file":
        yield from _those_there(files_beside(first))
    if isinstance(table, CsvTable) and not table.is_remote:
        folder = os.path.dirname(first)
        yield from _those_there(os.path.join(folder, key.rpartition("#")[0]) for key in keys)


def _those_there(paths: Iterable[str]) -> Iterator[Stamp]:
    """The stamps of those files that exist, and a mark for each that does not."""
    for path in paths:
        yield files.stamp(path) if files.kind(path) == "file" else ABSENT
