"""Hosts that agree, and two that do not."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.processes import ended, free_port

from clip_jax.tpu.doctor.hosts import compare, sum_of_ones

SCENES = Path(__file__).parents[3] / "configs/scenes.py"


def test_hosts():
    stories = [{"time": 100.0, "jax": "1", "config": "x"}, {"time": 100.5, "jax": "1", "config": "x"}]
    assert compare(stories, 8.0, 8).status == "ok"
    assert compare(stories, 7.0, 8).seen == "the ones of 8 devices add up to 7"
    assert compare([stories[0], stories[1] | {"time": 90.0}], 8.0, 8).status == "warning"
    other = compare([*stories, stories[0] | {"config": "y"}], 8.0, 8)
    assert other.status == "failed"
    assert other.seen == "config: x on process 0, y on process 2"
    assert sum_of_ones() == 8


@pytest.mark.slow
def test_two_processes_with_different_configs(tmp_path):
    command = [sys.executable, "-m", "clip_jax.cli.main", "doctor", f"--config={SCENES}", f"--workdir={tmp_path}/run"]
    several = [f"--coordinator=localhost:{free_port()}", "--processes=2", f"--json={tmp_path}/found.json"]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    processes = [
        subprocess.Popen(
            [*command, *several, f"--process={i}", f"--config.seed={i}"],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        for i in (0, 1)
    ]
    (first, _), (second, _) = ended(*processes)
    assert [process.returncode for process in processes] == [1, 1]
    assert "give all hosts the same packages, files and command" in " ".join(first.split())
    assert "what was seen" not in second
    checks = {check["name"]: check for check in json.loads((tmp_path / "found.json").read_text())["checks"]}
    assert checks["processes"]["seen"] == "2 processes have met"
    assert checks["hosts"]["figures"]["sum_of_ones"] == 2
    assert checks["mesh"]["status"] == "skipped"
