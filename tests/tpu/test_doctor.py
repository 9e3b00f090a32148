"""`clip-jax doctor`: what it says of a machine that is well, and of everything that can be wrong with one."""

import json
import math
import os
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import jax
import numpy as np
import pytest

from clip_jax.cli.main import main
from clip_jax.data import files
from clip_jax.data.draw_splits import draw_splits
from clip_jax.errors import UserError
from clip_jax.tpu import doctor_cloud, doctor_data
from clip_jax.tpu.doctor import Check, Examination, Finding, Report, agreed, examine
from clip_jax.tpu.doctor_cloud import check_region, expected_devices, metadata
from clip_jax.tpu.doctor_config import Run, check_config
from clip_jax.tpu.doctor_devices import check_devices, describe, explained, probe_devices
from clip_jax.tpu.doctor_hosts import compare, sum_of_ones
from clip_jax.tpu.doctor_machine import Machine, check_machine, this_machine
from clip_jax.tpu.doctor_step import judged, made_up, too_large
from clip_jax.tpu.doctor_text import report_text
from clip_jax.tpu.doctor_versions import check_versions, version_of
from clip_jax.tpu.doctor_workdir import check_workdir
from clip_jax.training.chips import GIB
from clip_jax.training.config import DataConfig, ModelConfig, TrainConfig
from clip_jax.training.model import training_model
from clip_jax.training.workdir import claim

SCENES = Path(__file__).parents[2] / "configs/scenes.py"
TINY = TrainConfig(data=DataConfig("synthetic:64"), batch_size=64, model=ModelConfig("tiny", layers="scan"))
RUN = Run(TINY, training_model(TINY), None)


def finding_of(report: Report, name: str) -> Finding:
    return next(check.finding for check in report.checks if check.name == name)


# The order of checks, and what happens to those that raise, hang or need another


def test_checks_that_fail_do_not_stop_the_others():
    def mistake() -> Finding:
        raise UserError("the disk is red; take a blue one")

    def accident() -> Finding:
        raise ZeroDivisionError("of all things")

    said: list[Check] = []
    report = examine(
        [
            Examination("mistake", mistake),
            Examination("accident", accident),
            Examination("late", lambda: Finding("ok", str(time.sleep(5))), seconds=0.05, if_late="be quicker"),
            Examination("needs it", lambda found: Finding("ok", found), ("mistake",)),
            Examination("needs that", lambda found: Finding("ok", found), ("needs it",)),
            Examination("wants it", lambda found: Finding("ok", f"got {found}", found=7), wants=("mistake",)),
            Examination("last", lambda found: Finding("ok", f"got {found}"), ("wants it",)),
        ],
        said.append,
    )
    assert [check.finding.status for check in report.checks] == ["failed"] * 3 + ["skipped"] * 2 + ["ok"] * 2
    assert finding_of(report, "mistake") == Finding("failed", "the disk is red", "take a blue one")
    assert "ZeroDivisionError: of all things" in finding_of(report, "accident").seen
    assert finding_of(report, "late") == Finding("failed", "it has not come to an end in 0.05 s", "be quicker")
    assert finding_of(report, "needs it").seen == "it needs 'mistake', which failed"
    assert finding_of(report, "needs that").seen == "it needs 'needs it', which was skipped"
    assert finding_of(report, "wants it").seen == "got None"
    assert finding_of(report, "last").seen == "got 7"
    assert tuple(said) == report.checks
    assert report.failed
    assert report.hangs


def test_processes_tell_each_other():
    """The other process finds all well but the third check; what it saw is shown, and what needs that is skipped."""
    others = {"a": ["ok", "", ""], "b": ["ok", "", ""], "c": ["failed", "no disk", "buy one"], "d": ["ok", "", ""]}
    order = iter(["a", "c", "d"])  # 'b' is the joining check, on which both agree by themselves

    def gather(text: str) -> list[str]:
        return [text, json.dumps(others[next(order)])]

    report = examine(
        [
            Examination("a", lambda: Finding("ok", "fine")),
            Examination("b", lambda: Finding("ok", "joined", found=gather), joins=True),
            Examination("c", lambda: Finding("ok", "fine")),
            Examination("d", lambda found: Finding("ok", "never"), ("c",)),
        ],
        lambda check: None,
    )
    assert report.joined
    assert finding_of(report, "a").seen == "fine"
    assert finding_of(report, "c") == Finding("failed", "process 1: no disk", "buy one")
    assert finding_of(report, "d").status == "skipped"


def test_a_process_that_does_not_answer_ends_the_examination(monkeypatch):
    monkeypatch.setattr("clip_jax.tpu.doctor.GRACE", 0)

    def gather(text: str) -> list[str]:
        time.sleep(5)
        return [text]

    report = examine(
        [
            Examination("join", lambda: Finding("ok", "", found=gather), joins=True),
            Examination("a", lambda: Finding("ok", "fine"), seconds=0.05),
            Examination("b", lambda: Finding("ok", "fine")),
        ],
        lambda check: None,
    )
    assert report.hangs
    assert "does not answer" in finding_of(report, "a").seen
    assert finding_of(report, "b") == Finding("skipped", "an earlier check has not come back")


def test_the_worst_finding_counts():
    texts = [json.dumps(one) for one in (["ok", "a", ""], ["warning", "b", "x"], ["failed", "c", "y"]) for _ in (0, 1)]
    found = agreed(Finding("ok", "a"), lambda text: texts)
    assert (found.status, found.seen, found.advice) == ("failed", "process 4 and 1 more: c", "y")


# Versions

REQUIRED = ["jax<0.11,>=0.10.2", "flax>=0.12", 'optax>=0.2; extra == "train"', 'torch==2.13; extra == "test"']
JAX_REQUIRES = ["jaxlib<=0.10.2,>=0.10.1", 'libtpu==0.0.42.*; extra == "tpu"']


@pytest.mark.parametrize(
    ("changes", "extras", "status", "message"),
    [
        ({}, [], "ok", "jax 0.10.2, jaxlib 0.10.2"),
        ({"jax": "0.11.1"}, [], "failed", "jax 0.11.1 is not <0.11,>=0.10.2"),
        ({"jaxlib": "0.10.1"}, [], "failed", "jaxlib 0.10.1 is there, of jax 0.10.2"),
        ({"jaxlib": "0.9.0"}, [], "failed", "jaxlib 0.9.0 is not <=0.10.2,>=0.10.1"),
        ({"flax": None}, [], "failed", "flax is not installed"),
        ({"optax": None}, [], "ok", "optax none"),
        ({"optax": None}, ["train"], "failed", "optax is not installed"),
        ({"optax": "0.1"}, [], "failed", "optax 0.1 is not >=0.2"),
        ({"torch": "1.0"}, ["train"], "ok", ""),
        ({"libtpu": "0.0.41"}, [], "warning", "libtpu 0.0.41 is not ==0.0.42.*"),
        ({"libtpu": "0.0.41"}, ["tpu"], "failed", "libtpu 0.0.41 is not ==0.0.42.*"),
    ],
)
def test_versions(changes, extras, status, message):
    installed = {
        "jax": "0.10.2",
        "jaxlib": "0.10.2",
        "flax": "0.12.8",
        "optax": "0.2.8",
        "libtpu": "0.0.42.1",
    } | changes
    requirements = {"clip_jax": REQUIRED, "jax": JAX_REQUIRES}
    finding = check_versions(extras, installed.get, lambda name: requirements[name])
    assert finding.status == status, finding.seen
    assert message in finding.seen


def test_versions_of_this_environment():
    assert version_of("jax") == jax.__version__
    assert version_of("no-such-package") is None
    assert check_versions([], version_of, lambda name: []).status == "warning"  # run from a checkout


# Devices


@dataclass(frozen=True)
class FakeDevice:
    """A TPU's chip as JAX shows it."""

    id: int = 0
    device_kind: str = "TPU v5 lite"
    platform: str = "tpu"
    slice_index: int = 0
    process_index: int = 0

    def memory_stats(self) -> dict[str, int]:
        return {"bytes_limit": 16 * GIB}


def test_devices_of_this_machine():
    finding = check_devices(False, None, True)
    assert finding.status == "ok"
    assert "8 x cpu" in finding.seen
    assert finding.figures["peak_flops"] is None
    assert finding.found == jax.devices()
    blind = check_devices(True, None, False)
    assert blind.status == "failed"
    assert "does not see this host's TPU" in blind.seen
    assert "'.[tpu]'" in blind.advice


def test_devices_of_a_slice(monkeypatch):
    monkeypatch.setattr("clip_jax.tpu.doctor_devices.computes", lambda device: device.id != 13)
    chips = [FakeDevice(i) for i in range(8)]
    whole = describe(chips, chips[:4], True, 8)
    assert whole.status == "ok"
    assert whole.seen == "8 x TPU v5 lite, 4 of them here, 16.0 GiB each, peak 197 TFLOP/s each"
    short = describe(chips, chips, True, 16)
    assert short.status == "failed"
    assert short.seen.endswith("but the slice has 16")
    two_slices = [*chips, *(replace(chip, slice_index=1) for chip in chips)]
    assert describe(two_slices, chips, True, 8).status == "ok"
    broken = describe(chips, [*chips, FakeDevice(13)], True, None)
    assert broken.status == "failed"
    assert "devices [13] multiply matrices wrongly" in broken.seen


@pytest.mark.parametrize(
    ("message", "advice"),
    [
        ("ABORTED: The TPU is already in use by process with pid 4711. Not attempting to load libtpu.so", "kill 4711"),
        (
            "The TPU is already in use by another process probably owned by another user; /tmp/libtpu_lockfile",
            "sudo rm",
        ),
        ("Unable to initialize backend 'tpu'", "jax.devices()"),
    ],
)
def test_why_there_are_no_devices(message, advice):
    assert advice in explained(message).advice
    code = f"import sys; sys.exit('Traceback\\n' + {message!r} + '\\nand a last line')"
    finding = probe_devices([sys.executable, "-c", code])
    assert finding is not None
    assert finding.status == "failed"
    if "4711" in message:
        assert finding == Finding("failed", "the TPU is in use by process 4711", "wait for it, or end it: kill 4711")


def test_devices_that_hang_or_are_well():
    assert probe_devices([sys.executable, "-c", "print(4)"]) is None
    hanging = probe_devices([sys.executable, "-c", "import time; time.sleep(60)"], 0.2)
    assert hanging is not None
    assert "within 0.2 s" in hanging.seen
    crash = check_devices(True, None, True, [sys.executable, "-c", "import os; os.abort()"])
    assert crash.status == "failed"
    assert "ended with code -6" in crash.seen


# Hosts


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
    with socket.create_server(("", 0)) as server:
        port = server.getsockname()[1]
    command = [sys.executable, "-m", "clip_jax.cli.main", "doctor", f"--config={SCENES}", f"--workdir={tmp_path}/run"]
    several = [f"--coordinator=localhost:{port}", "--processes=2", f"--json={tmp_path}/found.json"]
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
    try:
        first, second = (process.communicate(timeout=200)[0] for process in processes)
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [1, 1]
    assert "give all hosts the same packages, files and command" in " ".join(first.split())
    assert "what was seen" not in second
    checks = {check["name"]: check for check in json.loads((tmp_path / "found.json").read_text())["checks"]}
    assert checks["processes"]["seen"] == "2 processes have met"
    assert checks["hosts"]["figures"]["sum_of_ones"] == 2
    assert checks["mesh"]["status"] == "skipped"


# The machine, the cloud


def test_machines():
    well = Machine(208, 300 * GIB, 900 * GIB, 65_536, -1, True)
    assert check_machine(well, 2 * GIB, 3).status == "ok"
    trouble = check_machine(replace(well, free_memory=GIB, open_files=1024, memlock=64 * 1024))
    assert trouble.status == "warning"
    assert "1,024 files" in trouble.seen
    assert "ulimit -l unlimited" in trouble.advice
    assert check_machine(replace(well, free_disk=7 * GIB), 2 * GIB, 3).status == "warning"
    assert check_machine(replace(well, free_disk=GIB), 2 * GIB, 3).status == "failed"
    assert check_machine(replace(well, has_tpu=False, memlock=0)).status == "ok"
    here = this_machine("/not/there/at/all", False)
    assert here.free_disk
    assert here.processors >= 1
    assert this_machine("gs://bucket/run", False).free_disk is None


def test_expected_devices():
    names = ("v5litepod-16", "v4-32", "v5p-8", "v6e-4", "tpu7x-8", "v2-8", "nonsense", "")
    assert [expected_devices(name) for name in names] == [16, 16, 4, 4, 8, None, None, None]


def test_metadata(monkeypatch):
    class Metadata(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = self.path == "/computeMetadata/v1/instance/zone" and self.headers["Metadata-Flavor"] == "Google"
            self.send_response(200 if known else 404)
            self.end_headers()
            self.wfile.write(b"projects/123/zones/us-west4-a" if known else b"")

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("localhost", 0), Metadata) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("GCE_METADATA_IP", f"localhost:{server.server_port}")
        assert metadata("instance/zone") == "projects/123/zones/us-west4-a"
        assert metadata("instance/attributes/accelerator-type") == ""
        server.shutdown()
    assert metadata("instance/zone") == ""
    monkeypatch.setenv("TPU_ACCELERATOR_TYPE", "v6e-8")
    assert doctor_cloud.accelerator_type() == "v6e-8"


def test_a_metadata_server_that_hangs(monkeypatch):
    monkeypatch.setattr(doctor_cloud, "PATIENCE", 0.2)
    with socket.create_server(("", 0)) as silent:
        monkeypatch.setenv("GCE_METADATA_IP", f"localhost:{silent.getsockname()[1]}")
        started = time.monotonic()
        assert metadata("instance/zone") == ""
    assert time.monotonic() - started < 5


def test_regions():
    zone = "projects/123/zones/us-west4-a"
    locations = {"near": "US-WEST4", "far": "EUROPE-WEST4", "wide": "US", "secret": ""}
    assert doctor_cloud.buckets(["gs://near/run", "tar:gs://far/{0..9}.tar", "runs/x", "tar:gs://near/y"]) == [
        "near",
        "far",
    ]
    assert check_region(["near"], zone, locations.__getitem__).status == "ok"
    for name in ("far", "wide"):
        finding = check_region(["near", name], zone, locations.__getitem__)
        assert finding.status == "warning"
        assert "us-west4" in finding.advice
    assert "an unknown place" in check_region(["secret"], zone, locations.__getitem__).seen

    def absent(name: str) -> str:
        raise UserError("there is no such bucket")

    assert check_region(["x"], zone, absent).status == "warning"
    assert check_region(["x"], "", absent).status == "skipped"
    assert check_region([], zone, absent).status == "skipped"


# The workdir


def test_workdirs(tmp_path):
    fresh = tmp_path / "a/b/run"
    assert check_workdir(str(fresh), TINY, None).seen == f"{fresh}: writable, holds no run yet"
    assert list(tmp_path.iterdir()) == []
    claim(fresh, TINY)
    assert "holds this run, not yet a checkpoint" in check_workdir(str(fresh), TINY, None).seen
    (fresh / "checkpoints").mkdir()
    with pytest.raises(UserError, match=r"holds another run: config\.seed is 0 there and 1 here"):
        check_workdir(str(fresh), replace(TINY, seed=1), None)
    assert check_workdir(str(fresh), None, None).seen == f"{fresh}: writable"


def test_a_workdir_that_cannot_be_written_to():
    """/proc is that to root, too."""
    with pytest.raises(UserError, match=r"cannot write to /proc: .*; choose another --workdir"):
        check_workdir("/proc/run", TINY, None)


def test_a_workdir_in_a_bucket(monkeypatch):
    assert check_workdir("memory://bucket/run", None, None).seen == "memory://bucket/run: writable"
    system, name = files.remote("memory://bucket/run")
    assert system.find(name) == []

    def forbidden(path: str, contents: bytes) -> None:
        raise PermissionError("Forbidden: storage.objects.create")

    monkeypatch.setattr(system, "pipe_file", forbidden)
    with pytest.raises(UserError, match=r"cannot write to memory://bucket/run: .*storage\.objects\.create"):
        check_workdir("memory://bucket/run", TINY, None)


def test_a_url_that_train_does_not_write_to():
    with pytest.raises(UserError, match=r"a bucket is gs://BUCKET/FOLDER"):
        check_workdir("memory://bucket/run", TINY, None)


def test_a_workdir_that_is_not_shared(tmp_path, monkeypatch):
    """Seen from the second process, which looks for what the first has written on another disk."""
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    finding = check_workdir(str(tmp_path), TINY, lambda text: [".clip-jax-doctor-of-the-first", text])
    assert finding.status == "failed"
    assert "is not seen here" in finding.seen


# Step and data


def test_what_a_cpu_should_not_try():
    config = check_config(str(SCENES.with_name("openai_vit_l14.py")), [("data.source", "synthetic:64")])
    mesh = jax.sharding.Mesh(np.array(jax.devices()).reshape(8, 1, 1), ("data", "fsdp", "tensor"))
    machine = Machine(2, 20 * GIB, None, -1, -1, False)
    late = too_large(config.found, mesh, machine, 1e11)
    assert late is not None
    assert "hours" in late.seen
    assert "--config.batch_size=8 for a try here" in late.advice  # what the mesh divides, and no less
    large = too_large(config.found, mesh, replace(machine, free_memory=4 * GIB), 1e30)
    assert large is not None
    assert "the model needs some 10 GiB" in large.seen  # 428 M float32 parameters, two moments, twice
    assert too_large(config.found, mesh, machine, 1e30) is None


def test_losses_that_are_judged():
    well = Finding("ok", "loss", found=1.0)
    assert judged(RUN, math.log(64) + 0.5, 4.0, well) is well
    assert judged(RUN, math.log(64) + 1.5, 4.0, well).status == "warning"
    assert judged(RUN, math.nan, 4.0, well).status == "failed"
    assert judged(RUN, 4.0, math.inf, well).status == "failed"
    begun = replace(RUN, config=replace(TINY, model=replace(TINY.model, init="somewhere")))
    assert judged(begun, 0.1, 0.1, well) is well


def test_made_up_batches():
    mesh = jax.sharding.Mesh(np.array(jax.devices()).reshape(4, 1, 2), ("data", "fsdp", "tensor"))
    pixels, tokens = made_up(TINY, RUN.model, mesh)
    size = RUN.model.vision.image_size
    assert pixels.shape == (64, size, size, 3)
    assert len(np.unique(np.asarray(pixels).reshape(64, -1), axis=0)) == 64
    assert (np.asarray(tokens)[:, -1] == np.asarray(tokens).max()).all()


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
    monkeypatch.setattr(doctor_data, "SECONDS", 0.1)
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
    monkeypatch.setattr(doctor_data, "SECONDS", 0.1)
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
    monkeypatch.setattr(doctor_data, "SECONDS", 0.1)
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


def test_speed_that_a_tpu_wants(monkeypatch):
    """On devices whose peak is known, 40 % MFU counts: by hand, FLOPs of an update are 3 times the forward pass's."""
    from clip_jax.model_size import flops

    mesh = jax.sharding.Mesh(np.array(jax.devices()).reshape(8, 1, 1), ("data", "fsdp", "tensor"))
    assert doctor_data.needed_speed(RUN, mesh) is None
    monkeypatch.setattr(doctor_data, "peak_flops", lambda kind: 1e12)
    towers = flops(RUN.model)
    each = 3 * (towers.image + towers.text + 2 * 64 * RUN.model.embed_dim)
    assert doctor_data.needed_speed(RUN, mesh) == pytest.approx(0.4 * 8e12 / each)


# The command line


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


@pytest.mark.parametrize("width", [80, 120])
def test_the_table_keeps_within_the_terminal(width):
    words = " ".join(["word"] * 60)
    checks = (Check("versions", Finding("ok", words)), Check("data speed", Finding("failed", "short", words)))
    text = report_text(Report(checks), width)
    lines = text.splitlines()
    assert max(map(len, lines)) <= width
    assert len({line.index("word") for line in lines if "word" in line}) == 2  # advice is indented by its arrow
    assert text.split().count("word") == 120
    assert lines[-1] == "not ready: 1 failed, 1 ok"
