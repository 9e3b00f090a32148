"""Writing files whole or not at all, so that whoever reads one, or finds it after a crash, has the old or the new."""

import os
import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from clip_jax.errors import UserError

PARTIAL = ".partial-"  # in the name of a file that is not yet whole; one that has it is a killed process's


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
    """Writes text to a file that a user named, making its folders; a link or a device, as /dev/stdout, stays one.

    What of a file's name is no text is written as escapes. Raises UserError where it cannot be written.
    """
    content = text.encode("utf-8", "backslashreplace")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_symlink() or (path.exists() and not path.is_file()):
            path.write_bytes(content)
        else:
            write_whole(path, [content])
    except (FileExistsError, NotADirectoryError) as error:
        raise UserError(f"cannot write {path}: {path.parent} is not a folder") from error
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error
