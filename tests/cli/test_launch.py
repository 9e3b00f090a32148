"""`clip-jax launch` on a cloud that is not there: its actions, how they end, and a user's mistakes."""

import json
import os
import shlex
import sys
from collections.abc import Sequence

import pytest
from support.recorded_gcloud import (
    NO_LOGIN,
    NO_ROOM,
    NO_SLICE,
    ONCE,
    ROOT,
    TRAIN,
    VM,
    WHERE,
    Clock,
    Recorded,
    kind_of,
    log,
    node,
    queued,
    states,
)

from clip_jax.cli import launch as command
from clip_jax.cli.main import main
from clip_jax.errors import UserError
from clip_jax.tpu.launch.runner import Result

NAMED = ("--name", "my-run", "--zone", "us-west4-a", "--project", "my-project")
SPOT = ("--topology", "v5e:4x4", "--spot")
DELETE = "clip-jax launch delete --name my-run --zone us-west4-a --project my-project"


def launch(runner: Recorded, *arguments: str) -> None:
    command.run([*NAMED, *arguments], runner, Clock().sleep)


def to_the_end(code: str = "0", text: str = "step 9\n") -> Recorded:
    return Recorded(describe=[NO_SLICE, node("READY")], watch=[log(code, text)], state=[states(code)])


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(command, "CACHE", tmp_path / "cache")


def test_a_dry_run_runs_nothing(capsys, tmp_path):
    runner = Recorded()
    launch(runner, *SPOT, "--dry-run", "--", *TRAIN)
    out = capsys.readouterr().out.splitlines()
    assert runner.commands == []
    assert not (tmp_path / "cache").exists()
    pasted = [shlex.split(line) for line in out if line and not line.startswith("#")]
    assert [kind_of(line) for line in pasted] == [
        *("pack", "describe", "create", "describe", *ONCE, "watch", "state", "delete")
    ]
    assert "about $7.68 an hour: 16 chips at $0.48, spot in us-west4" in out[0]  # 16 * 0.48


def test_from_nothing_to_nothing_left(capsys, tmp_path):
    runner = to_the_end()
    launch(runner, *SPOT, "--json", str(tmp_path / "r.json"), "--", *TRAIN)
    out = capsys.readouterr().out
    assert runner.kinds == ["tracked", "pack", "create", *ONCE, "delete"]
    assert out.index("about $7.68 an hour") < out.index("step 9")
    assert "my-run is deleted" in out
    assert json.loads((tmp_path / "r.json").read_text())["outcome"] == "done"


def test_weights_and_biases(monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_API_KEY", "0123abcd")
    runner = to_the_end()
    launch(runner, *SPOT, "--", *TRAIN, "--config.log.wandb=clip")
    copied, installed = (next(line for line in runner.commands if kind_of(line) == kind) for kind in ONCE[:2])
    folder = tmp_path / "cache/my-project-us-west4-a-my-run"
    assert str(folder / "clip-jax.wandb-key") in copied
    assert installed[-1].endswith("install train,tpu,gcs,wandb")
    assert not any("0123abcd" in word for line in runner.commands for word in line)


def test_a_report_that_cannot_be_written_keeps_no_slice(tmp_path):
    runner = to_the_end()
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        launch(runner, *SPOT, "--json", str(tmp_path / "file/r.json"), "--", *TRAIN)
    assert runner.kinds[-1] == "delete"


def test_what_is_kept_says_what_it_costs(capsys):
    runner = to_the_end("2")
    with pytest.raises(SystemExit) as stop:
        launch(runner, *SPOT, "--", *TRAIN)
    assert stop.value.code == 2
    out = capsys.readouterr().out
    assert "delete" not in runner.kinds
    assert "still there and costs, about $7.68 an hour" in out
    assert DELETE in out


class Interrupted(Recorded):
    """Ctrl-C while a command of the given kind runs."""

    def __init__(self, kind: str, **answers: list[Result]) -> None:
        super().__init__(**answers)
        self.kind = kind

    def run(self, command: Sequence[str]) -> Result:
        result = super().run(command)
        if kind_of(command) == self.kind:
            raise KeyboardInterrupt
        return result


@pytest.mark.parametrize("kind", ["create", "install", "watch", "delete"])
def test_ctrl_c_detaches(capsys, kind):
    """Whatever runs at that moment; the slice may be coming up, or not be deleted."""
    runner = Interrupted(kind, describe=[NO_SLICE, node("READY")], watch=[log("0", "")], state=[states("0")])
    with pytest.raises(SystemExit) as stop:
        launch(runner, *SPOT, "--", *TRAIN)
    assert stop.value.code == 130
    err = capsys.readouterr().err
    assert "my-run may still be there, where training goes on and costs, about $7.68 an hour" in err
    assert f"The same command comes back to it; {DELETE} ends it." in err
    assert kind_of(runner.commands[-1]) == kind


def test_ctrl_c_while_it_waits(capsys):
    runner = Recorded(describe=[NO_SLICE, node("READY")], watch=[log("active", "step 1\n")])

    def interrupted(seconds: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as stop:
        command.run([*NAMED, *SPOT, "--", *TRAIN], runner, interrupted)
    assert stop.value.code == 130
    assert "The same command comes back to it" in capsys.readouterr().err
    assert runner.kinds == ["tracked", "pack", "create", *ONCE]


def test_ctrl_c_before_there_is_anything(capsys):
    with pytest.raises(SystemExit) as stop:
        launch(Interrupted("pack"), *SPOT, "--", *TRAIN)
    assert stop.value.code == 130
    assert capsys.readouterr().err == ""


def test_a_failure_with_a_slice_there_says_what_it_costs(capsys):
    """As where a login runs out and nobody renews it."""
    runner = Recorded(
        describe=[NO_SLICE, node("READY"), node("READY"), NO_LOGIN],
        watch=[log("1", "")],
        state=[states("1")],
    )
    with pytest.raises(UserError, match=r"gcloud does not say how my-run is: .*gcloud auth login"):
        launch(runner, *SPOT, "--", *TRAIN)
    assert DELETE in capsys.readouterr().err
    denied = to_the_end()
    denied.answers["delete"] = [Result(1, "", "ERROR: (gcloud.x) PERMISSION_DENIED: no")]
    with pytest.raises(UserError, match=r"cannot delete my-run, which goes on to cost: .* roles/tpu.admin"):
        launch(denied, *SPOT, "--", *TRAIN)
    assert DELETE in capsys.readouterr().err


def test_a_failure_with_nothing_there_says_nothing_of_costs(capsys):
    runner = Recorded(describe=[NO_SLICE], create=[NO_ROOM])
    with pytest.raises(UserError, match="no capacity"):
        launch(runner, *SPOT, "--", *TRAIN)
    assert capsys.readouterr().err == ""


def test_nobody_reads_on(monkeypatch):
    """As with `clip-jax launch ... | head`: the run is looked after to its end all the same."""
    reading, writing = os.pipe()
    os.close(reading)
    runner = Recorded(
        describe=[NO_SLICE, node("READY")],
        watch=[log("active", "step 1\n", 7), log("0", "step 2\n", 14)],
        state=[states("0")],
    )
    with os.fdopen(writing, "w") as output:
        monkeypatch.setattr(sys, "stdout", output)
        launch(runner, *SPOT, "--", *TRAIN)
        monkeypatch.undo()
    assert runner.kinds[-1] == "delete"


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
    with pytest.raises(UserError, match="my-run is CREATING; nothing trains on it"):
        launch(Recorded(describe=[NO_SLICE, node("CREATING")]), "stop")


def test_deleting_asks(monkeypatch):
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
    with pytest.raises(UserError, match="there is no slice my-run in us-west4-a"):
        launch(Recorded(describe=[NO_SLICE]), "delete", "--yes")


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
    "scenes": (
        ("--name", "a", *ASKED, "--", "train", "--config=configs/scenes.py", "--workdir=gs://b/r"),
        "scenes cannot be drawn for a workdir in a bucket",
    ),
    "data": (
        ("--name", "a", *ASKED, "--", *TRAIN[:-1], "--config.data.source=tar:shards/*.tar"),
        "the data tar:shards/*.tar is not on the workers",
    ),
    "worker": (
        ("logs", "--name", "a", "--zone", "us-west4-a", "--worker", "x"),
        "--worker x: workers count from 0",
    ),
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
