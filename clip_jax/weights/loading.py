"""From what a user names to a checkpoint: a path in any layout, a training workdir, or a model of the hub."""

import os
from dataclasses import replace
from pathlib import Path

from etils import epath

from clip_jax.errors import IOFailure, UserError, reason
from clip_jax.presets import PRESETS
from clip_jax.weights import released
from clip_jax.weights.checkpoint import Checkpoint, Origin, in_memory
from clip_jax.weights.evidence import Hints
from clip_jax.weights.folders import CHECKPOINTS, TOKENIZER, as_path
from clip_jax.weights.json_files import read_whole
from clip_jax.weights.reading import read_checkpoint

HUB, BUCKET = "hf-hub:", "gs://"


def find_checkpoint(
    path_or_name: str | os.PathLike[str],
    hints: Hints = Hints(),  # noqa: B008 (it is frozen)
    revision: str | None = None,
    token: str | None = None,
    cache: Path | None = None,
) -> Checkpoint:
    """The model at a path, under a name of `list_pretrained()`, or at `hf-hub:OWNER/NAME[@REVISION]`.

    A training workdir may be in a bucket, as gs://BUCKET/FOLDER. Raises UserError for what does not exist, cannot be
    fetched, or is no model; IOFailure for a bucket that does not answer.
    """
    name = os.fspath(path_or_name)
    if name.startswith(BUCKET):
        return _read_bucket(epath.Path(name))
    path = as_path(name)
    if path.exists():
        try:
            return _read_path(path, hints)
        except OSError as error:  # of a folder whose files cannot be listed
            raise UserError(f"cannot read {error.filename or path}: {error.strerror or error}") from error
    # The table of names and the hub's client are needed for names only.
    from clip_jax.weights.hub import download

    if name.startswith(HUB):
        repository, _, at = name.removeprefix(HUB).partition("@")
        return read_checkpoint(download(repository, revision or at or None, token, cache), hints)
    if name in PRESETS:
        raise UserError(f"'{name}' is an architecture without weights; clip_jax.create makes a random one")
    from clip_jax.weights.pretrained import get_pretrained

    known = get_pretrained(name)
    folder = download(known.repository, revision or known.revision, token, cache)
    checkpoint = read_checkpoint(folder, hints, fallback=Hints(model=known.architecture))
    return replace(checkpoint, config=replace(checkpoint.config, preprocess=known.preprocess))


def _read_path(path: Path, hints: Hints) -> Checkpoint:
    if path.is_dir() and not released.is_released(path) and (path / CHECKPOINTS).is_dir():
        return _read_workdir(path)
    return read_checkpoint(path, hints)


def _read_bucket(workdir: epath.Path) -> Checkpoint:
    try:
        if (workdir / CHECKPOINTS).is_dir():
            return _read_workdir(workdir)
    except UserError:
        raise
    except ImportError as error:
        raise UserError(f"reading {workdir} needs another package; pip install '.[gcs]' in the repository") from error
    except Exception as error:  # what is behind the address has errors of its own
        raise IOFailure(f"cannot read {workdir} ({reason(error)})") from error
    raise UserError(
        f"{workdir} holds no training run; a model in any other layout is read from disk, so copy it there (gcloud "
        "storage cp -r)"
    )


def _read_workdir(workdir: Path | epath.Path) -> Checkpoint:
    from clip_jax.weights import orbax_checkpoints  # Orbax is needed for training checkpoints only

    return in_memory(*orbax_checkpoints.read_model(workdir / CHECKPOINTS), Origin(), tokenizer_files_of(workdir))


def tokenizer_files_of(workdir: Path | epath.Path) -> dict[str, bytes]:
    """What a training run's tokenizer reads, by file name."""
    folder = workdir / TOKENIZER
    files = sorted(folder.iterdir()) if folder.is_dir() else ()
    return {file.name: read_whole(file, released.MAX_TOKENIZER_FILE) for file in files}
