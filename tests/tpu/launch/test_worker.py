"""experiments/tpu/worker.sh, run by this machine's bash, with stand-ins for systemd, sudo and the training."""

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from clip_jax.tpu.launch.job import Job
from clip_jax.tpu.launch.state import workers

SCRIPT = Path(__file__).parents[3] / "experiments/tpu/worker.sh"
pytestmark = pytest.mark.skipif(
    not all(map(shutil.which, ("bash", "setsid", "sha256sum", "realpath"))), reason="needs the tools of a Linux system"
)

STANDINS = {
    "sudo": 'exec "$@"',
    # Keeps the unit's process group in a file, and drops its options.
    "systemd-run": """
while [ "${1#--}" != "$1" ]; do shift; done
setsid "$@" </dev/null >/dev/null 2>&1 &
echo $! >"$CLIP_JAX_FOLDER/unit"
""",
    "systemctl": """
group=$(cat "$CLIP_JAX_FOLDER/unit" 2>/dev/null || exit 1)
case $1 in
is-active) kill -0 -- "-$group" 2>/dev/null ;;
stop) kill -TERM -- "-$group" 2>/dev/null; while kill -0 -- "-$group" 2>/dev/null; do sleep 0.02; done ;;
esac
""",
}


class Machine:
    """A worker's home folder and its commands; the training is a shell script."""

    def __init__(self, folder: Path, training: str) -> None:
        self.folder = folder / "clip-jax"
        (self.folder / "venv/bin").mkdir(parents=True)
        (self.folder / "source").mkdir()
        for name, text in STANDINS.items():
            _program(folder / "bin" / name, text)
        _program(self.folder / "venv/bin/clip-jax", training)
        self.environment = os.environ | {
            "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
            "CLIP_JAX_FOLDER": str(self.folder),
        }

    def __call__(self, *arguments: str) -> str:
        done = subprocess.run(
            ["bash", str(SCRIPT), *arguments], env=self.environment, capture_output=True, text=True, timeout=30
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    @property
    def state(self) -> str:
        (worker,) = workers(self("state"))
        return worker.state

    @property
    def log(self) -> str:
        log = self.folder / "log"
        return log.read_text() if log.exists() else ""

    def wait_for(self, state: str, logged: str = "") -> None:
        deadline = time.monotonic() + 20
        while self.state != state or not self.log.endswith(logged):
            assert time.monotonic() < deadline, (self.state, self.log)
            time.sleep(0.02)


def _program(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/usr/bin/env bash\n{text}\n")
    path.chmod(0o755)


LASTING = """
exec 2>/dev/null
trap 'echo checkpoint saved; exit 75' TERM
echo "$*"
while true; do sleep 0.05; done
"""


@pytest.mark.parametrize("code", ["0", "2", "75", "137"])
def test_the_exit_code_is_kept(tmp_path, code):
    machine = Machine(tmp_path, f"echo step 1; echo in $(basename $PWD); exit {code}")
    assert machine.state == "absent"
    machine("start", "train", "--config=a b.py")
    machine.wait_for(code)
    assert machine("watch", "-1") == f"state {code} 17\nstep 1\nin source\n"
    assert machine("watch", "7") == f"state {code} 17\nin source\n"
    assert machine("watch", "17") == f"state {code} 17\n"
    last = machine("last", "1")
    assert last == "" if code == "0" else last.endswith(": in source\n")


def test_a_training_that_runs_is_known_by_its_command(tmp_path):
    machine = Machine(tmp_path, LASTING)
    machine("start", "train", "--config=a b.py")
    machine.wait_for("active", "train --config=a b.py\n")
    (worker,) = workers(machine("state"))
    assert worker.run == Job(("train", "--config=a b.py"), tmp_path).run
    machine("start", "train", "again")  # ends the first one
    machine.wait_for("active", "train again\n")
    machine("stop")
    assert machine.state == "stopped"
    assert machine.log.splitlines() == [
        *("train --config=a b.py", "checkpoint saved", "train again", "checkpoint saved")
    ]


def test_sigterm_leaves_the_trainings_own_code(tmp_path):
    """As when the machine is shut down: systemd signals all of the unit, and the code is still written."""
    machine = Machine(tmp_path, LASTING)
    machine("start", "train")
    machine.wait_for("active", "train\n")
    subprocess.run([tmp_path / "bin/systemctl", "stop", "clip-jax-train"], env=machine.environment, check=False)
    assert machine.state == "75"


def test_a_machine_that_restarted_has_no_training(tmp_path):
    machine = Machine(tmp_path, LASTING)
    machine("start", "train")
    machine.wait_for("active", "train\n")
    group = (machine.folder / "unit").read_text().strip()
    subprocess.run(["kill", "-KILL", "--", f"-{group}"], check=True)
    machine.wait_for("absent")


def test_installing_takes_the_versions_of_the_commit_s_day(tmp_path):
    machine = Machine(tmp_path, "")
    _program(tmp_path / "bin/uv", 'echo "uv $*"; [ "$1" != venv ] || { mkdir -p venv/bin; touch venv/bin/python; }')
    (tmp_path / "clip-jax.date").write_text("2026-11-21T10:48:00+01:00\n")
    said = machine("install", "train,tpu,wandb").splitlines()
    assert said[-1] == (
        "uv pip install --quiet --python venv/bin/python --exclude-newer 2026-11-21T10:48:00+01:00 "
        "./source[train,tpu,wandb]"
    )


def test_the_training_gets_the_key_of_weights_and_biases(tmp_path):
    (tmp_path / "clip-jax.wandb-key").write_text("0123abcd")
    machine = Machine(tmp_path, "echo key $WANDB_API_KEY")
    machine("start", "train")
    machine.wait_for("0")
    assert machine.log == "key 0123abcd\n"
