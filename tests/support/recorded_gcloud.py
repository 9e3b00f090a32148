"""A cloud that is not there: a runner that answers from lists, gcloud's and the workers' answers, and a clock."""

import json
from collections.abc import Sequence
from pathlib import Path

from clip_jax.tpu.launch.held_slice import HeldSlice
from clip_jax.tpu.launch.job import Job
from clip_jax.tpu.launch.request import Request, Slice
from clip_jax.tpu.launch.runner import Result
from clip_jax.tpu.launch.supervisor import Report, supervise
from clip_jax.tpu.topology import parse_topology

ROOT = Path(__file__).parents[2]
TRAIN = (
    *("train", "--config=configs/openai_vit_b32.py", "--workdir=gs://bucket/run"),
    "--config.data.source=tar:gs://bucket/shards/*.tar",
)
WHERE = "--project=my-project --zone=us-west4-a --quiet"
VM, QUEUE = "gcloud compute tpus tpu-vm", "gcloud compute tpus queued-resources"
LABEL = "v5e-4x4-spot"  # of the slice that the tests ask for
ONCE = ("scp", "install", "start")  # what brings the training to a slice

# As gcloud 528.0.0 wrote them, to an endpoint that answered with the API's status and message; of capacity, as
# reported in github.com/thevasudevgupta/gsoc-wav2vec2/issues/11.
IS = "This command is authenticated as me@example.com which is the active account specified by the [core/account]"
NO_SLICE = Result(
    1,
    "",
    "ERROR: (gcloud.compute.tpus.tpu-vm.describe) NOT_FOUND: Resource "
    f"'projects/my-project/locations/us-west4-a/nodes/my-run' was not found. {IS} property\n",
)
NO_ROOM = Result(
    1,
    "",
    'ERROR: (gcloud.compute.tpus.tpu-vm.create) {\n  "code": 8,\n  "message": "There is no more capacity in the zone '
    '\\"us-west4-a\\"; you can try in another zone where Cloud TPU Nodes are offered '
    '(see https://cloud.google.com/tpu/docs/regions) [EID: 0x1]"\n}\n',
)
NO_LOGIN = Result(
    1,
    "",
    "ERROR: (gcloud.compute.tpus.tpu-vm.describe) There was a problem reauthenticating while refreshing your current "
    "auth tokens: Reauthentication failed. cannot prompt during non-interactive execution.\n"
    "Please retry your command or run:\n\n  $ gcloud auth login\n\nto obtain new credentials.\n",
)
NO_NETWORK = Result(
    1,
    "",
    "ERROR: gcloud crashed (ConnectionError): HTTPSConnectionPool(host='tpu.googleapis.com', port=443): Max retries "
    "exceeded with url: /v2/projects/my-project/locations/us-west4-a/nodes/my-run?alt=json\n\n"
    "To check gcloud for common problems, please run the following command:\n  gcloud info --run-diagnostics\n",
)
BROKEN = Result(255, "", "ssh: connect to host 1.2.3.4 port 22: Connection timed out")


def node(state: str, label: str | None = LABEL) -> Result:
    """What gcloud says of a TPU VM; `label` is launch's, None that of a slice that it did not make."""
    return Result(0, json.dumps({"name": "my-run", "state": state, "labels": {"clip-jax": label} if label else {}}))


def queued(state: str, nodes: int = 1, message: str = "", label: str = f"{LABEL}-queued") -> Result:
    """What gcloud says of a queued resource."""
    spec = {"multisliceParams": {"nodeCount": nodes}} if nodes > 1 else {"nodeId": "my-run"}
    told = {"state": state, **({"failedData": {"error": {"message": message}}} if message else {})}
    return Result(
        0, json.dumps({"state": told, "tpu": {"nodeSpec": [{**spec, "node": {"labels": {"clip-jax": label}}}]}})
    )


def log(state: str, text: str, size: int = 100) -> Result:
    """What `worker.sh watch` says."""
    return Result(0, f"state {state} {size}\n{text}")


def states(*found: str, run: str = "0123456789ab") -> Result:
    """What `worker.sh state` says on workers."""
    return Result(0, "".join(f"worker host-{i} {state} {run}\n" for i, state in enumerate(found)))


class Recorded:
    """A runner that answers each kind of command from a list, the last of which goes on; it keeps a log of them all."""

    def __init__(self, **answers: list[Result]) -> None:
        self.answers = {kind: list(found) for kind, found in answers.items()}
        self.commands: list[list[str]] = []

    def run(self, command: Sequence[str]) -> Result:
        self.commands.append(list(command))
        kind = kind_of(command)
        found = self.answers.get(kind, [Result(1 if kind == "ssh-add" else 0)])
        return found.pop(0) if len(found) > 1 else found[0]

    def show(self, command: Sequence[str]) -> int:
        return self.run(command).code

    @property
    def kinds(self) -> list[str]:
        """The kinds of all commands but looks, as those are many."""
        return [kind for kind in map(kind_of, self.commands) if kind not in ("describe", "watch", "state", "ssh-add")]


def kind_of(command: Sequence[str]) -> str:
    """What a command is for: gcloud's verb, worker.sh's, or a program of this machine."""
    if command[0] != "gcloud":
        return {"bash": "pack", "git": "tracked"}.get(command[0], command[0])
    if command[4] != "ssh":
        return command[4]
    remote = command[-1].removeprefix("--command=")
    if "install" in remote:
        return "install"
    if remote.startswith("if"):
        return "state"
    return "follow" if remote.startswith("tail") else remote.split()[2]


class Clock:
    """Sleeps that are noted, and take no time."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    @property
    def pauses(self) -> list[float]:
        """The longer ones, before another attempt."""
        return [seconds for seconds in self.slept if seconds >= 60]


def request(topology: str, slices: int = 1, queued: bool = False, spot: bool = False) -> Request:
    """A request for my-run in us-west4-a."""
    where = Slice("my-run", "us-west4-a", "my-project", queued or slices > 1, slices)
    return Request(where, parse_topology(topology, slices), spot)


def held_slice(runner: Recorded, clock: Clock, said: list[str], attempts: int = 3, queued: bool = False) -> HeldSlice:
    """A spot slice of v5e:4x4 called my-run."""
    return HeldSlice(request("v5e:4x4", queued=queued, spot=True), attempts, runner, clock.sleep, said.append)


JOB = Job(TRAIN, Path("folder"))


def supervised(runner: Recorded, clock: Clock, said: list[str], attempts: int = 3, queued: bool = False) -> Report:
    """Trains on that slice."""
    held = held_slice(runner, clock, said, attempts, queued)
    return supervise(JOB, held, attempts, runner, clock.sleep, said.append)
