"""Two processes that train together do what one does with as many devices, and neither outlives the other."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import jax
import numpy as np
import pytest
from support.processes import ended, finish, free_port

import clip_jax
from clip_jax.clip import Clip
from clip_jax.config import TransformerConfig, VisionConfig
from clip_jax.errors import UserError
from clip_jax.models.two_tower import init_params
from clip_jax.presets import get_config
from clip_jax.training import distributed
from clip_jax.training.distributed import initialise
from clip_jax.weights.tree import flatten

STEPS = 20
COMMAND = [
    *(sys.executable, "-m", "clip_jax.cli.main", "train"),
    f"--config={Path(__file__).parents[2] / 'configs/scenes.py'}",
    *("--config.batch_size=16", "--config.log.every=1", "--config.log.tensorboard=False"),
    "--config.model.layers=scan",  # quick to compile
    *("--config.checkpoint.every=5", "--config.evaluate.every=1.0"),
    *("--config.data.draw.train=64", "--config.data.draw.held_out=16", "--config.data.draw.folder={folder}"),
    *(
        "--config.data.source=tar:{folder}/train?captions=captions",
        "--config.evaluate.zero_shot.held_out.data=tar:{folder}/held_out",
    ),
    "--config.evaluate.zero_shot.all_combinations.data=tar:{folder}/held_out",
]
DEATH_SECONDS = 60
# Ours, and those of jaxlib, which ends a process itself where it comes to know first.
ABANDONED = ("another process has died", "another task died")


def start(workdir: Path, devices: int, *options: str) -> subprocess.Popen:
    scenes = str(workdir.parent / "scenes")
    # Compiled in a hurry, as these runs are compared with each other.
    flags = f"--xla_force_host_platform_device_count={devices} --xla_backend_optimization_level=0"
    return subprocess.Popen(
        [*(argument.replace("{folder}", scenes) for argument in COMMAND), f"--workdir={workdir}", *options],
        env={**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def start_together(workdir: Path, processes: int, devices: int, *options: str) -> list[subprocess.Popen]:
    several = (*options, f"--coordinator=localhost:{free_port()}", f"--processes={processes}")
    return [start(workdir, devices, *several, f"--process={process}") for process in range(processes)]


@contextmanager
def killed_at_the_end(processes: list[subprocess.Popen]) -> Iterator[list[subprocess.Popen]]:
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def assert_gives_up(process: subprocess.Popen) -> None:
    """Within a minute, and it says why."""
    _, errors = process.communicate(timeout=DEATH_SECONDS)
    assert process.returncode != 0
    assert any(message in errors for message in ABANDONED), errors


def metrics(workdir: Path) -> list[dict]:
    path = workdir / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def assert_same_run(found: Path, expected: Path) -> None:
    """Equal batches; equal losses, evaluations and parameters up to the order in which devices add."""
    pairs = list(zip(metrics(found), metrics(expected), strict=True))
    assert [line["step"] for line, _ in pairs if "loss" in line] == list(range(1, STEPS + 1))
    assert any("eval/held_out/top1" in line for line, _ in pairs)
    for ours, theirs in pairs:
        assert ours.keys() == theirs.keys()
        assert ours.get("batch_digest") == theirs.get("batch_digest")
        for name in ours.keys() & {"loss", "logit_scale", "learning_rate"}:
            np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-5, err_msg=f"{name} at step {ours['step']}")
        for name in (name for name in ours if name.startswith("eval/")):
            if name.endswith("calibration_error"):  # between probabilities, which are rounded; all others are counted
                np.testing.assert_allclose(ours[name], theirs[name], rtol=0, atol=5e-7, err_msg=name)
            else:
                assert ours[name] == theirs[name], name
    ours, theirs = (flatten(clip_jax.load(workdir).params) for workdir in (found, expected))
    assert ours.keys() == theirs.keys()
    for name, leaf in ours.items():
        # Adam divides by the gradient's size, which makes much of float32's rounding where a gradient is nearly zero.
        np.testing.assert_allclose(leaf, theirs[name], atol=2e-4, err_msg=name)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory) -> tuple[Path, list[tuple[str, str]]]:
    """The workdir of a run by two processes of one device each, and what they said."""
    workdir = tmp_path_factory.mktemp("processes") / "two"
    return workdir, finish(*start_together(workdir, 2, 1, f"--config.steps={STEPS}"))


@pytest.mark.slow
def test_two_processes_are_one(tmp_path, unbroken):
    two, (first, second) = unbroken
    assert f"trained to step {STEPS}" in first[0]
    assert f"step {STEPS}/{STEPS}: loss" in first[1]
    assert "trained" not in second[0]
    assert "step" not in second[1]
    finish(start(tmp_path / "one", 2, f"--config.steps={STEPS}"))
    assert_same_run(two, tmp_path / "one")


@pytest.mark.slow
def test_processes_of_four_devices_on_a_mesh_of_two_axes(tmp_path):
    """The ring goes from process to process."""
    one, two = tmp_path / "one", tmp_path / "two"
    options = (f"--config.steps={STEPS}", "--config.mesh.data=4", "--config.mesh.fsdp=2", "--config.loss.method=ring")
    finish(*start_together(two, 2, 4, *options))
    finish(start(one, 8, *options))
    assert_same_run(two, one)


@pytest.mark.slow
def test_a_tensor_axis_across_processes(tmp_path):
    """Both read whole batches then, of which neither has the whole model; it has heads that two divides."""
    one, two, beginning = tmp_path / "one", tmp_path / "two", tmp_path / "beginning"
    config = replace(get_config("tiny"), vision=VisionConfig(48, 16, TransformerConfig(width=64, layers=2, heads=2)))
    clip_jax.save(Clip(config, jax.jit(lambda: init_params(config, jax.random.key(0)))()), beginning)
    options = (f"--config.steps={STEPS}", f"--config.model.init={beginning}", "--config.mesh.data=1")
    finish(*start_together(two, 2, 1, *options, "--config.mesh.tensor=2"))
    finish(start(one, 1, *options))
    assert_same_run(two, one)


@pytest.mark.slow
def test_neither_outlives_the_other_and_both_resume(tmp_path, unbroken):
    """A signal to one stops both at the same step, the death of one ends the other, time after time."""
    broken, options = tmp_path / "broken", (f"--config.steps={STEPS}",)
    ends = [(0, signal.SIGTERM, 3), (1, signal.SIGKILL, 7), (1, signal.SIGTERM, 11), (0, signal.SIGKILL, 16)]
    saved = []
    for attempt, (process, sent, step) in enumerate(ends, start=1):
        with killed_at_the_end(start_together(broken, 2, 1, *options)) as processes:
            deadline = time.monotonic() + 240
            while len(list(broken.glob("attempts/*.json"))) < attempt or len(metrics(broken)) < step:
                assert time.monotonic() < deadline, [process.poll() for process in processes]
                time.sleep(0.01)
            processes[process].send_signal(sent)
            if sent == signal.SIGKILL:
                assert_gives_up(processes[1 - process])
                continue
            outputs = ended(*processes)
            assert [process.returncode for process in processes] == [75, 75], outputs
        saved.append(len(metrics(broken)))
        heard = "SIGTERM" if process == 0 else "a signal"  # what the first knows, which alone speaks
        assert f"stopped by {heard} at step {saved[-1]} of {STEPS}" in outputs[0][1]
    finish(*start_together(broken, 2, 1, *options))
    assert_same_run(broken, unbroken[0])
    assert {*saved} <= {int(path.name.split("-")[0]) for path in broken.glob("attempts/*.json")}


@pytest.mark.slow
@pytest.mark.parametrize("at_fault", [0, 1])
def test_a_mistake_of_one_ends_the_other(tmp_path, at_fault):
    """As where a disk is missing on one host: its process says so, and the other does not wait for it."""
    coordinator = f"--coordinator=localhost:{free_port()}"
    mistakes = [("--config.data.source=tar:nowhere",) if process == at_fault else () for process in (0, 1)]
    options = ("--config.steps=2", coordinator, "--processes=2")
    processes = [
        start(tmp_path / "run", 1, *options, f"--process={process}", *mistake)
        for process, mistake in enumerate(mistakes)
    ]
    with killed_at_the_end(processes):
        _, errors = processes[at_fault].communicate(timeout=120)
        assert processes[at_fault].returncode == 2
        assert "nowhere" in errors.strip().splitlines()[-1]
        assert_gives_up(processes[1 - at_fault])


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("localhost:1234", None, 0), "all three of --coordinator, --processes and --process, or none"),
        ((None, 2, 1), "all three of --coordinator, --processes and --process, or none"),
        (("localhost:1234", 2, 2), "--process 2 of --processes 2"),
        (("localhost:1234", 2, -1), "--process -1 of --processes 2"),
        (("localhost", 2, 1), "'localhost' is not HOST:PORT"),
        (("localhost:99999", 2, 1), "'localhost:99999' is not HOST:PORT"),
    ],
)
def test_flags_at_fault_are_refused(arguments, reason):
    with pytest.raises(UserError) as refusal:
        initialise(*arguments)
    assert reason in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_addresses_at_fault_are_refused():
    with pytest.raises(UserError, match="nobody listens at --coordinator localhost"):
        initialise(f"localhost:{free_port()}", 2, 1, connect_seconds=0)
    with pytest.raises(UserError, match=r"nobody listens at --coordinator nowhere\.invalid"):
        initialise("nowhere.invalid:1234", 2, 1, connect_seconds=0)
    with socket.create_server(("", 0)) as server, pytest.raises(UserError, match=r"cannot listen .* another port"):
        initialise(f"localhost:{server.getsockname()[1]}", 2, 0)


@pytest.mark.slow
def test_processes_that_have_met_may_take_their_time():
    """As where one draws scenes: gloo gives up after 30 s where a connection is made only then."""
    code = (
        "import sys, time\n"
        "from clip_jax.processes import is_first, wait_for_all\n"
        "from clip_jax.training.distributed import initialise, meet, together\n"
        f"initialise('localhost:{free_port()}', 2, int(sys.argv[1]))\n"
        "with together():\n"
        "    meet()\n"
        "    time.sleep(40 if is_first() else 0)\n"
        "    wait_for_all('the first is ready')\n"
    )
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    finish(
        *(
            subprocess.Popen(
                [sys.executable, "-c", code, str(process)],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for process in (0, 1)
        )
    )


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"worker-network-endpoints": "unknown:unknown:10.0.0.2,unknown:unknown:10.0.0.3"}, True),
        ({"worker-network-endpoints": "unknown:unknown:10.0.0.2", "tpu-env": "ACCELERATOR_TYPE: 'v5e-8'"}, False),
        ({"worker-network-endpoints": "one", "tpu-env": "MEGASCALE_COORDINATOR_ADDRESS: '10.0.0.2'"}, True),
        ({}, False),
    ],
)
def test_hosts_of_a_tpu_vm(monkeypatch, attributes, expected):
    class Metadata(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            assert self.headers["Metadata-Flavor"] == "Google"
            value = attributes.get(self.path.removeprefix("/computeMetadata/v1/instance/attributes/"))
            self.send_response(404 if value is None else 200)
            self.end_headers()
            self.wfile.write((value or "").encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    monkeypatch.setattr(distributed, "has_tpu", lambda: True)
    with HTTPServer(("localhost", 0), Metadata) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("GCE_METADATA_IP", f"localhost:{server.server_port}")
        assert distributed._on_tpu_pod() == expected
        server.shutdown()


def test_a_process_that_nobody_joins_says_so():
    code = (
        "import sys\n"
        "from clip_jax.errors import UserError\n"
        "from clip_jax.training.distributed import initialise\n"
        f"try: initialise('localhost:{free_port()}', 2, 0, connect_seconds=2)\n"
        "except UserError as error: sys.exit(f'clip-jax: {error}')"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 1
    assert "not all processes met at --coordinator" in ended.stderr
