"""Are the accelerators there, are they all, and do they compute."""

import glob
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from clip_jax.tpu.doctor.examination import Finding
from clip_jax.training.chips import GIB, peak_flops

PATIENCE = 120  # seconds, for libtpu to begin
PROBE = (sys.executable, "-c", "import jax; print(len(jax.devices()))")
SIDE = 256
HOLDER = re.compile(r"in use by (?:a )?process with pid (\d+)")


def check_devices(
    has_tpu: bool,
    expected: int | None,
    alone: bool,
    probe: Sequence[str] = PROBE,
    devices_of: Callable[[], Sequence[Any]] = jax.devices,
) -> Finding:
    """All devices of all processes, of which those of this one must compute; `expected` is how many a slice has.

    `alone` says that no other process takes part: on a TPU, another Python process then tries first, since libtpu may
    hang or abort where the TPU is in use.
    """
    if has_tpu and alone:
        trouble = probe_devices(probe)
        if trouble is not None:
            return trouble
    try:
        devices = list(devices_of())
    except RuntimeError as error:
        return explained(str(error))
    return describe(devices, [one for one in devices if one.process_index == jax.process_index()], has_tpu, expected)


def probe_devices(command: Sequence[str], seconds: int | float = PATIENCE) -> Finding | None:
    """What is wrong with the devices as another process sees them; None where nothing is."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds)
    except subprocess.TimeoutExpired:
        return Finding(
            "failed",
            f"JAX has not seen its devices within {seconds:g} s",
            "another process may hold them (sudo lsof /dev/accel* /dev/vfio/*); on a pod, start on all hosts at once",
        )
    if done.returncode == 0:
        return None
    lines = done.stderr.strip().splitlines() or [f"it ended with code {done.returncode} and said nothing"]
    told = next((line for line in reversed(lines) if HOLDER.search(line) or "lockfile" in line), lines[-1])
    return explained(told)


def explained(message: str) -> Finding:
    """Why JAX has no devices, and what to do."""
    message = " ".join(message.split())[:500]
    holder = HOLDER.search(message)
    if holder:
        pid = holder[1]
        return Finding("failed", f"the TPU is in use by process {pid}", f"wait for it, or end it: kill {pid}")
    if "lockfile" in message:
        return Finding("failed", message, "where no process uses the TPU: sudo rm /tmp/libtpu_lockfile")
    return Finding("failed", message, "`python -c 'import jax; print(jax.devices())'` must work first")


def describe(devices: Sequence[Any], local: Sequence[Any], has_tpu: bool, expected: int | None) -> Finding:
    """The finding about devices that JAX sees."""
    kind, platform = devices[0].device_kind, devices[0].platform
    memory = (local[0].memory_stats() or {}).get("bytes_limit")
    peak = peak_flops(kind)
    figures = {"kind": kind, "devices": len(devices), "local": len(local), "memory": memory, "peak_flops": peak}
    seen = f"{len(devices)} x {kind}" + (f", {len(local)} of them here" if len(local) < len(devices) else "")
    seen += f", {memory / GIB:.1f} GiB each" if memory else ""
    seen += f", peak {peak / 1e12:.0f} TFLOP/s each" if peak else ", peak unknown, so no MFU"
    slices = len({getattr(device, "slice_index", 0) for device in devices})
    if platform == "cpu" and (has_tpu or glob.glob("/dev/nvidia[0-9]*")):
        status, missing, extra = ("failed", "TPU", "tpu") if has_tpu else ("warning", "GPU", "cuda")
        advice = f"pip install '.[{extra}]' in the repository, and leave JAX_PLATFORMS unset"
        return Finding(status, f"JAX does not see this host's {missing}: {seen}", advice, figures, devices)
    wrong = [device.id for device in local if not computes(device)]
    if wrong:
        advice = "restart the host or replace it; nothing that such a device computes can be trusted"
        return Finding("failed", f"devices {wrong} multiply matrices wrongly; {seen}", advice, figures)
    if expected is not None and len(devices) != expected * slices:
        advice = "start doctor and train on every host of the slice; a slice that lacks chips must be made anew"
        return Finding("failed", f"{seen}, but the slice has {expected * slices}", advice, figures)
    return Finding("ok", seen, figures=figures, found=devices)


def computes(device: Any) -> bool:
    """Whether a product of matrices of small whole numbers is right, to the last bit in bfloat16 too."""
    rng = np.random.default_rng(device.id)
    a, b = rng.integers(0, 4, (2, SIDE, SIDE))
    found = jnp.matmul(*(jax.device_put(x.astype(np.float32), device) for x in (a, b)))
    return bool(np.array_equal(np.asarray(found), a @ b))
