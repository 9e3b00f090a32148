"""What tells a table's contents from another's, without reading them."""

import hashlib
import os
from collections.abc import Iterator

import numpy as np

from clip_jax.data import files
from clip_jax.data.files import Stamp
from clip_jax.data.folder import FolderTable
from clip_jax.data.table import Table

KEYS_AT_ONCE = 65_536


def fingerprint(table: Table, spec: str) -> str:
    """A digest of the data spec, of every sample's key, and of the versions of the files that the table reads.

    Images that a CSV names are told apart by their names alone: one that is replaced under its old name is not noticed.
    """
    digest = hashlib.blake2b(spec.encode(errors="surrogateescape"), digest_size=16)
    for start in range(0, len(table), KEYS_AT_ONCE):
        keys = table.keys(range(start, min(start + KEYS_AT_ONCE, len(table))))
        digest.update("\0".join(keys).encode(errors="surrogatepass"))
    stamps = [(stamp.size, stamp.version) for stamp in _stamps(table)]
    digest.update(np.array(stamps, np.int64).tobytes())
    return digest.hexdigest()


def _stamps(table: Table) -> Iterator[Stamp]:
    if isinstance(table, FolderTable):
        for key in table.keys(range(len(table))):
            yield files.stamp(os.path.join(table.root, key))
    else:
        for part in table.parts:
            if files.kind(part) == "file":
                yield files.stamp(part)
