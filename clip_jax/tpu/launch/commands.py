"""The commands that `clip-jax launch` runs, as lists of arguments: gcloud's, and those on a slice's workers."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from clip_jax.tpu.launch.request import Request, Slice
from clip_jax.tpu.launch.slice_types import image, type_flags

GCLOUD = ("gcloud", "compute", "tpus")
LABEL = "clip-jax"  # the label's key
FOLDER = "clip-jax"  # on the workers, in the home folder; holds source/, venv/, log and exit
ARCHIVE, DATE, WANDB_KEY = (f"{FOLDER}.{what}" for what in ("tar.gz", "date", "wandb-key"))  # beside it
SCRIPT = f"{FOLDER}/source/experiments/tpu/worker.sh"
WORKER = f"bash {SCRIPT}"
SSH_KEY = "~/.ssh/google_compute_engine"  # gcloud's own
SCOPES = "https://www.googleapis.com/auth/cloud-platform"
# A connection that died is noticed within a minute; gcloud itself tries ten times to connect.
SSH_FLAGS = ("-oConnectTimeout=20", "-oServerAliveInterval=15", "-oServerAliveCountMax=4")


def create(request: Request) -> list[str]:
    """Asks for a slice. A queued resource waits for its turn, a TPU VM is there at once or refused."""
    where = request.slice
    version = request.image or image(request.topology)
    if where.queued:
        several = where.nodes > 1
        node = (
            [f"--node-count={where.nodes}", f"--node-prefix={where.name}"] if several else [f"--node-id={where.name}"]
        )
        terms = [f"--runtime-version={version}", *node, "--async"]
    else:
        terms = [f"--version={version}"]
    account = request.service_account
    return [
        *(*GCLOUD, where.kind, "create", where.name, *where.flags, *type_flags(request.topology), *terms),
        f"--labels={LABEL}={request.label}",
        *(["--spot"] if request.spot else []),
        *([f"--service-account={account}", f"--scopes={SCOPES}"] if account else []),
    ]


def describe(where: Slice) -> list[str]:
    """Everything that Google says of a slice, as JSON."""
    return [*GCLOUD, where.kind, "describe", where.name, *where.flags, "--format=json"]


def delete(where: Slice) -> list[str]:
    """Deletes a slice with all that its workers' disks hold."""
    return [*GCLOUD, where.kind, "delete", where.name, *where.flags, *(["--force"] if where.queued else [])]


def ssh(where: Slice, command: str, worker: str = "all") -> list[str]:
    """Runs a shell command on one worker of the first slice, or on `all` workers of all slices at once."""
    kind, flags = _reach(where, worker)
    connection = [f"--ssh-flag={flag}" for flag in SSH_FLAGS]
    return [*GCLOUD, kind, "ssh", where.name, *flags, *connection, f"--command={command}"]


def copy(where: Slice, files: Sequence[str]) -> list[str]:
    """Copies files into the home folder of every worker."""
    kind, flags = _reach(where, "all")
    connection = [f"--scp-flag={flag}" for flag in SSH_FLAGS]
    return [*GCLOUD, kind, "scp", *files, f"{where.name}:", *flags, *connection]


def _reach(where: Slice, worker: str) -> tuple[str, list[str]]:
    if where.nodes == 1:  # the node of a queued resource has its name
        return "tpu-vm", [*where.flags, f"--worker={worker}"]
    node = "all" if worker == "all" else "0"
    return "queued-resources", [*where.flags, f"--node={node}", f"--worker={worker}"]


def pack(folder: Path) -> list[str]:
    """Packs the files that git tracks here, as they are on disk, and notes when their commit was made."""
    place, date, archive = (shlex.quote(str(path)) for path in (folder, folder / DATE, folder / ARCHIVE))
    packed = f"git ls-files -z | tar --null -czf {archive} -T -"
    return ["bash", "-c", f"set -o pipefail; mkdir -p {place} && git log -1 --format=%cI >{date} && {packed}"]


def is_tracked(path: str) -> list[str]:
    """Fails for a file that git does not track, and that is therefore not packed."""
    return ["git", "ls-files", "--error-unmatch", "--", path]


def agent_keys() -> list[str]:
    """The fingerprints of the keys that the ssh-agent has; fails where there is none, of either."""
    return ["ssh-add", "-l"]


def fingerprint() -> list[str]:
    """The fingerprint of the key by which gcloud reaches the workers."""
    return ["ssh-keygen", "-lf", str(Path(SSH_KEY).expanduser())]


def install(extras: Sequence[str]) -> str:
    """On a worker: unpacks the source tree and installs it, with some of its extras, in an environment of its own."""
    unpack = f"rm -rf {FOLDER}/source && mkdir -p {FOLDER}/source && tar -xzf {ARCHIVE} -C {FOLDER}/source"
    return f"{unpack} && {WORKER} install {','.join(extras)}"


def start(training: Sequence[str]) -> str:
    """On a worker: starts the training, which outlives the connection."""
    return f"{WORKER} start {shlex.join(training)}"


def state() -> str:
    """On a worker: a line `worker HOST STATE RUN`; the state is an exit code, active, absent or stopped."""
    return f"if [ -e {SCRIPT} ]; then {WORKER} state; else echo worker $(hostname) absent none; fi"


def watch(offset: int) -> str:
    """On a worker: a line `state STATE SIZE`, then the log from a byte on; -1 stands for the last few lines."""
    return f"{WORKER} watch {offset}"


def last(lines: int) -> str:
    """On a worker: the log's last lines, each with the host's name, where training failed."""
    return f"{WORKER} last {lines}"


def follow(lines: int) -> str:
    """On a worker: the log's last lines and all that comes."""
    return f"tail -n {lines} -F {FOLDER}/log"


def stop() -> str:
    """On a worker: ends the training by SIGTERM, and waits for its last checkpoint."""
    return f"{WORKER} stop"


def shown(command: Sequence[str]) -> str:
    """A command as one would paste it into a shell."""
    return shlex.join(command)
