"""Files by path or URL: listing them, telling their versions apart, and reading them or parts of them.

What has a protocol (gs://, s3://, memory://, ...) is read through fsspec, anything else is a path on this machine.
"""

import glob
import hashlib
import logging
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, TypeVar

import fsspec

from clip_jax.errors import UserError

T = TypeVar("T")
AT_ONCE = 32  # files that are opened at a time
_WAITS = (0.5, 1.0, 2.0, 4.0)  # seconds before each further attempt at what another machine did not answer
_PATIENCE = 20.0  # seconds after which nothing is attempted again; gcsfs and s3fs have tried several times by then
_PERMANENT = (
    FileNotFoundError,
    PermissionError,
    IsADirectoryError,
    NotADirectoryError,
    ImportError,
    TypeError,
    ValueError,
    NotImplementedError,
)
_GCS = "'.[gcs]' in the repository"
_PACKAGES = {"gs": _GCS, "gcs": _GCS, "s3": "s3fs", "http": "aiohttp", "https": "aiohttp"}


@dataclass(frozen=True)
class Stamp:
    """What changes when a file does: its size in bytes, and its time, generation or etag as a number."""

    size: int
    version: int

    @staticmethod
    def of_local(status: os.stat_result) -> "Stamp":
        """That of a local file, by its size and time in nanoseconds."""
        return Stamp(status.st_size, status.st_mtime_ns)


def is_remote(path: str) -> bool:
    """Whether `path` is a URL, which is read through fsspec."""
    return "://" in path


def join(folder: str, name: str) -> str:
    """The path or URL of `name` seen from `folder`; what is whole already stays as it is."""
    return name if is_remote(name) else os.path.join(folder, name)


def kind(path: str) -> Literal["file", "folder"] | None:
    """What there is at `path`, None for nothing. Raises UserError where that cannot be told."""
    if not is_remote(path):
        return "folder" if os.path.isdir(path) else "file" if os.path.exists(path) else None
    system, name = remote(path)

    def ask() -> Literal["file", "folder"] | None:
        try:
            return "folder" if system.info(name)["type"] == "directory" else "file"
        except (FileNotFoundError, PermissionError):  # who may not list a bucket is refused what is not in it
            return None

    return attempt(path, ask)


def match(pattern: str) -> list[str]:
    """The paths that a glob pattern matches, sorted; a URL without wildcards is passed on as it is."""
    if not is_remote(pattern):
        return sorted(glob.glob(pattern))
    system, name = remote(pattern)
    if not glob.has_magic(name):
        return [pattern]
    return sorted(system.unstrip_protocol(found) for found in attempt(pattern, lambda: system.glob(name)))


def stamp(path: str, anew: bool = False) -> Stamp:
    """Of a remote file as a listing may have had it a while ago, unless it is asked for `anew`.

    Raises UserError where there is no such file, or it does not answer.
    """
    if not is_remote(path):
        try:
            return Stamp.of_local(os.stat(path))
        except OSError as error:
            raise unreadable(path, error) from error

    def ask() -> dict[str, Any]:
        system, name = remote(path)
        if anew:
            system.invalidate_cache(name)
        return system.info(name)

    info = attempt(path, ask)
    marks = ("generation", "etag", "ETag", "mtime", "LastModified", "created")
    text = repr([str(info[mark]) for mark in marks if mark in info])
    digest = hashlib.blake2b(text.encode(), digest_size=7).digest()  # 7 bytes are a natural int64
    return Stamp(int(info["size"] or 0), int.from_bytes(digest, "big"))


def read_file(path: str) -> bytes:
    """The whole of a small file. Raises UserError where it cannot be read."""
    if not is_remote(path):
        try:
            with open(path, "rb") as file:
                return file.read()
        except OSError as error:
            raise unreadable(path, error) from error
    return attempt(path, lambda: remote(path)[0].cat_file(remote(path)[1]))


def read_files(paths: Iterable[str]) -> dict[str, bytes | UserError]:
    """The whole of each file, or what to tell of one that is not there or not to be read; remote ones at once.

    Raises UserError where a disk or another machine fails.
    """
    distinct = list(dict.fromkeys(paths))
    contents = {path: _read_local(path) for path in distinct if not is_remote(path)}
    urls = [path for path in distinct if is_remote(path)]
    return contents | dict(zip(urls, fetch([(url, None, None) for url in urls]), strict=True))


def _read_local(path: str) -> bytes | UserError:
    if not os.path.isfile(path):
        return unreadable(path, FileNotFoundError())
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        if _is_transient(error):
            raise unreadable(path, error) from error
        return unreadable(path, error)


Part: TypeAlias = tuple[str, int | None, int | None]
"""A URL with the first byte of a part of it and the one behind the last, None for those of the file."""


def fetch(parts: Sequence[Part]) -> list[bytes | UserError]:
    """Parts of remote files, at once; for one that is not there or not to be read, what to tell of it.

    What fails for a while is asked for again, alone. Raises UserError where that does not help.
    """
    protocols: dict[str, list[int]] = {}
    for i, (url, _, _) in enumerate(parts):
        protocols.setdefault(url.split("://")[0], []).append(i)
    found: dict[int, bytes | UserError] = {}
    for places in protocols.values():
        found |= zip(places, _fetch([parts[i] for i in places]), strict=True)
    return [found[i] for i in range(len(parts))]


def _fetch(parts: Sequence[Part]) -> list[bytes | UserError]:
    system = remote(parts[0][0])[0]
    found: dict[int, bytes | UserError] = {}
    start = time.monotonic()
    for wait in (*_WAITS, None):
        missing = [i for i in range(len(parts)) if i not in found]
        names = [remote(parts[i][0])[1] for i in missing]
        answers = system.cat_ranges(names, [parts[i][1] for i in missing], [parts[i][2] for i in missing])
        failures = {}
        for i, answer in zip(missing, answers, strict=True):
            if getattr(answer, "code", None) == 416:  # HTTP's word for a range that begins behind the end
                found[i] = b""
            elif not isinstance(answer, BaseException):
                found[i] = bytes(answer)
            elif _is_transient(answer):
                failures[i] = answer
            else:
                found[i] = unreadable(parts[i][0], answer)
        for i, error in failures.items():
            if wait is None or time.monotonic() - start > _PATIENCE:
                raise unreadable(parts[i][0], error) from error
        if not failures:
            break
        time.sleep(wait or 0)
    return [found[i] for i in range(len(parts))]


def remote(url: str) -> tuple[Any, str]:
    """The file system of a URL and the name there. Raises UserError where the protocol's package is missing."""
    protocol = url.split("://")[0]
    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)  # it prints what it raises too, with the traceback
    try:
        return fsspec.core.url_to_fs(url)
    except ImportError as error:
        package = _PACKAGES.get(protocol, f"{protocol}fs")
        raise UserError(f"reading {protocol}:// needs another package; pip install {package}") from error
    except ValueError as error:
        raise UserError(f"{url}: {_first_line(error)}; gs://, s3:// and other fsspec protocols would do") from error


def attempt(url: str, action: Callable[[], T]) -> T:
    """What `action` returns, tried again a few times where another machine fails. Raises UserError."""
    start = time.monotonic()
    for wait in (*_WAITS, None):
        try:
            return action()
        except UserError:
            raise
        except Exception as error:
            if wait is None or not _is_transient(error) or time.monotonic() - start > _PATIENCE:
                raise unreadable(url, error) from error
            time.sleep(wait)
    raise AssertionError("the last attempt returns or raises")


def unreadable(path: str, error: BaseException) -> UserError:
    """What to tell the user of a file that cannot be read, in one line."""
    if isinstance(error, FileNotFoundError):
        return UserError(f"cannot read {path}: No such file or directory")
    reason = error.strerror if isinstance(error, OSError) and error.strerror else _first_line(error)
    return UserError(f"cannot read {path}: {reason}")


def _is_transient(error: BaseException) -> bool:
    code = getattr(error, "code", None) or getattr(error, "status", None)  # of HTTP, where the protocol has it
    if isinstance(code, int) and 400 <= code < 500:
        return code in (408, 429)
    return not isinstance(error, _PERMANENT)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
