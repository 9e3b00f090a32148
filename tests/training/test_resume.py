"""A run that is killed and started again ends exactly as one that was never stopped."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import clip_jax
from clip_jax.weights.tree import flatten

STEPS = 30
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


@pytest.mark.slow
def test_killed_runs_end_as_unbroken_ones(tmp_path):
    scenes, unbroken, killed = tmp_path / "scenes", tmp_path / "unbroken", tmp_path / "killed"
    finish(start(unbroken, scenes))
    moments = {
        "before the first checkpoint": lambda: steps_logged(killed) >= 2,
        "between two checkpoints": lambda: steps_logged(killed) >= 8,
        "while one is written": lambda: any(killed.glob("checkpoints/*checkpoint-tmp*")),
    }
    for has_come in moments.values():
        process = start(killed, scenes)
        deadline = time.monotonic() + 200
        while not has_come() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        assert process.poll() is None, process.communicate()[0]
        process.send_signal(signal.SIGKILL)
        process.communicate()
    finish(start(killed, scenes))

    expected, found = lines(unbroken), lines(killed)
    assert [line["step"] for line in expected if "loss" in line] == list(range(1, STEPS + 1))
    assert found == expected
    parameters = [flatten(clip_jax.load(workdir).params) for workdir in (unbroken, killed)]
    for name, leaf in parameters[0].items():
        np.testing.assert_array_equal(leaf, parameters[1][name], err_msg=name)
    assert len({line["batch_digest"] for line in expected if "loss" in line}) == STEPS

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
