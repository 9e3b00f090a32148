"""Reading many byte ranges of many files, in any order and from several threads at once."""

import errno
import io
import os
import threading
import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from clip_jax.data import files
from clip_jax.errors import UserError

Range = tuple[int, int]  # offset and size in bytes
_GAP = 64 * 1024  # bytes read in vain rather than asking twice
_REMOTE_GAP = 1024 * 1024
_LIMIT = 16 * 1024 * 1024  # bytes of one coalesced read
_REMOTE_LIMIT = 4 * 1024 * 1024  # smaller, since several are under way at once
_BLOCK = 8 * 1024 * 1024  # bytes that a remote stream reads at a time
_OPEN_FILES = 256  # well below the usual limit of 1024 descriptors a process


class RangeReader:
    """Reads parts of files of known size; local ones stay open for later reads while there are not too many.

    `sizes` maps each path to its size in bytes; a local file that has another one by now is refused, as is any that
    ends before a range does.
    """

    def __init__(self, sizes: Mapping[str, int]) -> None:
        self._sizes = dict(sizes)
        self._open: dict[str, int] = {}  # path to descriptor
        self._lock = threading.Lock()
        weakref.finalize(self, _close_all, self._open)

    def read(self, wanted: Mapping[str, Iterable[Range]]) -> dict[str, dict[Range, bytes]]:
        """The content of each range of each path, neighbours fetched in one read. Raises UserError."""
        contents = {
            path: self._read_local(path, ranges) for path, ranges in wanted.items() if not files.is_remote(path)
        }
        elsewhere = {path: ranges for path, ranges in wanted.items() if files.is_remote(path)}
        return contents | _read_remote(elsewhere) if elsewhere else contents

    def _read_local(self, path: str, ranges: Iterable[Range]) -> dict[Range, bytes]:
        contents = {}
        try:
            with self._descriptor(path) as file:
                if os.fstat(file).st_size != self._sizes[path]:
                    raise _changed(path)
                for stretch in coalesce(ranges, _GAP, _LIMIT):
                    contents |= stretch.split(_pread(file, stretch.start, stretch.stop - stretch.start))
        except OSError as error:
            if error.errno == errno.ENODATA:
                raise _changed(path) from error
            raise files.unreadable(path, error) from error
        return contents

    @contextmanager
    def _descriptor(self, path: str) -> Iterator[int]:
        with self._lock:
            if path not in self._open and len(self._open) < _OPEN_FILES:
                self._open[path] = os.open(path, os.O_RDONLY)
            kept = self._open.get(path)
        if kept is not None:
            yield kept
            return
        file = os.open(path, os.O_RDONLY)
        try:
            yield file
        finally:
            os.close(file)


def open_stream(path: str, size: int) -> io.BufferedReader:
    """A file to be read from its beginning to its end; a remote one comes in large blocks."""
    if files.is_remote(path):
        return io.BufferedReader(_RemoteFile(path, size), _BLOCK)
    try:
        return open(path, "rb")
    except OSError as error:
        raise files.unreadable(path, error) from error


@dataclass(frozen=True)
class Stretch:
    """The bytes [start, stop) of a file, to be fetched in one read, and the ranges within."""

    start: int
    stop: int
    ranges: tuple[Range, ...]

    def split(self, data: bytes) -> dict[Range, bytes]:
        """Each range's part of the stretch's `data`."""
        return {(at, size): data[at - self.start : at - self.start + size] for at, size in self.ranges}


def coalesce(ranges: Iterable[Range], gap: int, limit: int) -> list[Stretch]:
    """The ranges in stretches, those closer than `gap` in one, but none beyond `limit` bytes for their sake."""
    stretches: list[Stretch] = []
    group: list[Range] = []
    start = stop = 0
    for offset, size in sorted(set(ranges)):
        if group and (offset - stop >= gap or offset + size - start > limit):
            stretches.append(Stretch(start, stop, tuple(group)))
            group = []
        if not group:
            start, stop = offset, offset
        group.append((offset, size))
        stop = max(stop, offset + size)
    return [*stretches, Stretch(start, stop, tuple(group))] if group else stretches


class _RemoteFile(io.RawIOBase):
    """The bytes of a URL as a file that can be sought; each read is one request."""

    def __init__(self, url: str, size: int) -> None:
        super().__init__()
        self._url, self._size, self._place = url, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._place = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        return self._place

    def readinto(self, buffer) -> int:
        stop = min(self._place + len(buffer), self._size)
        if stop <= self._place:
            return 0
        (data,) = files.fetch([(self._url, self._place, stop)])
        if data is None or len(data) != stop - self._place:
            raise _changed(self._url)
        buffer[: len(data)] = data
        self._place = stop
        return len(data)


def _read_remote(wanted: Mapping[str, Iterable[Range]]) -> dict[str, dict[Range, bytes]]:
    stretches = [
        (path, stretch) for path, ranges in wanted.items() for stretch in coalesce(ranges, _REMOTE_GAP, _REMOTE_LIMIT)
    ]
    parts = files.fetch([(path, stretch.start, stretch.stop) for path, stretch in stretches])
    contents: dict[str, dict[Range, bytes]] = {path: {} for path in wanted}
    for (path, stretch), data in zip(stretches, parts, strict=True):
        if data is None or len(data) != stretch.stop - stretch.start:
            raise _changed(path)
        contents[path] |= stretch.split(data)
    return contents


def _pread(file: int, offset: int, size: int) -> bytes:
    data = os.pread(file, size, offset)
    while len(data) < size:  # one call may return less than was asked for
        more = os.pread(file, size - len(data), offset + len(data))
        if not more:
            raise OSError(errno.ENODATA, "the file ends early")
        data += more
    return data


def _changed(path: str) -> UserError:
    return UserError(f"{path} has changed since it was indexed; leave the data as it is, and start again")


def _close_all(files: dict[str, int]) -> None:
    for file in files.values():
        os.close(file)
