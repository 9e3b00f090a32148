"""Can the run's folder be written to, what does it hold already, and do all processes see the same one."""

import uuid
from pathlib import Path

import jax
from etils import epath

from clip_jax.errors import UserError, reason
from clip_jax.processes import wait_for_all
from clip_jax.tpu.doctor.examination import Finding, Gather
from clip_jax.tpu.doctor.machine import existing
from clip_jax.training.config import TrainConfig

PROBE = ".clip-jax-doctor-"
CONTENTS = b"written by clip-jax doctor, may be deleted"


def check_workdir(workdir: str, config: TrainConfig | None, gather: Gather | None) -> Finding:
    """Writes, reads and deletes a file, and looks whether the folder holds this run, another, or none.

    With several processes, each must see what the first has written, as all train in one workdir.
    """
    name = f"{PROBE}{uuid.uuid4().hex[:8]}"
    if gather is not None:
        name = gather(name)[0]
    path = _probe_path(workdir, name)
    trouble: UserError | None = None
    if jax.process_index() == 0:
        try:
            _write(path)
        except UserError as error:
            trouble = error
    wait_for_all("the first process has written to the workdir")
    seen = trouble is None and _reads(path)
    wait_for_all("all have looked into the workdir")
    if jax.process_index() == 0 and trouble is None:
        path.unlink()
    if trouble is not None:
        raise trouble
    if not seen:
        advice = "all processes need one workdir that all see: a bucket, or a shared file system"
        return Finding("failed", f"what process 0 writes to {workdir} is not seen here", advice)
    held = "writable"
    if config is not None:
        held += f", {holds(workdir, config)}"
    return Finding("ok", f"{workdir}: {held}")


def holds(name: str, config: TrainConfig) -> str:
    """What run a folder or bucket holds. Raises UserError where it is another one."""
    # Needs packages that only training needs, and without a config nothing of this does.
    from clip_jax.training import workdir as workdirs
    from clip_jax.weights.folders import CHECKPOINTS
    from clip_jax.weights.orbax_checkpoints import complete_steps

    workdir = workdirs.as_workdir(name)
    workdirs.check(workdir, config)
    steps = complete_steps(workdir / CHECKPOINTS)
    if steps:
        return f"holds this run, which goes on from step {max(steps):,} of {config.steps:,}"
    return "holds this run, not yet a checkpoint" if (workdir / workdirs.CONFIG).exists() else "holds no run yet"


def _probe_path(workdir: str, name: str) -> Path | epath.Path:
    """In the workdir, or where that is not there yet, in the nearest folder above it, so that nothing is left."""
    if "://" not in workdir:
        return existing(Path(workdir)) / name
    if not workdir.startswith("gs://"):
        raise UserError(f"train does not write to {workdir}; a bucket is gs://BUCKET/FOLDER")
    return epath.Path(workdir) / name  # as train reaches it


def _write(path: Path | epath.Path) -> None:
    try:
        path.write_bytes(CONTENTS)
    except Exception as error:  # of a bucket, whatever its library raises
        advice = "choose another --workdir, or get the right to write there"
        raise UserError(f"cannot write to {path.parent}: {reason(error)}; {advice}") from error


def _reads(path: Path | epath.Path) -> bool:
    try:
        return path.read_bytes() == CONTENTS
    except Exception:
        return False
