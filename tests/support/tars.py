"""Tar shards, written with the standard library alone, independently of clip_jax.data.shards."""

import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np

from clip_jax.data.table import Sample, usable
from clip_jax.data.tar import TarTable


def write_tar(path: Path, members: list[tuple[str, bytes]], form: int = tarfile.PAX_FORMAT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=form) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def image(seed: int, size: int = 3000) -> bytes:
    """Bytes that stand for an encoded image; the table does not decode."""
    return np.random.default_rng(seed).bytes(size)


def simple_shard(path: Path, first: int, samples: int) -> Path:
    numbers = range(first, first + samples)
    pairs = [((f"{n:05d}.jpg", image(n, 100 + n)), (f"{n:05d}.txt", f" caption {n}\n".encode())) for n in numbers]
    return write_tar(path, [member for pair in pairs for member in pair])


def read_all(table: TarTable) -> list[Sample]:
    return usable(table.read(range(len(table))))


def read_good_and_bad(table: TarTable) -> list[Any]:
    return table.read(range(len(table)))
