"""TFRecord files of tf.train.Examples, with random access through an index of our own.

A record is its length (8 bytes), a checksum of that (4), the data, and a checksum of these (4). Source: TensorFlow's
tensorflow/core/lib/io/record_writer.h.
"""

import os
import struct
import warnings
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from clip_jax.data import files
from clip_jax.data.beside import class_names_near
from clip_jax.data.examples import ExampleTable, choose_features
from clip_jax.data.index_file import WHOLE, open_indexes
from clip_jax.data.patterns import check_distinct, distinguish
from clip_jax.data.ranges import Range, RangeReader, open_stream
from clip_jax.data.table import BadSample, Indices, locate
from clip_jax.errors import UserError

VERSION = 1
_HEADER, _FOOTER = 12, 4
_CASTAGNOLI = 0x82F63B78  # CRC-32C's polynomial, its bits reversed


def open_tfrecord(
    paths: Sequence[str], image: str | None = None, captions: str | None = None, label: str | None = None
) -> ExampleTable:
    """The examples in TFRecord files, paths or URLs; the names are of features, several captions with commas between.

    By default the image is in `image/encoded`, `image` or `jpg` and the caption in `caption` or `text`, where there
    is one. A `classnames.txt` beside the first file or one folder above names the labels. Raises UserError.
    """
    check_distinct(paths, "TFRecord files")
    records = TFRecords(paths)
    return ExampleTable(records, choose_features(records, image, captions, label), class_names_near(paths[0]))


class TFRecords:
    """The records of `paths`, in their order, of each those in its range of `rows` where these are given.

    A record's key is FILE/ROW. A file that breaks off is warned of, and its records before that are used. Data is not
    compared with its checksum, which would take far longer than reading it.
    """

    def __init__(self, paths: Sequence[str | os.PathLike[str]], rows: Sequence[range] | None = None) -> None:
        self._paths = [os.fspath(path) for path in paths]
        self._names = distinguish(self._paths)
        distinct = list(dict.fromkeys(self._paths))
        indexes = dict(zip(distinct, open_indexes(distinct, scan, VERSION, ("places", "broken")), strict=True))
        self._places = {path: stored["places"] for path, (stored, _) in indexes.items()}
        self._rows = list(rows or [range(len(self._places[path])) for path in self._paths])
        self._stamps = {path: stamp for path, (_, stamp) in indexes.items()}
        for path, (stored, stamp) in indexes.items():
            if stored["broken"] != WHOLE:
                warnings.warn(
                    f"{path} breaks off or is damaged at byte {stored['broken']} of {stamp.size}", stacklevel=2
                )
        for path, wanted in zip(self._paths, self._rows, strict=True):
            if wanted.stop > len(self._places[path]):
                raise UserError(f"{path} has {len(self._places[path])} records, not {wanted.stop}; fetch it again")
        self._sizes = [len(wanted) for wanted in self._rows]
        if not len(self):
            raise UserError(f"there are no records in {self._paths[0]} and {len(self._paths) - 1} more files")
        self._reader = RangeReader(self._stamps)

    @property
    def parts(self) -> dict[str, int]:
        whole = [len(rows) == len(self._places[path]) for path, rows in zip(self._paths, self._rows, strict=True)]
        return part_sizes(self._paths, self._rows, whole)

    @property
    def is_remote(self) -> bool:
        return any(map(files.is_remote, self._paths))

    def __len__(self) -> int:
        return sum(self._sizes)

    def keys(self, indices: Indices) -> list[str]:
        return [f"{self._names[file]}/{self._rows[file][row]:07d}" for file, row in locate(indices, self._sizes)]

    def read(self, indices: Indices) -> list[bytes | BadSample]:
        located = locate(indices, self._sizes)
        places = [(self._paths[file], *self._place(file, row)) for file, row in located]
        wanted: dict[str, list[Range]] = {}
        for path, offset, size in places:
            if offset + size <= self._stamps[path].size:
                wanted.setdefault(path, []).append((offset, size))
        contents = self._reader.read(wanted)
        records = [contents.get(path, {}).get((offset, size)) for path, offset, size in places]
        return [
            self._cut(key, place[0]) if record is None else record
            for key, place, record in zip(self.keys(indices), places, records, strict=True)
        ]

    def _place(self, file: int, row: int) -> Range:
        offset, size = self._places[self._paths[file]][self._rows[file][row]].tolist()
        return offset, size

    def _cut(self, key: str, path: str) -> BadSample:
        return BadSample(key, "cut short", f"{path} ends at byte {self._stamps[path].size}, within it")


def part_sizes(paths: Sequence[str], rows: Sequence[range], whole: Sequence[bool]) -> dict[str, int]:
    """Samples by file, with the rows behind the name of one that is not used whole."""
    return {
        path if complete else f"{path}[{taken.start}:{taken.stop}]": len(taken)
        for path, taken, complete in zip(paths, rows, whole, strict=True)
    }


def scan(path: str, size: int) -> dict[str, np.ndarray]:
    """Where each record's data lies, from one pass over the headers. Raises UserError for another kind of file."""
    places: list[Range] = []
    start, broken = 0, WHOLE
    with open_stream(path, size) as file:
        while start < size and broken == WHOLE:
            file.seek(start)
            header = file.read(_HEADER)
            if len(header) == _HEADER and struct.unpack("<8xI", header)[0] == masked_crc(header[:8]):
                (length,) = struct.unpack("<Q4x", header)
                places.append((start + _HEADER, length))
                start += _HEADER + length + _FOOTER
            elif places:
                broken = start
            else:
                raise UserError(f"{path} is not an uncompressed TFRecord file; fetch or unpack it again")
    if start > size:
        broken = size
    return {"places": np.array(places, np.int64).reshape(-1, 2), "broken": np.array(broken)}


def masked_crc(data: bytes) -> int:
    """CRC-32C as TFRecord files have it: rotated and offset, so that a checksum of checksums stays one."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _crc_table()[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


@lru_cache(maxsize=1)
def _crc_table() -> tuple[int, ...]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = (value >> 1) ^ (_CASTAGNOLI if value & 1 else 0)
        table.append(value)
    return tuple(table)
