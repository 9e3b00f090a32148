"""The exact commands of a launch, as documented by gcloud's reference pages."""

import json
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from support.recorded_gcloud import JOB, QUEUE, VM, WHERE, request

from clip_jax.errors import UserError
from clip_jax.tpu.launch import commands
from clip_jax.tpu.launch.request import Slice
from clip_jax.tpu.launch.slice_types import accelerator_type, has_several_workers, type_flags
from clip_jax.tpu.launch.supervisor import steps
from clip_jax.tpu.topology import parse_topology

CREATED = [
    (
        request("v5e:16x16"),
        f"{VM} create my-run {WHERE} --accelerator-type=v5litepod-256 --version=v2-alpha-tpuv5-lite "
        "--labels=clip-jax=v5e-16x16-on-demand",
    ),
    (
        request("v5e:16x16", spot=True),
        f"{VM} create my-run {WHERE} --accelerator-type=v5litepod-256 --version=v2-alpha-tpuv5-lite "
        "--labels=clip-jax=v5e-16x16-spot --spot",
    ),
    (
        request("v5e:16x16", queued=True),
        f"{QUEUE} create my-run {WHERE} --accelerator-type=v5litepod-256 --runtime-version=v2-alpha-tpuv5-lite "
        "--node-id=my-run --async --labels=clip-jax=v5e-16x16-on-demand-queued",
    ),
    (
        request("v4:2x2x4"),
        f"{VM} create my-run {WHERE} --type=v4 --topology=2x2x4 --version=tpu-ubuntu2204-base "
        "--labels=clip-jax=v4-2x2x4-on-demand",
    ),
    (
        request("v4:4x4x4", spot=True),
        f"{VM} create my-run {WHERE} --type=v4 --topology=4x4x4 --version=tpu-ubuntu2204-base "
        "--labels=clip-jax=v4-4x4x4-spot --spot",
    ),
    (
        request("v4:4x4x4", queued=True),
        f"{QUEUE} create my-run {WHERE} --type=v4 --topology=4x4x4 --runtime-version=tpu-ubuntu2204-base "
        "--node-id=my-run --async --labels=clip-jax=v4-4x4x4-on-demand-queued",
    ),
    (
        request("v6e:4x8"),
        f"{VM} create my-run {WHERE} --accelerator-type=v6e-32 --version=v2-alpha-tpuv6e "
        "--labels=clip-jax=v6e-4x8-on-demand",
    ),
    (
        request("v6e:4x8", spot=True),
        f"{VM} create my-run {WHERE} --accelerator-type=v6e-32 --version=v2-alpha-tpuv6e "
        "--labels=clip-jax=v6e-4x8-spot --spot",
    ),
    (
        request("v6e:4x8", slices=2, spot=True),
        f"{QUEUE} create my-run {WHERE} --accelerator-type=v6e-32 --runtime-version=v2-alpha-tpuv6e "
        "--node-count=2 --node-prefix=my-run --async --labels=clip-jax=2-x-v6e-4x8-spot-queued --spot",
    ),
]


@pytest.mark.parametrize(("asked", "line"), CREATED)
def test_how_a_slice_is_asked_for(asked, line):
    assert shlex.join(commands.create(asked)) == line


@pytest.mark.parametrize(
    ("topology", "name"),
    [
        ("v4:4x4x8", "v4-256"),
        ("v5e:2x4", "v5litepod-8"),
        ("v5p:8x8x8", "v5p-1024"),
        ("v5p:2x2x1", "v5p-8"),
        ("v6e:16x16", "v6e-256"),
        ("tpu7x:4x4x4", "tpu7x-128"),
    ],
)
def test_names_of_types_as_google_has_them(topology, name):
    """The tables of cloud.google.com/tpu/docs/v4, v5e, v5p, v6e and of public scripts for TPU7x."""
    assert accelerator_type(parse_topology(topology)) == name
    assert type_flags(parse_topology(topology))


@pytest.mark.parametrize("shape", ["4x4x8", "4x4x12", "4x8x8", "4x4x20", "8x8x8", "8x8x16", "8x16x16", "16x16x24"])
def test_shapes_that_a_number_of_chips_stands_for(shape):
    """All of these are in the table of v5p's slices."""
    assert type_flags(parse_topology(f"v5p:{shape}"))[0].startswith("--accelerator-type=v5p-")


@pytest.mark.parametrize(
    ("topology", "message"),
    [
        ("v5e:3x3", "no slice of v5e is 3x3; there are 1x1, 2x2, 2x4"),
        ("v6e:2x8", "no slice of v6e is 2x8"),
        ("v5p:2x3x4", "no slice of v5p is 2x3x4"),
        ("v5p:4x4x16", "v5p-512 is 4x8x8; plan with v5p:4x8x8"),
    ],
)
def test_shapes_that_google_does_not_have(topology, message):
    with pytest.raises(UserError, match=message):
        type_flags(parse_topology(topology))


@pytest.mark.parametrize(
    ("topology", "slices", "several"),
    [("v5e:2x4", 1, False), ("v5e:4x4", 1, True), ("v4:2x2x1", 1, False), ("v5p:2x2x2", 1, True), ("v6e:2x4", 2, True)],
)
def test_workers_of_a_slice(topology, slices, several):
    """By the tables of the same pages: machines of a v5litepod-8 or v6e-8 have 8 chips, all others 4 at most."""
    assert has_several_workers(parse_topology(topology, slices)) == several


def test_reaching_the_workers():
    one, two = Slice("my-run", "us-west4-a", "my-project"), Slice("my-run", "us-west4-a", "my-project", True, 2)
    kept = ("-oConnectTimeout=20", "-oServerAliveInterval=15", "-oServerAliveCountMax=4")
    ssh, scp = (" ".join(f"--{program}-flag={flag}" for flag in kept) for program in ("ssh", "scp"))
    worker = "bash clip-jax/source/experiments/tpu/worker.sh"
    assert (
        shlex.join(commands.ssh(one, commands.stop()))
        == f"{VM} ssh my-run {WHERE} --worker=all {ssh} '--command={worker} stop'"
    )
    assert (
        shlex.join(commands.ssh(two, commands.watch(-1), worker="0"))
        == f"{QUEUE} ssh my-run {WHERE} --node=0 --worker=0 {ssh} '--command={worker} watch -1'"
    )
    assert (
        shlex.join(commands.copy(two, JOB.files))
        == f"{QUEUE} scp folder/clip-jax.tar.gz folder/clip-jax.date my-run: {WHERE} --node=all --worker=all {scp}"
    )
    assert commands.start(("train", "--config.data.source=tar:gs://b/*.tar")) == (
        f"{worker} start train '--config.data.source=tar:gs://b/*.tar'"
    )


def test_folders_of_slices_differ():
    """Two launches of one name, in two zones or projects, do not overwrite what the other copies."""
    places = [
        ("us-west4-a", "my-project"),
        ("us-west4-b", "my-project"),
        ("us-west4-a", None),
        ("us-west4-a", "a.b:c1-d2e"),
    ]
    folders = {Slice("my-run", zone, project).folder for zone, project in places}
    assert len(folders) == len(places)
    assert not any(":" in folder for folder in folders)  # scp would take what stands before it for a host


def test_packing_a_tree(tmp_path, monkeypatch):
    """What git tracks, as it is on disk, and the day of the commit."""
    monkeypatch.chdir(tmp_path)
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    Path("kept.py").write_text("before")
    for command in (["init", "-q"], ["add", "kept.py"], [*identity, "commit", "-qm", "x", "--date=2020-01-01"]):
        subprocess.run(
            ["git", *command], check=True, env={"PATH": "/usr/bin:/bin", "GIT_COMMITTER_DATE": "1600000000 +0200"}
        )
    Path("kept.py").write_text("changed")
    Path("other.py").write_text("not tracked")
    subprocess.run(commands.pack(tmp_path / "out"), check=True)
    listed = subprocess.run(["tar", "-xzOf", "out/clip-jax.tar.gz"], capture_output=True, text=True, check=True)
    assert listed.stdout == "changed"
    assert Path("out/clip-jax.date").read_text() == "2020-09-13T14:26:40+02:00\n"


@pytest.mark.skipif(shutil.which("gcloud") is None, reason="gcloud is not installed")
def test_gcloud_itself_takes_the_commands(tmp_path, monkeypatch):
    """By its own linter, which reads flags and choices and needs neither a login nor the network."""
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    file = tmp_path / "commands.json"
    asked = [request("v5e:4x4", spot=True), request("v4:2x2x4", slices=2), request("v5p:8x8x8", queued=True)]
    lines = [line for one in asked for _, line in steps(one, JOB) if line[0] == "gcloud"]
    lines += [
        commands.ssh(asked[0].slice, remote) for remote in (commands.last(9), commands.follow(9), commands.stop())
    ]
    found = {shlex.join(line) for line in lines}
    file.write_text(json.dumps([{"command_string": line} for line in found]))
    linter = ["gcloud", "meta", "lint-gcloud-commands", f"--commands-file={file}"]
    answers = json.loads(subprocess.run(linter, capture_output=True, text=True, check=True).stdout)
    assert len(answers) == len(found)
    assert [answer["error_message"] for answer in answers if not answer["success"]] == []


def test_the_state_of_a_worker_without_a_source_tree(tmp_path):
    """As where a launch was interrupted before it installed anything: an answer, not a failure."""
    done = subprocess.run(["bash", "-c", commands.state()], cwd=tmp_path, capture_output=True, text=True, check=True)
    host = subprocess.run(["hostname"], capture_output=True, text=True, check=True).stdout.strip()
    assert done.stdout == f"worker {host} absent none\n"
