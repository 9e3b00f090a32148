"""The commands that `clip-jax launch` runs, as lists of arguments: gcloud's, and those on a slice's workers."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from clip_jax.tpu.launch_types import image, type_flags
from clip_jax.tpu.topology import Topology

GCLOUD = ("gcloud", "compute", "tpus")
ARCHIVE = "clip-jax.tar.gz"  # on the workers, in the home folder
FOLDER = "clip-jax"  # there too; holds source/, venv/, log and exit
WORKER = f"bash {FOLDER}/source/experiments/tpu/worker.sh"
SCOPES = "https://www.googleapis.com/auth/cloud-platform"
# A connection that died is noticed within a minute; gcloud itself tries ten times to connect.
SSH_FLAGS = ("ConnectTimeout=20", "ServerAliveInterval=15", "ServerAliveCountMax=4")


@dataclass(frozen=True)
class Slice:
    """A slice's name and place. A queued resource of several `nodes` is several slices of one run."""

    name: str
    zone: str
    project: str | None = None
    queued: bool = False
    nodes: int = 1

    @property
    def kind(self) -> str:
        return "queued-resources" if self.queued else "tpu-vm"

    @property
    def flags(self) -> list[str]:
        """What says to gcloud where the slice is; it asks nothing."""
        return [*([f"--project={self.project}"] if self.project else []), f"--zone={self.zone}", "--quiet"]


@dataclass(frozen=True)
class Request:
    """What is asked of Google: a slice of a topology, and on which terms."""

    slice: Slice
    topology: Topology
    spot: bool = False
    image: str | None = None
    service_account: str | None = None


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
    connection = [f"--ssh-flag=-o {flag}" for flag in SSH_FLAGS]
    return [*GCLOUD, kind, "ssh", where.name, *flags, *connection, f"--command={command}"]


def copy(where: Slice, archive: str) -> list[str]:
    """Copies the packed source tree to every worker."""
    kind, flags = _reach(where, "all")
    return [*GCLOUD, kind, "scp", archive, f"{where.name}:{ARCHIVE}", *flags]


def _reach(where: Slice, worker: str) -> tuple[str, list[str]]:
    if where.nodes == 1:  # the node of a queued resource has its name
        return "tpu-vm", [*where.flags, f"--worker={worker}"]
    node = "all" if worker == "all" else "0"
    return "queued-resources", [*where.flags, f"--node={node}", f"--worker={worker}"]


def pack(archive: str) -> list[str]:
    """Packs the files that git tracks in this folder, as they are on disk."""
    return ["bash", "-c", f"set -o pipefail; git ls-files -z | tar --null -czf {shlex.quote(archive)} -T -"]


def is_tracked(path: str) -> list[str]:
    """Fails for a file that git does not track, and that is therefore not packed."""
    return ["git", "ls-files", "--error-unmatch", "--", path]


def install() -> str:
    """On a worker: unpacks the source tree and installs it in an environment of its own."""
    unpack = f"rm -rf {FOLDER}/source && mkdir -p {FOLDER}/source && tar -xzf {ARCHIVE} -C {FOLDER}/source"
    return f"{unpack} && {WORKER} install"


def start(training: Sequence[str]) -> str:
    """On a worker: starts the training, which outlives the connection."""
    return f"{WORKER} start {shlex.join(training)}"


def state() -> str:
    """On a worker: a line `worker HOST STATE RUN`; the state is an exit code, active, absent or stopped."""
    return f"{WORKER} state"


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
