"""Launching on a cloud that is not there: exact commands, the loop against recorded answers, and a user's mistakes."""

import json
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from clip_jax.cli import launch as command
from clip_jax.cli.main import main
from clip_jax.errors import UserError
from clip_jax.tpu import launch_commands as commands
from clip_jax.tpu.launch import LAST_LINES, Launcher, run_of, steps
from clip_jax.tpu.launch_commands import Request, Slice
from clip_jax.tpu.launch_prices import cost
from clip_jax.tpu.launch_runner import Result, Shell
from clip_jax.tpu.launch_state import verdict, workers
from clip_jax.tpu.launch_types import accelerator_type, type_flags
from clip_jax.tpu.topology import parse_topology

ROOT = Path(__file__).parents[2]
TRAIN = ("train", "--config=configs/scenes.py", "--workdir=gs://bucket/run")
NAMED = ("--name", "my-run", "--zone", "us-west4-a", "--project", "my-project")
SPOT = ("--topology", "v5e:4x4", "--spot")
WHERE = "--project=my-project --zone=us-west4-a --quiet"

NO_SLICE = Result(1, "", "ERROR: (gcloud.compute.tpus.tpu-vm.describe) NOT_FOUND: Resource my-run was not found")
NO_ROOM = Result(
    1,
    "",
    'ERROR: (gcloud.compute.tpus.tpu-vm.create) There is no more capacity in the zone "us-west4-a"; you can try in '
    "another zone where Cloud TPU Nodes are offered (see https://cloud.google.com/tpu/docs/regions) [EID: 0x1]",
)
BROKEN = Result(255, "", "ssh: connect to host 1.2.3.4 port 22: Connection timed out")


def node(state: str) -> Result:
    return Result(0, json.dumps({"name": "my-run", "state": state}))


def queued(state: str, nodes: int = 1, message: str = "") -> Result:
    spec = {"multisliceParams": {"nodeCount": nodes}} if nodes > 1 else {"nodeId": "my-run"}
    told = {"state": state, **({"failedData": {"error": {"message": message}}} if message else {})}
    return Result(0, json.dumps({"state": told, "tpu": {"nodeSpec": [spec]}}))


def log(state: str, text: str, size: int = 100) -> Result:
    return Result(0, f"state {state} {size}\n{text}")


def states(*found: str, run: str = "0123456789ab") -> Result:
    return Result(0, "".join(f"worker host-{i} {state} {run}\n" for i, state in enumerate(found)))


class Recorded:
    """A runner that answers each kind of command from a list, the last of which goes on; it keeps a log of them all."""

    def __init__(self, **answers: list[Result]) -> None:
        self.answers = {kind: list(found) for kind, found in answers.items()}
        self.commands: list[list[str]] = []

    def run(self, command: Sequence[str]) -> Result:
        self.commands.append(list(command))
        found = self.answers.get(kind_of(command), [Result(0)])
        return found.pop(0) if len(found) > 1 else found[0]

    def show(self, command: Sequence[str]) -> int:
        return self.run(command).code

    @property
    def kinds(self) -> list[str]:
        """The kinds of all commands but looks, as those are many."""
        return [kind for kind in map(kind_of, self.commands) if kind not in ("describe", "watch", "state")]


def kind_of(command: Sequence[str]) -> str:
    if command[0] != "gcloud":
        return "pack" if command[0] == "bash" else "tracked"
    if command[4] != "ssh":
        return command[4]
    remote = command[-1].removeprefix("--command=")
    if "install" in remote:
        return "install"
    return "follow" if remote.startswith("tail") else remote.split()[2]


class Clock:
    """Time that passes by sleeping only."""

    def __init__(self) -> None:
        self.time = 0.0
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.time += seconds
        self.slept.append(seconds)


def launcher(runner: Recorded, clock: Clock, said: list[str], attempts: int = 3, queued: bool = False) -> Launcher:
    slice_ = Slice("my-run", "us-west4-a", "my-project", queued)
    request = Request(slice_, parse_topology("v5e:4x4"), spot=True)
    return Launcher(
        request, TRAIN, "a.tar.gz", attempts, runner, clock.sleep, lambda: clock.time, lambda text: said.append(text)
    )


def launch(runner: Recorded, *arguments: str) -> None:
    command.run([*NAMED, *arguments], runner, Clock().sleep)


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(command, "ARCHIVES", tmp_path)


# --- the commands, as documented by gcloud's reference pages


def request(topology: str, slices: int = 1, queued: bool = False, spot: bool = False) -> Request:
    where = Slice("my-run", "us-west4-a", "my-project", queued or slices > 1, slices)
    return Request(where, parse_topology(topology, slices), spot)


VM, QUEUE = "gcloud compute tpus tpu-vm", "gcloud compute tpus queued-resources"
CREATED = [
    (
        request("v5e:16x16"),
        f"{VM} create my-run {WHERE} --accelerator-type=v5litepod-256 --version=v2-alpha-tpuv5-lite",
    ),
    (
        request("v5e:16x16", spot=True),
        f"{VM} create my-run {WHERE} --accelerator-type=v5litepod-256 --version=v2-alpha-tpuv5-lite --spot",
    ),
    (
        request("v5e:16x16", queued=True),
        f"{QUEUE} create my-run {WHERE} --accelerator-type=v5litepod-256 --runtime-version=v2-alpha-tpuv5-lite "
        "--node-id=my-run --async",
    ),
    (
        request("v4:2x2x4"),
        f"{VM} create my-run {WHERE} --type=v4 --topology=2x2x4 --version=tpu-ubuntu2204-base",
    ),
    (
        request("v4:4x4x4", spot=True),
        f"{VM} create my-run {WHERE} --type=v4 --topology=4x4x4 --version=tpu-ubuntu2204-base --spot",
    ),
    (
        request("v4:4x4x4", queued=True),
        f"{QUEUE} create my-run {WHERE} --type=v4 --topology=4x4x4 --runtime-version=tpu-ubuntu2204-base "
        "--node-id=my-run --async",
    ),
    (
        request("v6e:4x8"),
        f"{VM} create my-run {WHERE} --accelerator-type=v6e-32 --version=v2-alpha-tpuv6e",
    ),
    (
        request("v6e:4x8", spot=True),
        f"{VM} create my-run {WHERE} --accelerator-type=v6e-32 --version=v2-alpha-tpuv6e --spot",
    ),
    (
        request("v6e:4x8", slices=2, spot=True),
        f"{QUEUE} create my-run {WHERE} --accelerator-type=v6e-32 --runtime-version=v2-alpha-tpuv6e "
        "--node-count=2 --node-prefix=my-run --async --spot",
    ),
]


@pytest.mark.parametrize(("asked", "line"), CREATED)
def test_how_a_slice_is_asked_for(asked, line):
    assert shlex.join(commands.create(asked)) == line


@pytest.mark.parametrize(
    ("topology", "name"),
    [
        ("v4:4x4x8", "v4-256"),
        ("v5e:2x4", "v5litepod-8"),
        ("v5p:8x8x8", "v5p-1024"),
        ("v5p:2x2x1", "v5p-8"),
        ("v6e:16x16", "v6e-256"),
        ("tpu7x:4x4x4", "tpu7x-128"),
    ],
)
def test_names_of_types_as_google_has_them(topology, name):
    """The tables of cloud.google.com/tpu/docs/v4, v5e, v5p, v6e and of public scripts for TPU7x."""
    assert accelerator_type(parse_topology(topology)) == name
    assert type_flags(parse_topology(topology))


@pytest.mark.parametrize("shape", ["4x4x8", "4x4x12", "4x8x8", "4x4x20", "8x8x8", "8x8x16", "8x16x16", "16x16x24"])
def test_shapes_that_a_number_of_chips_stands_for(shape):
    """All of these are in the table of v5p's slices."""
    assert type_flags(parse_topology(f"v5p:{shape}"))[0].startswith("--accelerator-type=v5p-")


@pytest.mark.parametrize(
    ("topology", "message"),
    [
        ("v5e:3x3", "no slice of v5e is 3x3; there are 1x1, 2x2, 2x4"),
        ("v6e:2x8", "no slice of v6e is 2x8"),
        ("v5p:2x3x4", "no slice of v5p is 2x3x4"),
        ("v5p:4x4x16", "v5p-512 is 4x8x8; plan with v5p:4x8x8"),
    ],
)
def test_shapes_that_google_does_not_have(topology, message):
    with pytest.raises(UserError, match=message):
        type_flags(parse_topology(topology))


def test_reaching_the_workers():
    one, two = Slice("my-run", "us-west4-a", "my-project"), Slice("my-run", "us-west4-a", "my-project", True, 2)
    kept = (
        "'--ssh-flag=-o ConnectTimeout=20' '--ssh-flag=-o ServerAliveInterval=15' '--ssh-flag=-o ServerAliveCountMax=4'"
    )
    worker = "bash clip-jax/source/experiments/tpu/worker.sh"
    assert (
        shlex.join(commands.ssh(one, commands.state()))
        == f"{VM} ssh my-run {WHERE} --worker=all {kept} '--command={worker} state'"
    )
    assert (
        shlex.join(commands.ssh(two, commands.watch(-1), worker="0"))
        == f"{QUEUE} ssh my-run {WHERE} --node=0 --worker=0 {kept} '--command={worker} watch -1'"
    )
    assert (
        shlex.join(commands.copy(two, "a.tar.gz"))
        == f"{QUEUE} scp a.tar.gz my-run:clip-jax.tar.gz {WHERE} --node=all --worker=all"
    )
    assert commands.start(("train", "--config.data.source=tar:gs://b/*.tar")) == (
        f"{worker} start train '--config.data.source=tar:gs://b/*.tar'"
    )


@pytest.mark.skipif(shutil.which("gcloud") is None, reason="gcloud is not installed")
def test_gcloud_itself_takes_the_commands(tmp_path, monkeypatch):
    """By its own linter, which reads flags and choices and needs neither a login nor the network."""
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    file = tmp_path / "commands.json"
    asked = [request("v5e:4x4", spot=True), request("v4:2x2x4", slices=2), request("v5p:8x8x8", queued=True)]
    lines = [line for one in asked for _, line in steps(one, TRAIN, "a.tar.gz") if line[0] == "gcloud"]
    lines += [
        commands.ssh(asked[0].slice, remote) for remote in (commands.last(9), commands.follow(9), commands.stop())
    ]
    found = {shlex.join(line) for line in lines}
    file.write_text(json.dumps([{"command_string": line} for line in found]))
    linter = ["gcloud", "meta", "lint-gcloud-commands", f"--commands-file={file}"]
    answers = json.loads(subprocess.run(linter, capture_output=True, text=True, check=True).stdout)
    assert len(answers) == len(found)
    assert [answer["error_message"] for answer in answers if not answer["success"]] == []


# --- the loop


def test_success():
    clock, said = Clock(), []
    runner = Recorded(
        describe=[NO_SLICE, node("CREATING"), node("READY")],
        watch=[log("active", "step 1\n", 7), log("active", "step 2\n", 14), log("0", "step 3\n", 21)],
        state=[states("0", "0", "active"), states("0", "0", "0")],
    )
    report = launcher(runner, clock, said).supervise()
    assert (report.outcome, report.preemptions, report.crashes) == ("done", 0, 0)
    assert runner.kinds == ["pack", "create", "scp", "install", "start"]
    assert [line for line in said if line.startswith("step")] == ["step 1", "step 2", "step 3"]
    offsets = [line[-1].split()[-1] for line in runner.commands if kind_of(line) == "watch"]
    assert offsets == ["-1", "7", "14"]


def test_preempted_twice_then_done():
    """Also where the workers end in other ways, and where there is no capacity for a while."""
    clock, said = Clock(), []
    runner = Recorded(
        describe=[
            *(NO_SLICE, node("READY"), *[node("PREEMPTED")] * 3),  # worker 0 gone
            *(NO_SLICE, NO_SLICE, NO_SLICE, node("READY"), *[node("PREEMPTED")] * 2),  # code 75
            *(NO_SLICE, node("READY")),
        ],
        create=[Result(0), NO_ROOM, NO_ROOM, Result(0), Result(0)],
        watch=[BROKEN, log("75", "checkpoint saved\n"), log("0", "done\n")],
        state=[states("75", "2"), states("0", "0")],
    )
    report = launcher(runner, clock, said).supervise()
    assert (report.outcome, report.preemptions, report.crashes) == ("done", 2, 0)
    once = ["scp", "install", "start"]
    assert runner.kinds == [
        *("pack", "create", *once, "delete", "create", "create", "create", *once, "delete", "create", *once)
    ]
    assert [seconds for seconds in clock.slept if seconds >= 60] == [60, 120]
    assert sum("no capacity" in line for line in said) == 2


def test_a_queued_resource_that_is_suspended():
    clock, said = Clock(), []
    runner = Recorded(
        describe=[
            *(NO_SLICE, queued("WAITING_FOR_RESOURCES"), queued("PROVISIONING"), queued("ACTIVE")),
            *(*[queued("SUSPENDING")] * 3, queued("SUSPENDED"), NO_SLICE, queued("ACTIVE")),
        ],
        watch=[BROKEN, log("0", "")],
        state=[states("0")],
    )
    report = launcher(runner, clock, said, queued=True).supervise()
    assert (report.outcome, report.preemptions) == ("done", 1)
    assert [line for line in runner.commands if kind_of(line) == "delete"] == [
        f"{QUEUE} delete my-run {WHERE} --force".split()
    ]
    assert [word for word in said if word.startswith("my-run is ")] == [
        f"my-run is {word}" for word in ("WAITING_FOR_RESOURCES", "PROVISIONING", "SUSPENDING", "SUSPENDED")
    ]


def test_half_an_answer_is_no_end():
    """Worker 0 is done and answers, the others have been taken away."""
    clock, said = Clock(), []
    runner = Recorded(
        describe=[NO_SLICE, node("READY"), *[node("PREEMPTED")] * 3, NO_SLICE, node("READY")],
        watch=[log("0", "")],
        state=[Result(255, states("0").out, "unreachable"), states("0", "0")],
    )
    report = launcher(runner, clock, said).supervise()
    assert (report.outcome, report.preemptions) == ("done", 1)


def test_a_users_mistake_is_not_tried_again():
    clock, said = Clock(), []
    runner = Recorded(
        describe=[NO_SLICE, node("READY")],
        watch=[log("2", "")],
        state=[states("2", "2")],
        last=[Result(0, "host-0: clip-jax: config has no key 'optimiser'\n")],
    )
    report = launcher(runner, clock, said).supervise()
    assert (report.outcome, report.crashes) == ("mistake", 0)
    assert runner.kinds == ["pack", "create", "scp", "install", "start", "last"]
    assert said[-1].endswith("host-0: clip-jax: config has no key 'optimiser'")
    assert runner.commands[-1][-1].endswith(f"last {LAST_LINES}")


def test_a_crash_loop_ends():
    """On the same slice, later each time; the survivors of a crash end with the code of a mistake."""
    clock, said = Clock(), []
    runner = Recorded(describe=[NO_SLICE, node("READY")], watch=[log("2", "")], state=[states("2", "137", "2")])
    report = launcher(runner, clock, said).supervise()
    assert (report.outcome, report.crashes) == ("crashed", 3)
    assert runner.kinds == ["pack", "create", *["scp", "install", "start", "last"] * 3]
    assert [seconds for seconds in clock.slept if seconds >= 60] == [60, 120]
    assert "3 times in a row" in said[-1]


def test_crashes_that_are_hours_apart_are_counted_anew():
    clock, said = Clock(), []
    hours = [log("active", "")] * 400
    runner = Recorded(
        describe=[NO_SLICE, node("READY")],
        watch=[*hours, log("1", ""), *hours, log("1", ""), log("0", "")],
        state=[states("1"), states("1"), states("0")],
    )
    report = launcher(runner, clock, said, attempts=2).supervise()
    assert (report.outcome, report.crashes) == ("done", 2)


def test_a_failed_installation_counts_as_a_crash():
    clock, said = Clock(), []
    runner = Recorded(
        describe=[NO_SLICE, node("READY")],
        install=[Result(1, "", "error: Failed to fetch"), Result(0)],
        watch=[log("0", "")],
        state=[states("0")],
    )
    assert launcher(runner, clock, said).supervise().crashes == 1
    assert "that failed: error: Failed to fetch" in said


def test_no_capacity_at_the_start_is_one_line():
    runner = Recorded(describe=[NO_SLICE], create=[NO_ROOM])
    with pytest.raises(UserError, match=r"^cannot create my-run: the zone has no capacity .* --queued waits"):
        launcher(runner, Clock(), []).supervise()
    assert runner.kinds == ["pack", "create"]


def test_a_refused_queued_resource_is_one_line():
    runner = Recorded(describe=[NO_SLICE, queued("FAILED", message="no such accelerator")])
    with pytest.raises(UserError, match="Google refused my-run: no such accelerator"):
        launcher(runner, Clock(), [], queued=True).supervise()


def test_a_broken_connection_costs_nothing():
    """Training goes on without it; what was logged meanwhile is shown, nothing twice."""
    clock, said = Clock(), []
    runner = Recorded(
        describe=[NO_SLICE, node("READY")],
        watch=[log("active", "step 1\n", 7), BROKEN, BROKEN, log("0", "step 2\nstep 3\n", 21)],
        state=[BROKEN, states("0", "0")],
    )
    report = launcher(runner, clock, said).supervise()
    assert (report.outcome, report.crashes) == ("done", 0)
    assert runner.kinds == ["pack", "create", "scp", "install", "start"]
    assert [line for line in said if line.startswith("step")] == ["step 1", "step 2\nstep 3"]
    assert sum("does not answer" in line for line in said) == 1


def test_a_worker_that_never_answers_is_given_up():
    clock, said = Clock(), []
    runner = Recorded(describe=[NO_SLICE, node("READY")], watch=[BROKEN])
    assert launcher(runner, clock, said).supervise().outcome == "unreachable"


def test_coming_back_to_a_training_that_runs():
    clock, said = Clock(), []
    runner = Recorded(
        describe=[node("READY")],
        state=[states("active", "active", run=run_of(TRAIN)), states("0", "0", run=run_of(TRAIN))],
        watch=[log("0", "the end\n")],
    )
    assert launcher(runner, clock, said).supervise().outcome == "done"
    assert runner.kinds == ["pack"]


def test_coming_back_with_another_training_is_refused():
    runner = Recorded(describe=[node("READY")], state=[states("active", run="ffffffffffff")])
    with pytest.raises(UserError, match="at work on something else"):
        launcher(runner, Clock(), []).supervise()


def test_a_slice_that_was_preempted_meanwhile_is_replaced():
    runner = Recorded(describe=[node("PREEMPTED"), NO_SLICE, node("READY")], watch=[log("0", "")], state=[states("0")])
    assert launcher(runner, Clock(), []).supervise().outcome == "done"
    assert runner.kinds == ["pack", "delete", "create", "scp", "install", "start"]


@pytest.mark.parametrize(
    ("found", "ending"),
    [
        (["0", "0"], "done"),
        (["75", "2"], "requeue"),
        (["75", "75"], "requeue"),
        (["2", "2"], "mistake"),
        (["2", "0"], "mistake"),
        (["1", "2"], "crashed"),
        (["0", "absent"], "crashed"),
        (["0", "active"], "crashed"),
        (["stopped", "stopped", "2"], "stopped"),
        ([], "crashed"),
    ],
)
def test_verdicts(found, ending):
    assert verdict(found) == ending


def test_workers_are_found_among_other_output():
    text = "Warning: Permanently added\nworker t1v-n-0 75 0123456789ab\nworker t1v-n-1 active none\nnot a worker line\n"
    assert [(one.host, one.state, one.run) for one in workers(text)] == [
        ("t1v-n-0", "75", "0123456789ab"),
        ("t1v-n-1", "active", "none"),
    ]


# --- costs


def test_costs_are_those_of_the_table(tmp_path):
    table = tmp_path / "prices.json"
    prices = {"v5e": {"us-west4": {"on_demand": 1.25, "spot": 0.5}}}
    table.write_text(json.dumps({"looked_up": "2026-01-31", "chip_hour": prices}))
    two = parse_topology("v5e:4x4", 2)
    assert cost(two, "us-west4-a", spot=False, table=table).hour == 40.0
    assert "about $16.00 an hour: 32 chips at $0.5, spot in us-west4" in cost(two, "us-west4-a", True, table).sentence
    unknown = cost(two, "us-east5-b", True, table)
    assert unknown.hour is None
    assert "the spot price of v5e in us-east5 is not in" in unknown.sentence
    table.write_text("{}")
    with pytest.raises(UserError, match="no table of prices"):
        cost(two, "us-west4-a", True, table)


def test_the_table_that_comes_along_is_sound():
    prices = json.loads((ROOT / "experiments/tpu/prices.json").read_text())
    assert set(prices) == {"source", "looked_up", "checked", "unit", "chip_hour"}
    for regions in prices["chip_hour"].values():
        for terms in regions.values():
            assert 0 < terms["spot"] < terms["on_demand"] < 20


# --- the command line


def test_a_dry_run_runs_nothing(capsys):
    runner = Recorded()
    launch(runner, *SPOT, "--dry-run", "--", *TRAIN)
    out = capsys.readouterr().out.splitlines()
    assert runner.commands == []
    pasted = [shlex.split(line) for line in out if line and not line.startswith("#")]
    assert [kind_of(line) for line in pasted] == [
        *("pack", "describe", "create", "describe", "scp", "install", "start", "watch", "state", "delete")
    ]
    assert "about $7.68 an hour: 16 chips at $0.48, spot in us-west4" in out[0]  # 16 * 0.48


def test_from_nothing_to_nothing_left(capsys, tmp_path):
    runner = Recorded(describe=[NO_SLICE, node("READY")], watch=[log("0", "step 9\n")], state=[states("0")])
    launch(runner, *SPOT, "--json", str(tmp_path / "r.json"), "--", *TRAIN)
    out = capsys.readouterr().out
    assert runner.kinds == ["tracked", "pack", "create", "scp", "install", "start", "delete"]
    assert out.index("about $7.68 an hour") < out.index("step 9")
    assert "my-run is deleted" in out
    assert json.loads((tmp_path / "r.json").read_text())["outcome"] == "done"


def test_what_is_kept_says_what_it_costs(capsys):
    runner = Recorded(describe=[NO_SLICE, node("READY")], watch=[log("2", "")], state=[states("2")])
    with pytest.raises(SystemExit) as stop:
        launch(runner, *SPOT, "--", *TRAIN)
    assert stop.value.code == 2
    out = capsys.readouterr().out
    assert "delete" not in runner.kinds
    assert "still there and costs, about $7.68 an hour" in out
    assert "clip-jax launch delete --name my-run --zone us-west4-a --project my-project" in out


def test_ctrl_c_detaches(capsys, monkeypatch):
    runner = Recorded(describe=[NO_SLICE, node("READY")], watch=[log("active", "step 1\n")])

    def interrupted(seconds: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as stop:
        command.run([*NAMED, *SPOT, "--", *TRAIN], runner, interrupted)
    assert stop.value.code == 130
    assert "The same command comes back to it" in capsys.readouterr().err
    assert runner.kinds == ["tracked", "pack", "create", "scp", "install", "start"]


def test_status_of_several_slices(capsys):
    runner = Recorded(describe=[queued("ACTIVE", nodes=2)], state=[states("active", "0")])
    launch(runner, "status")
    assert capsys.readouterr().out.split() == ["my-run", "is", "ACTIVE", "host-0", "active", "host-1", "0"]
    assert "--node=all" in runner.commands[-1]


def test_logs_and_stop():
    runner = Recorded(describe=[NO_SLICE, node("READY")])
    launch(runner, "logs", "--worker", "3", "--lines", "7")
    assert "--worker=3" in runner.commands[-1]
    assert runner.commands[-1][-1] == "--command=tail -n 7 -F clip-jax/log"
    launch(runner, "stop")
    assert runner.kinds == ["follow", "stop"]


def test_deleting_asks(capsys, monkeypatch):
    runner = Recorded(describe=[NO_SLICE, node("READY"), NO_SLICE, node("READY"), NO_SLICE, node("READY")])
    monkeypatch.setattr("builtins.input", lambda _: "yes")
    with pytest.raises(UserError, match="'yes' is not my-run; nothing is deleted"):
        launch(runner, "delete")
    assert runner.kinds == []
    monkeypatch.setattr("builtins.input", lambda _: "my-run")
    launch(runner, "delete")
    launch(runner, "delete", "--yes")
    assert [shlex.join(line) for line in runner.commands if kind_of(line) == "delete"] == [
        f"{VM} delete my-run {WHERE}"
    ] * 2


def test_a_slice_that_will_not_go_is_told_of(capsys):
    """A failure that nobody explains is tried again; what only the user can mend is not."""
    ends = {"describe": [NO_SLICE, node("READY")], "watch": [log("0", "")], "state": [states("0")]}
    passing = Recorded(**ends, delete=[Result(1, "", "ERROR: gcloud crashed (ConnectionError)"), Result(0)])
    launch(passing, *SPOT, "--", *TRAIN)
    assert passing.kinds[-2:] == ["delete", "delete"]
    denied = Recorded(**ends, delete=[Result(1, "", "ERROR: (gcloud.x) PERMISSION_DENIED: no")])
    with pytest.raises(UserError, match=r"cannot delete my-run, which goes on to cost: .* roles/tpu.admin"):
        launch(denied, *SPOT, "--", *TRAIN)
    assert "training is done" in capsys.readouterr().out


def test_deleting_what_is_not_there():
    with pytest.raises(UserError, match="there is no slice my-run in us-west4-a"):
        launch(Recorded(describe=[NO_SLICE]), "delete", "--yes")


GCLOUD_SAYS = {
    "login": (
        "ERROR: (gcloud.compute.tpus.tpu-vm.describe) You do not currently have an active account selected.\n"
        "Please run:\n\n  $ gcloud auth login\n\nto obtain new credentials.",
        "gcloud has no login; gcloud auth login",
    ),
    "project": (
        "ERROR: (gcloud.compute.tpus.tpu-vm.describe) The required property [project] is not currently set.",
        "give --project",
    ),
    "api": (
        "ERROR: (gcloud.compute.tpus.tpu-vm.describe) PERMISSION_DENIED: Cloud TPU API has not been used in project 1 "
        "before or it is disabled.",
        "gcloud services enable tpu.googleapis.com",
    ),
    "permission": (
        "ERROR: (gcloud.compute.tpus.tpu-vm.describe) PERMISSION_DENIED: Permission 'tpu.nodes.get' denied",
        "roles/tpu.admin",
    ),
}


@pytest.mark.parametrize("cause", GCLOUD_SAYS)
def test_what_gcloud_says_becomes_one_line(cause):
    says, message = GCLOUD_SAYS[cause]
    with pytest.raises(UserError, match=message) as mistake:
        launch(Recorded(describe=[Result(1, "", says)]), *SPOT, "--", *TRAIN)
    assert "\n" not in str(mistake.value)


def test_quota():
    says = (
        "ERROR: (gcloud.x) Quota limit 'TPUV5sPreemptibleLitepodPerProjectPerZone' has been exceeded. Limit: 0 in zone."
    )
    runner = Recorded(describe=[NO_SLICE], create=[Result(1, "", f"{{\n  code: 8\n}}\n{says}")])
    with pytest.raises(UserError, match="quota is too small; ask for more at"):
        launch(runner, *SPOT, "--", *TRAIN)


def test_no_gcloud(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="the program gcloud is not on this machine"):
        Shell().run(["gcloud", "version"])


ASKED = ("--topology", "v5e:4x4", "--zone", "us-west4-a")
WRONG = {
    "topology": (
        ("--name", "a", "--zone", "us-west4-a", "--topology", "v5litepod-16", "--", *TRAIN),
        "no TPU topology",
    ),
    "shape": (("--name", "a", "--zone", "us-west4-a", "--topology", "v5e:2x8", "--", *TRAIN), "no slice of v5e is 2x8"),
    "no topology": (("--name", "a", "--zone", "us-west4-a", "--", *TRAIN), "run needs --topology"),
    "no zone": (("--name", "a", "--topology", "v5e:4x4", "--", *TRAIN), "--zone"),
    "no name": ((*ASKED, "--", *TRAIN), "--name"),
    "capitals": (("--name", "My-Run", *ASKED, "--", *TRAIN), "--name My-Run: a slice's name is of a-z"),
    "region": (("--name", "a", "--topology", "v5e:4x4", "--zone", "us-west4", "--", *TRAIN), "us-west4 is no zone"),
    "project": (("--name", "a", *ASKED, "--project", "My Project", "--", *TRAIN), "is no project's ID"),
    "slices": (("--name", "a", *ASKED, "--slices", "0", "--", *TRAIN), "at least one slice"),
    "attempts": (("--name", "a", *ASKED, "--attempts", "0", "--", *TRAIN), "at least one attempt"),
    "action": (("launch", "--name", "a", *ASKED), "invalid choice: 'launch'"),
    "no command": (("--name", "a", *ASKED), "after -- comes the training command"),
    "another command": (("--name", "a", *ASKED, "--", "clip-jax", "train"), "after -- comes the training command"),
    "command elsewhere": (("status", "--name", "a", "--zone", "us-west4-a", "--", *TRAIN), "status takes no command"),
    "config": (("--name", "a", *ASKED, "--", "train", "--config=no.py", "--workdir=gs://b/r"), "no config file no.py"),
    "key": (("--name", "a", *ASKED, "--", *TRAIN, "--config.stepz=3"), "no key 'stepz'; did you mean 'steps'?"),
    "workdir": (
        ("--name", "a", *ASKED, "--", "train", "--config=configs/scenes.py", "--workdir=runs/a"),
        "--workdir runs/a would lie on a worker's own disk",
    ),
    "worker": (("logs", "--name", "a", "--zone", "us-west4", "--worker", "x"), "us-west4 is no zone"),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_mistakes_get_one_line(capsys, mistake):
    arguments, message = WRONG[mistake]
    with pytest.raises(SystemExit) as stop:
        main(["launch", *arguments])
    captured = capsys.readouterr()
    assert stop.value.code == 2
    assert message in captured.err
    assert len(captured.err.splitlines()) == 1


def test_an_untracked_config_is_told_of(capsys):
    runner = Recorded(tracked=[Result(1, "", "error: pathspec did not match")])
    with pytest.raises(UserError, match=r"git does not track configs/scenes.py here"):
        launch(runner, *SPOT, "--", *TRAIN)


def test_elsewhere_than_in_the_repository(monkeypatch, tmp_path):
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="run it in the repository's folder"):
        launch(Recorded(), *SPOT, "--", *TRAIN)
