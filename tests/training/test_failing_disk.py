"""A disk that is full while a run is under way, for which a bound on the size of files stands: an errno comes back too.

The bound comes as the log is begun, or a checkpoint later, so that each kind of file meets it first in one of the runs.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from clip_jax.training.metrics import read_metrics
from clip_jax.weights.folders import CHECKPOINTS
from clip_jax.weights.orbax_checkpoints import complete_steps

RUN = """
import pathlib, resource, sys, time
from clip_jax.cli.main import main
from clip_jax.training import run_log
from clip_jax.training.metrics import MetricsLog

def fill():
    resource.setrlimit(resource.RLIMIT_FSIZE, (BOUND, resource.RLIM_INFINITY))

class Log(MetricsLog):
    def __init__(self, *arguments, **named):
        if AT == 0: fill()
        super().__init__(*arguments, **named)

    def write(self, step, figures):
        if step == AT:
            while not pathlib.Path(WORKDIR, "checkpoints/4").exists(): time.sleep(0.01)  # is being written
            fill()
        super().write(step, figures)

if BOUND: run_log.MetricsLog = Log
main(sys.argv[1:])
"""


def run(config: Path, workdir: Path, bound: int = 0, at: int = 0) -> subprocess.CompletedProcess:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    return subprocess.run(
        [
            *(sys.executable, "-c", f"BOUND, AT, WORKDIR = {bound}, {at}, {str(workdir)!r}\n{RUN}"),
            *("train", f"--config={config}", f"--workdir={workdir}"),
        ],
        env={**environment, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_backend_optimization_level=0"},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture
def config(tmp_path) -> Path:
    path = tmp_path / "config.py"
    path.write_text(
        "from ml_collections import ConfigDict\n"
        "def get_config():\n"
        "    return ConfigDict({\n"
        "        'data': {'source': 'scenes:train?images=64&size=32'}, 'steps': 12, 'batch_size': 8,\n"
        "        'model': {'name': 'tiny', 'dtype': 'float32'}, 'checkpoint': {'every': 4}, 'log': {'every': 1},\n"
        "    })\n"
    )
    return path


def the_line(ended: subprocess.CompletedProcess) -> str:
    """What the command ends with, and all that it says of failures."""
    assert "Traceback" not in ended.stderr
    assert "Exception" not in ended.stderr
    lines = [line for line in ended.stderr.splitlines() if line.startswith("clip-jax: ")]
    assert lines == ended.stderr.splitlines()[-1:]
    return lines[0].removeprefix("clip-jax: ")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("bound", "message"),
    [
        (100, r"cannot write \S+/attempts/\S+\.json: File too large"),
        (10_000, r"cannot write the picture \S+/first_batch\.png: .*File too large"),
    ],
)
def test_a_disk_that_is_full_before_the_first_update(tmp_path, config, bound, message):
    ended = run(config, tmp_path / "run", bound)
    assert ended.returncode == 74, ended.stderr
    assert re.fullmatch(message, the_line(ended))


@pytest.mark.slow
def test_a_disk_that_fills_up(tmp_path, config):
    """The metrics meet it at once, TensorBoard's file as its buffer is full, the next checkpoint at its arrays."""
    workdir = tmp_path / "run"
    ended = run(config, workdir, bound=1500, at=5)
    assert ended.returncode == 74, ended.stderr
    assert the_line(ended) == "cannot write the metrics: File too large"
    assert complete_steps(workdir / CHECKPOINTS) == [4]
    before = [line["loss"] for line in read_metrics(workdir)]

    ended = run(config, workdir, bound=100_000, at=5)
    assert ended.returncode == 74, ended.stderr
    folder = workdir / CHECKPOINTS
    assert the_line(ended) == (
        f"cannot write checkpoint 8 to {folder}: File too large; checkpoint 4 is whole, the run goes on from there"
    )
    assert complete_steps(folder) == [4]

    ended = run(config, workdir)  # once there is room again
    assert ended.returncode == 0, ended.stderr
    lines = read_metrics(workdir)
    assert [line["step"] for line in lines] == list(range(1, 13))
    assert [line["loss"] for line in lines[: len(before)]] == before
    assert complete_steps(folder) == [4, 8, 12]
