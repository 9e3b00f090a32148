"""Folders of models that appear whole or not at all, and names of files that stay inside of their folder."""

import glob
import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

from clip_jax.errors import UserError
from clip_jax.whole_file import PARTIAL

CHECKPOINTS = "checkpoints"  # in the workdir of a training run
TOKENIZER = "tokenizer"  # beside it, where the run's tokenizer reads files


def as_path(path: str | os.PathLike[str]) -> Path:
    """A user's path, its `~` expanded. Raises UserError for one that no file can have."""
    name = os.fspath(path)
    if not name:
        raise UserError("the path is empty; '.' is the current folder")
    try:
        expanded = Path(name).expanduser()
        os.path.lexists(expanded)  # raises for a zero byte
        expanded.exists()  # raises for a name that is too long
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(f"{name[:100]!r} can be no path: {error}") from error
    return expanded


@contextmanager
def written_whole(target: Path, overwrite: bool, replaced: Sequence[str] = ()) -> Iterator[Path]:
    """A fresh folder for the files of a model, which becomes `target` at the end, or vanishes after an exception.

    With `overwrite`, `target` may hold files: those of the same names, and those that fit a glob pattern in `replaced`
    (what other layouts have), give way to the new ones, and all others stay. Old .json files go first and new ones
    come last, because they describe the weights: a crash in between may leave a folder that nothing takes for a model,
    but never one model's description beside another's weights.

    Raises UserError, before any work where it can be known by then, for a target that is a file, or a folder that is
    not empty without `overwrite`, and where it cannot be written.
    """
    real = Path(os.path.realpath(target))  # of a link to a folder, the folder is replaced
    try:
        check_target(target, overwrite)
        # Beside the target, or in it where it is a mount point, since a rename cannot leave its file system.
        parent = real if real.is_mount() else real.parent
        parent.mkdir(parents=True, exist_ok=True)
        for left in parent.glob(f".{glob.escape(real.name)}{PARTIAL}*"):  # of a process that was killed
            shutil.rmtree(left, ignore_errors=True)
        partial = parent / f".{real.name}{PARTIAL}{uuid.uuid4().hex}"
        partial.mkdir()
        try:
            yield partial
            if real.exists():
                _move_files(partial, real, replaced)
            else:
                partial.rename(real)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise UserError(f"cannot write to {target}: {error.strerror or error}") from error


def check_target(target: Path, overwrite: bool) -> None:
    """Raises UserError for a target that is a file, or a folder that is not empty without `overwrite`."""
    if target.exists() and not target.is_dir():
        raise UserError(f"{target} exists already and is a file; give a folder")
    if target.exists() and any(target.iterdir()) and not overwrite:
        raise UserError(f"{target} exists already; pass --overwrite to replace it")


def inside(folder: Path, name: str) -> Path:
    """The file `name` in `folder`. Raises UserError for a name that leads elsewhere."""
    if name in ("", ".", "..") or any(character in name for character in "/\\\0"):
        raise UserError(f"{name!r} is no plain file name in {folder}; files beside each other are read, and no others")
    return folder / name


def _move_files(source: Path, target: Path, replaced: Sequence[str]) -> None:
    new = {file.name for file in source.iterdir()}
    old = [
        file.name
        for file in target.iterdir()
        if file.name in new or (not file.is_dir() and any(fnmatch(file.name, pattern) for pattern in replaced))
    ]
    if folders := [name for name in old if (target / name).is_dir()]:
        raise UserError(f"{target} has a folder {folders[0]} where a file is to be written; move it away")
    for name in sorted(old, key=_is_description, reverse=True):
        (target / name).unlink()
    for name in sorted(new, key=_is_description):
        (source / name).rename(target / name)


def _is_description(name: str) -> bool:
    return name.endswith(".json")
