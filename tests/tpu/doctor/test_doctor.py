"""`clip-jax doctor`: what it says of a run that is ready, and of everything that can be wrong with one."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from clip_jax.cli.main import main
from clip_jax.data.draw_splits import draw_splits
from clip_jax.tpu.doctor import data

SCENES = Path(__file__).parents[3] / "configs/scenes.py"


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("doctor") / "run"
    draw_splits(workdir / "scenes", {"train": 64, "held_out": 16, "probe": 16}, 2021, 48)
    return workdir


def doctor(workdir: Path, *options: str) -> list[str]:
    """The arguments of a doctor that looks at the demo's recipe."""
    counts = ("--config.data.draw.train=64", "--config.data.draw.held_out=16", "--config.batch_size=16")
    return ["doctor", f"--config={SCENES}", f"--workdir={workdir}", "--config.model.layers=scan", *counts, *options]


def examined(arguments: list[str], path: Path) -> tuple[int, dict[str, dict]]:
    code = 0
    try:
        main([*arguments, "--json", str(path)])
    except SystemExit as stopped:
        code = int(stopped.code or 0)
    return code, {check["name"]: check for check in json.loads(path.read_text())["checks"]}


def test_a_run_without_its_step(drawn, tmp_path, capsys, monkeypatch):
    pytest.importorskip("tensorflow")
    monkeypatch.setattr(data, "SECONDS", 0.1)
    code, checks = examined(doctor(drawn, "--no-step"), tmp_path / "found.json")
    assert code == 0, capsys.readouterr().out
    ready = {"step": "skipped", "region": "skipped"}
    assert {name: check["status"] for name, check in checks.items()} == dict.fromkeys(checks, "ok") | ready
    assert checks["data speed"]["figures"]["images_per_second"] > 0
    assert checks["data speed"]["figures"]["needed"] is None
    assert checks["data speed"]["figures"]["bad_share"] == 0


@pytest.mark.slow
def test_a_run_that_is_ready(drawn, tmp_path, capsys, monkeypatch):
    pytest.importorskip("tensorflow")
    monkeypatch.setattr(data, "SECONDS", 0.1)
    before = sorted(drawn.rglob("*"))
    code, checks = examined(doctor(drawn), tmp_path / "found.json")
    shown = capsys.readouterr()
    assert code == 0, shown.out
    assert {name: check["status"] for name, check in checks.items()} == dict.fromkeys(checks, "ok") | {
        "region": "skipped",
        "data speed": checks["data speed"]["status"],  # as fast as this machine is just now
    }
    assert checks["data speed"]["status"] in ("ok", "warning")
    assert abs(checks["step"]["figures"]["loss"] - math.log(16)) < 1
    assert checks["data"]["figures"]["samples"] == 64
    assert checks["data speed"]["figures"]["needed"] == checks["step"]["figures"]["images_per_second"]
    assert shown.err.count("doctor: ") == len(checks)
    assert shown.out.splitlines()[-1].startswith("ready: ")
    left = [path for path in sorted(drawn.rglob("*")) if path not in before]
    assert all(path.suffix == ".npz" for path in left), "nothing but indexes of tars"


@pytest.mark.parametrize(
    ("options", "name", "message"),
    [
        (["--config.batch_size=20"], "mesh", "config.batch_size 20 does not divide over data x fsdp = 8 devices"),
        (["--config.mesh.tensor=3"], "mesh", "does not fit 8 devices"),
        (["--config.model.nam=tiny"], "config", "has no key 'nam'"),
        (["--config.model.name=ViT-Q"], "config", "ViT-Q"),
        (["--config.data.source=tar:nowhere"], "data", "no file matches nowhere"),
        (["--config.evaluate.zero_shot.held_out.data=folder:nowhere"], "data", "nowhere"),
        (["--config.data.draw.train=65"], "data", "was drawn with"),
        (["--config.checkpoint.best=eval/x/top1"], "data", "which no evaluation gives"),
        (["--workdir=/proc/run"], "workdir", "cannot write to /proc"),
    ],
)
def test_runs_that_are_not(drawn, tmp_path, capsys, monkeypatch, options, name, message):
    monkeypatch.setattr(data, "SECONDS", 0.1)
    code, checks = examined([*doctor(drawn, "--no-step"), *options], tmp_path / "found.json")
    assert code == 1
    assert checks[name]["status"] == "failed"
    assert message in checks[name]["seen"]
    assert checks[name]["advice"]
    assert "not ready: " in capsys.readouterr().out


def test_scenes_that_are_yet_to_be_drawn(tmp_path):
    code, checks = examined(doctor(tmp_path / "run", "--no-step"), tmp_path / "found.json")
    assert code == 0
    assert checks["data"]["seen"] == "train draws 96 images first"
    assert checks["data speed"]["status"] == "skipped"
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config=nowhere.py", "--workdir=x"], "there is no config file nowhere.py"),
        ([f"--config={SCENES}"], "give the --workdir"),
        (["--config.seed=1"], "give --config=FILE too"),
        (["--processes=2"], "give all three"),
        (["--stap"], "unknown argument --stap"),
    ],
)
def test_mistakes_are_one_line(arguments, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["doctor", *arguments])
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.slow
def test_a_host_without_the_packages_of_training():
    """It can still be looked over, and what is missing is told."""
    code = (
        "import sys\n"
        "for name in ('tensorboardX', 'ml_collections', 'tensorflow', 'optax'):\n"
        "    sys.modules[name] = None\n"
        "from clip_jax.cli.main import main\n"
        "main(['doctor', *sys.argv[1:]])\n"
    )
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    command = [sys.executable, "-c", code]
    bare = subprocess.run([*command, "--workdir=x"], env=environment, capture_output=True, text=True, check=False)
    assert bare.returncode == 0, bare.stderr
    assert "ready: " in bare.stdout
    options = [f"--config={SCENES}", "--workdir=x"]
    lacking = subprocess.run([*command, *options], env=environment, capture_output=True, text=True, check=False)
    assert lacking.returncode == 1, lacking.stderr
    assert "ml_collections" in lacking.stdout
    assert "it needs 'config', which failed" in " ".join(lacking.stdout.split())
