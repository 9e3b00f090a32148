"""Evaluations by one device, by eight, and by two processes of four: the same figures."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from support.processes import ended, finish, free_port

from clip_jax.clip import create, save

SEEN, PROBE, TRAIN = "scenes:held_out?images=50", "scenes:probe?images=96", "scenes:train?images=21"
TASKS = {
    "zero-shot": ["--data", SEEN, "--per-template"],
    "retrieval": ["--data", TRAIN],
    "linear-probe": ["--train", PROBE, "--data", SEEN],
    "robustness": ["--data", SEEN, "--shift", "other=scenes:held_out?images=30&seed=3"],
    "few-shot": ["--train", PROBE, "--data", SEEN, "--shots", "1,2", "--seeds", "2"],
}


def start(task: str, written: Path, model: Path, devices: int, *options: str) -> subprocess.Popen:
    flags = f"--xla_force_host_platform_device_count={devices} --xla_backend_optimization_level=0"
    command = [sys.executable, "-m", "clip_jax.cli.main", "evaluate", task, "--model", str(model), *TASKS[task]]
    # A batch of 48 splits over any of the devices; each process has a cache of its own, as on a disk of its own.
    command += ["--json", str(written), "--cache", str(written.with_suffix("")), "--batch-size", "48", *options]
    return subprocess.Popen(
        command, env={**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_the_same_figures(task, tmp_path):
    model = tmp_path / "model"
    save(create("tiny"), model)
    finish(start(task, tmp_path / "one.json", model, 1))
    finish(start(task, tmp_path / "eight.json", model, 8))
    together = [f"--coordinator=localhost:{free_port()}", "--processes=2"]
    finish(*(start(task, tmp_path / f"two{i}.json", model, 4, *together, f"--process={i}") for i in range(2)))
    one, eight, two = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("one", "eight", "two0"))
    assert not (tmp_path / "two1.json").exists()  # the first one tells
    calibration = "calibration_error", "reliability", "confidence"  # of numbers that are rounded, not counted
    for found in (eight, two):
        for name in one.keys() - {*calibration, "figures", "details"}:
            assert found[name] == one[name], name


@pytest.mark.slow
def test_a_dataset_that_one_process_cannot_open_is_told_by_both(tmp_path):
    """They all go on with the next one; none waits for the others within it."""
    save(create("tiny"), tmp_path / "model")
    together = [f"--coordinator=localhost:{free_port()}", "--processes=2"]
    (tmp_path / "pets1").symlink_to(tmp_path / "nowhere")
    (tmp_path / "pets0/cat").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "pets0/cat/1.png")
    command = [sys.executable, "-m", "clip_jax.cli.main", "evaluate", "suite", "--model", str(tmp_path / "model")]
    command += ["--no-cache", "--out", str(tmp_path / "out"), f"--data=seen={SEEN}", *together]
    processes = [
        subprocess.Popen(
            [*command, f"--data=animals=folder:{tmp_path}/pets{i}", f"--process={i}"],
            env={**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]
    outputs = ended(*processes)
    assert [process.returncode for process in processes] == [2, 2], outputs
    for _, errors in outputs:
        assert "1 of 2 evaluations failed, the first is zero-shot of animals: " in errors
        assert "pets1 is not a folder" in errors
    assert [one["dataset"] for one in json.loads((tmp_path / "out/results.json").read_text())["results"]] == ["seen"]
