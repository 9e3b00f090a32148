"""A run that is killed, or asked to stop, and started again ends exactly as one that was never stopped.

It is killed three times, or as often as the environment variable CLIP_JAX_KILLS says: `CLIP_JAX_KILLS=20 pytest -m slow
tests/training/test_resume.py` takes some ten minutes.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import clip_jax
from clip_jax.weights.tree import flatten

STEPS = 30
UNFINISHED = "checkpoints/*checkpoint-tmp*"
KILLS = int(os.environ.get("CLIP_JAX_KILLS", "3"))
COMMAND = [
    *(
        sys.executable,
        "-m",
        "clip_jax.cli.main",
        "train",
        f"--config={Path(__file__).parents[2] / 'configs/scenes.py'}",
    ),
    *(f"--config.steps={STEPS}", "--config.batch_size=16", "--config.log.every=1"),
    *("--config.checkpoint.every=5", "--config.evaluate.every=0.5"),
    *("--config.data.draw.train=200", "--config.data.draw.held_out=48", "--config.data.draw.folder={folder}"),
    *(
        "--config.data.source=tar:{folder}/train?captions=captions",
        "--config.evaluate.zero_shot.held_out.data=tar:{folder}/held_out",
    ),
    "--config.evaluate.zero_shot.all_combinations.data=tar:{folder}/held_out",
]
# One device, unlike the other tests: killing is about one machine.
ENVIRONMENT = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}


def start(workdir: Path, scenes: Path) -> subprocess.Popen:
    arguments = [argument.replace("{folder}", str(scenes)) for argument in COMMAND]
    return subprocess.Popen(
        [*arguments, f"--workdir={workdir}"],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen) -> str:
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return output


def steps_logged(workdir: Path) -> int:
    path = workdir / "metrics.jsonl"
    return path.read_text().count('"loss"') if path.exists() else 0


def lines(workdir: Path) -> list[dict]:
    parsed = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    wall_time = {"images_per_second", "images_per_second_per_device", "mfu", "data_wait"}  # no part of the promise
    return [{key: value for key, value in line.items() if key not in wall_time} for line in parsed]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory) -> tuple[Path, Path]:
    """The folder of the scenes, and the workdir of a run that nothing came in the way of."""
    folder = tmp_path_factory.mktemp("resume")
    finish(start(folder / "unbroken", folder / "scenes"))
    return folder / "scenes", folder / "unbroken"


def wait_until(has_come: Callable[[], bool], process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 200
    while not has_come() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    assert process.poll() is None, process.communicate()[0]


def assert_same_run(found: Path, expected: Path) -> None:
    assert [line["step"] for line in lines(expected) if "loss" in line] == list(range(1, STEPS + 1))
    assert lines(found) == lines(expected)
    ours, theirs = (flatten(clip_jax.load(workdir).params) for workdir in (found, expected))
    for name, leaf in ours.items():
        np.testing.assert_array_equal(leaf, theirs[name], err_msg=name)
    assert len({line["batch_digest"] for line in lines(expected) if "loss" in line}) == STEPS


def newest_checkpoint(workdir: Path) -> int:
    return max((int(path.name) for path in workdir.glob("checkpoints/*") if path.name.isdecimal()), default=0)


@pytest.mark.slow
def test_killed_runs_end_as_unbroken_ones(tmp_path, unbroken):
    """Killed in turn at a random time after a random step, while a checkpoint is written, and before the first step."""
    scenes, killed = unbroken[0], tmp_path / "killed"
    chance = random.Random(0)
    for kill in range(KILLS):
        saved, attempts = newest_checkpoint(killed), len(list(killed.glob("attempts/*")))
        unfinished = {*killed.glob(UNFINISHED)}
        process = start(killed, scenes)
        # From here on it is told what it goes on from, and what a run before it logged beyond that is gone.
        wait_until(lambda before=attempts: len(list(killed.glob("attempts/*"))) > before, process)
        match kill % 3:
            case 0:
                step = chance.randrange(saved + 1, min(saved + 8, STEPS))
                wait_until(lambda step=step: steps_logged(killed) >= step, process)
                time.sleep(chance.uniform(0, 0.3))
            case 1:
                wait_until(lambda before=unfinished: bool({*killed.glob(UNFINISHED)} - before), process)
                time.sleep(chance.uniform(0, 0.1))
            case 2:
                time.sleep(chance.uniform(0, 3))
        process.send_signal(signal.SIGKILL)
        output, _ = process.communicate()
        assert process.returncode == -signal.SIGKILL, output
    finish(start(killed, scenes))
    assert_same_run(killed, unbroken[1])

    # A finished run says so and leaves everything as it is; another config is refused.
    before = {path: path.read_bytes() for path in sorted(killed.rglob("*")) if path.is_file()}
    assert f"is at step {STEPS} of {STEPS}" in finish(start(killed, scenes))
    other = [argument.replace("{folder}", str(scenes)) for argument in COMMAND]
    refused = subprocess.run(
        [*other, f"--workdir={killed}", "--config.seed=5"], env=ENVIRONMENT, capture_output=True, text=True
    )
    assert refused.returncode == 2
    assert refused.stderr.splitlines()[-1].startswith("clip-jax: ")
    assert "config.seed is 0 there and 5 here" in refused.stderr
    assert {path: path.read_bytes() for path in sorted(killed.rglob("*")) if path.is_file()} == before


@pytest.mark.slow
def test_a_run_that_is_asked_to_stop_saves_and_asks_to_be_queued_again(tmp_path, unbroken):
    scenes, stopped = unbroken[0], tmp_path / "stopped"
    process = start(stopped, scenes)
    wait_until(lambda: steps_logged(stopped) >= 7, process)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 75, output
    assert "Traceback" not in output
    last = steps_logged(stopped)
    assert f"stopped by SIGTERM at step {last} of {STEPS}" in output
    assert str(last) in [path.name for path in (stopped / "checkpoints").iterdir()]
    assert f"is at step {last} of {STEPS}" in finish(start(stopped, scenes))
    assert_same_run(stopped, unbroken[1])
