"""Reading many byte ranges of many files, in any order and from several threads at once."""

import errno
import io
import os
import time
import weakref
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache

from clip_jax.data import files
from clip_jax.data.files import Stamp
from clip_jax.errors import UserError

Range = tuple[int, int]  # offset and size in bytes
_GAP = 64 * 1024  # bytes read in vain rather than asking twice
_REMOTE_GAP = 1024 * 1024
_LIMIT = 16 * 1024 * 1024  # bytes of one coalesced read
_REMOTE_LIMIT = 4 * 1024 * 1024  # smaller, since several are under way at once
_BLOCK = 8 * 1024 * 1024  # bytes that a remote stream reads at a time
_OPEN_FILES = 256  # of all tables together; well below the usual limit of 1024 descriptors a process
_TRUST = 60.0  # seconds for which another machine is not asked again whether a file has changed


class RangeReader:
    """Reads parts of files that were indexed; local ones stay open for later reads while there are not too many.

    `stamps` maps each path to its version when it was indexed. A file that is another by now is refused, as is one
    that ends before a range does; of remote files that is asked at their first read and then once a minute.
    """

    def __init__(self, stamps: Mapping[str, Stamp]) -> None:
        self._stamps = dict(stamps)
        self._asked: dict[str, float] = {}  # when remote files' versions were
        weakref.finalize(self, _open_file.cache_clear).atexit = False

    def read(self, wanted: Mapping[str, Iterable[Range]]) -> dict[str, dict[Range, bytes]]:
        """The content of each range of each path, neighbours fetched in one read. Raises UserError."""
        contents = {
            path: self._read_local(path, ranges) for path, ranges in wanted.items() if not files.is_remote(path)
        }
        elsewhere = {path: ranges for path, ranges in wanted.items() if files.is_remote(path)}
        return contents | self._read_remote(elsewhere) if elsewhere else contents

    def _read_local(self, path: str, ranges: Iterable[Range]) -> dict[Range, bytes]:
        contents = {}
        try:
            file = _open(path, self._stamps[path])  # open at least as long as it has this name
            for stretch in coalesce(ranges, _GAP, _LIMIT):
                contents |= stretch.split(_pread(file.descriptor, stretch.start, stretch.stop - stretch.start))
            if Stamp.of_local(os.fstat(file.descriptor)) != self._stamps[path]:
                raise _changed(path)
        except OSError as error:
            if error.errno == errno.ENODATA:
                raise _changed(path) from error
            raise files.unreadable(path, error) from error
        return contents

    def _read_remote(self, wanted: Mapping[str, Iterable[Range]]) -> dict[str, dict[Range, bytes]]:
        now = time.monotonic()
        doubtful = [path for path in wanted if path not in self._asked or now - self._asked[path] >= _TRUST]
        self._asked |= dict.fromkeys(doubtful, now)
        with ThreadPoolExecutor(files.AT_ONCE) as pool:
            stamps = pool.map(lambda path: files.stamp(path, anew=True), doubtful)
            contents = _fetch(wanted)
            for path, stamp in zip(doubtful, stamps, strict=True):
                if stamp != self._stamps[path]:
                    raise _changed(path)
        return contents


class _OpenFile:
    """A file on this machine that is closed once nobody holds it."""

    def __init__(self, path: str) -> None:
        self.descriptor = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self.descriptor).atexit = False  # threads may be reading until then


@lru_cache(_OPEN_FILES)
def _open_file(path: str, stamp: Stamp) -> _OpenFile:
    """Kept by version too, so that a new table opens a file that was replaced anew."""
    del stamp
    return _OpenFile(path)


def _open(path: str, stamp: Stamp) -> _OpenFile:
    try:
        return _open_file(path, stamp)
    except OSError as error:
        if error.errno != errno.EMFILE:
            raise
        _open_file.cache_clear()
        return _open_file(path, stamp)


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
        if isinstance(data, UserError):
            raise data
        if len(data) != stop - self._place:
            raise _changed(self._url)
        buffer[: len(data)] = data
        self._place = stop
        return len(data)


def _fetch(wanted: Mapping[str, Iterable[Range]]) -> dict[str, dict[Range, bytes]]:
    stretches = [
        (path, stretch) for path, ranges in wanted.items() for stretch in coalesce(ranges, _REMOTE_GAP, _REMOTE_LIMIT)
    ]
    parts = files.fetch([(path, stretch.start, stretch.stop) for path, stretch in stretches])
    contents: dict[str, dict[Range, bytes]] = {path: {} for path in wanted}
    for (path, stretch), data in zip(stretches, parts, strict=True):
        if isinstance(data, UserError):
            raise data
        if len(data) != stretch.stop - stretch.start:
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
