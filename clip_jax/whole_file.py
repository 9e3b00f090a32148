"""Writing files whole or not at all, so that whoever reads one, or finds it after a crash, has the old or the new."""

import errno
import os
import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from clip_jax.errors import UserError

PARTIAL = ".partial-"  # in the name of a file that is not yet whole; one that stays is a killed process's


def write_whole(path: Path, contents: Sequence[Any], durable: bool = False) -> None:
    """Writes `contents`, which are bytes or buffers, one after the other. Raises OSError.

    Where `durable`, they are on the disk before the file has its name, so that not even a power cut leaves a half.
    """
    partial = path.with_name(f".{path.name}{PARTIAL}{uuid.uuid4().hex}")
    try:
        with open(partial, "wb") as file:
            for content in contents:
                file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        with suppress(OSError):
            partial.unlink()


def write_output(path: Path, text: str) -> None:
    """Writes text to a file that a user named, making its folders: whole or not at all, a link or device in place.

    A file in a folder that takes no others is written in place, too. Bytes of file names that are no text are written
    as escapes. Raises UserError where it cannot be written.
    """
    content = text.encode("utf-8", "backslashreplace")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_symlink() or (path.exists() and not path.is_file()):
            path.write_bytes(content)
        else:
            _replace(path, content)
    except (FileExistsError, NotADirectoryError) as error:
        raise UserError(f"cannot write {path}: {path.parent} is not a folder") from error
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error


def _replace(path: Path, content: bytes) -> None:
    try:
        write_whole(path, [content])
    except OSError as error:  # perhaps the folder takes nothing new, as around a file that a container has from outside
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EBUSY, errno.EROFS) or not path.is_file():
            raise
        path.write_bytes(content)
