"""Is the machine itself fit: processors, memory, disk, and what it allows a process."""

import os
import resource
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from clip_jax.data.files import is_remote
from clip_jax.tpu.doctor.examination import Finding
from clip_jax.training.chips import GIB
from clip_jax.training.config import TrainConfig

LEAST_MEMORY = 2 * GIB
LEAST_DISK = 5 * GIB
LEAST_FILES = 4_096
MOMENTS = 2


@dataclass(frozen=True)
class Machine:
    """What was read of it, in bytes; None for what is unknown, limits that are none are -1."""

    processors: int
    free_memory: int | None
    free_disk: int | None
    open_files: int
    memlock: int
    has_tpu: bool


def this_machine(workdir: str | None, has_tpu: bool) -> Machine:
    """This one; the disk is that of the workdir's file system, where it is local."""
    local = "." if workdir is None else None if is_remote(workdir) else workdir
    open_files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    memlock, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    return Machine(
        processors=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        free_memory=_free_memory(),
        free_disk=None if local is None else shutil.disk_usage(existing(Path(local))).free,
        open_files=-1 if open_files == resource.RLIM_INFINITY else open_files,
        memlock=-1 if memlock == resource.RLIM_INFINITY else memlock,
        has_tpu=has_tpu,
    )


def existing(path: Path) -> Path:
    """The path, or the nearest folder above it that exists."""
    path = path.expanduser().absolute()
    return next(one for one in (path, *path.parents) if one.exists())


def checkpoint_bytes(config: TrainConfig, parameters: int) -> int:
    """About what one checkpoint takes: float32 parameters, both moments and the average, where there is one."""
    first = 2 if config.optimizer.moment_dtype == "bfloat16" else 4
    return parameters * (4 + first + 4 + (4 if config.optimizer.ema is not None else 0))


def check_machine(machine: Machine, checkpoint: int = 0, kept: int = 0) -> Finding:
    """`checkpoint` is the size of one in bytes, of which so many are `kept`, and one more while it is written."""
    troubles: list[tuple[str, str]] = []
    status = "warning"
    needed = checkpoint * (kept + 1)
    if machine.free_memory is not None and machine.free_memory < LEAST_MEMORY:
        troubles.append((f"only {_gib(machine.free_memory)} of memory are free", "end what else uses memory"))
    if machine.free_disk is not None and machine.free_disk < max(needed, LEAST_DISK):
        status = "failed" if machine.free_disk < checkpoint else status
        of = f"; {kept} checkpoints and the next take {_gib(needed)}" if needed else ""
        advice = "free some, take a larger disk or a bucket" + (", or keep fewer (checkpoint.keep)" if needed else "")
        troubles.append((f"only {_gib(machine.free_disk)} of disk are free{of}", advice))
    if 0 <= machine.open_files < LEAST_FILES:
        troubles.append((f"a process may open {machine.open_files:,} files", "ulimit -n 65536"))
    if machine.has_tpu and machine.memlock >= 0:
        troubles.append((f"a process may lock {_gib(machine.memlock)} of memory", "ulimit -l unlimited, for the TPU"))
    seen = [f"{machine.processors} processors"]
    seen += [f"{_gib(machine.free_memory)} of memory free"] if machine.free_memory is not None else []
    seen += [f"{_gib(machine.free_disk)} of disk free"] if machine.free_disk is not None else []
    seen += ["no limit of open files" if machine.open_files < 0 else f"{machine.open_files:,} open files"]
    figures = asdict(machine) | {"checkpoint_bytes": checkpoint}
    if not troubles:
        return Finding("ok", ", ".join(seen), figures=figures)
    return Finding(status, "; ".join(seen for seen, _ in troubles), "; ".join(do for _, do in troubles), figures)


def _free_memory() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), None)


def _gib(size: int) -> str:
    return f"{size / GIB:,.1f} GiB"
