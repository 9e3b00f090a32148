"""Zip archives of tensors: the entries are checked before any is read, and nothing is ever extracted.

`zipfile` parses the directory. The contents are read here, as it would read through all that lies before a range.
"""

import io
import struct
import zipfile
import zlib
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from clip_jax.errors import UserError
from clip_jax.weights.lazy_tensor import damaged, read_bytes, shown

MAX_ENTRIES = 200_000
_MAX_DIRECTORY = 32 * 2**20  # bytes
_HEADER = struct.Struct("<4s22xHH")  # before each content: magic, ..., lengths of the name and of the extra field
_CHUNK = 2**18  # bytes


@dataclass(frozen=True)
class Archive:
    """The entries of a zip archive by name, in its order; none overlaps another or reaches beyond the file."""

    path: Path
    size: int  # of the file, in bytes
    entries: dict[str, zipfile.ZipInfo]

    def read(self, name: str, start: int = 0, stop: int | None = None) -> UInt8[np.ndarray, " n"]:
        """The bytes `start` to `stop` of an entry's content, by default all, whose checksum is then compared.

        Raises UserError where the entry is damaged, or compressed by anything but deflate.
        """
        entry = self.entries[name]
        stop = entry.file_size if stop is None else stop
        offset = self._offset(entry)
        if entry.compress_type == zipfile.ZIP_STORED:
            content = read_bytes(self.path, offset + start, stop - start)
        elif entry.compress_type == zipfile.ZIP_DEFLATED:
            content = self._inflate(entry, offset, stop)[start:]
        else:
            raise UserError(f"{shown(name)} in {self.path} is compressed by an unknown method; save it uncompressed")
        if start == 0 and stop == entry.file_size and zlib.crc32(content.data) != entry.CRC:
            raise damaged(self.path, f"{shown(name)} does not match its checksum")
        return content

    def _offset(self, entry: zipfile.ZipInfo) -> int:
        magic, name, extra = _HEADER.unpack(read_bytes(self.path, entry.header_offset, _HEADER.size).tobytes())
        if magic != b"PK\3\4":
            raise damaged(self.path, f"{shown(entry.filename)} is not where the directory says")
        return entry.header_offset + _HEADER.size + name + extra

    def _inflate(self, entry: zipfile.ZipInfo, offset: int, size: int) -> UInt8[np.ndarray, " size"]:
        """The first `size` bytes of a compressed content, a chunk at a time."""
        content = np.empty(size, np.uint8)
        filled, left = 0, entry.compress_size
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        while filled < size:
            chunk = inflater.unconsumed_tail
            if not chunk:
                chunk = read_bytes(self.path, offset + entry.compress_size - left, min(left, _CHUNK)).tobytes()
                left -= len(chunk)
            try:
                piece = inflater.decompress(chunk, min(size - filled, _CHUNK))
            except zlib.error as error:
                raise damaged(self.path, f"{shown(entry.filename)} cannot be decompressed") from error
            if not chunk and not piece:
                raise damaged(self.path, f"{shown(entry.filename)} is shorter than the directory says")
            content[filled : filled + len(piece)] = np.frombuffer(piece, np.uint8)
            filled += len(piece)
        return content


def open_archive(path: Path) -> Archive:
    """The checked entries of a zip archive. Raises UserError where it is damaged or built to do harm, and OSError."""
    with _Bounded(path) as file:
        size = file.seek(0, io.SEEK_END)
        try:
            with zipfile.ZipFile(file) as archive:
                entries = archive.infolist()
        # zipfile lets the errors of its parts through where a directory is damaged.
        except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError, OverflowError, struct.error) as error:
            raise damaged(path, "its zip directory cannot be read") from error
    if len(entries) > MAX_ENTRIES:
        raise UserError(f"{path} has {len(entries)} entries; a file of tensors has at most {MAX_ENTRIES}")
    named = {entry.filename: entry for entry in entries}
    if len(named) < len(entries):
        raise damaged(path, "several entries have the same name")
    for name in named:
        if name.startswith("/") or ".." in name.split("/"):
            raise UserError(
                f"{path} has an entry {shown(name)}, which leads out of the archive; no file of tensors has"
            )
    ranges = sorted((entry.header_offset, _HEADER.size + entry.compress_size) for entry in entries)
    if any(start + length > after for (start, length), (after, _) in pairwise([*ranges, (size, 0)])):
        raise damaged(path, "its entries overlap or reach beyond its end")
    if any(entry.compress_type == zipfile.ZIP_STORED and entry.compress_size != entry.file_size for entry in entries):
        raise damaged(path, "the sizes of its entries do not add up")
    return Archive(path, size, named)


class _Bounded(io.FileIO):
    """A file that refuses to read more at once than any honest directory of an archive."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > _MAX_DIRECTORY:
            raise zipfile.BadZipFile("the directory is too large")
        return super().read(size) or b""
