"""Devices that are there, hidden, held by others, few or broken."""

import sys
from dataclasses import dataclass, replace

import jax
import pytest

from clip_jax.tpu.doctor.devices import check_devices, describe, explained, probe_devices
from clip_jax.tpu.doctor.examination import Finding
from clip_jax.training.chips import GIB


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
    monkeypatch.setattr("clip_jax.tpu.doctor.devices.computes", lambda device: device.id != 13)
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
