"""Do the hosts of a run meet, add up, and agree on what they are about to do."""

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from clip_jax.tpu.doctor.examination import Finding
from clip_jax.training.config import TrainConfig
from clip_jax.training.distributed import initialise, meet

LENGTH = 8_192  # bytes that a process tells the others at once
SKEW = 2.0  # seconds


def check_processes(coordinator: str | None, processes: int | None, process: int | None) -> Finding:
    """Connects the processes, as train does. JAX must not have touched a device before."""
    initialise(coordinator, processes, process)
    if not jax.distributed.is_initialized():
        return Finding("ok", "one process")
    return Finding("ok", "all processes have met" if processes is None else f"{processes} processes have met")


def check_hosts(identity: Mapping[str, str]) -> Finding:
    """Whether all devices take part in a sum, and all processes have the same `identity`: versions, config, workdir."""
    meet()
    if jax.process_count() == 1:
        return Finding("ok", "one process")
    total = sum_of_ones()
    stories = [json.loads(text) for text in gather(json.dumps({"time": time.time(), **identity}))]
    return compare(stories, total, jax.device_count())


def compare(stories: Sequence[Mapping[str, Any]], total: float, devices: int) -> Finding:
    """The finding about what each process has told of itself, and about the sum of a one from each device."""
    skew = max(story["time"] for story in stories) - min(story["time"] for story in stories)
    figures = {"processes": len(stories), "sum_of_ones": total, "clock_skew_seconds": skew}
    if total != devices:
        advice = "a link or a device is broken; make the slice anew"
        return Finding("failed", f"the ones of {devices} devices add up to {total:g}", advice, figures)
    for name in stories[0]:
        if name == "time":
            continue
        differing = [place for place, story in enumerate(stories) if story[name] != stories[0][name]]
        if differing:
            place = differing[0]
            more = f" ({len(differing)} differ)" if len(differing) > 1 else ""
            seen = f"{name}: {stories[0][name]} on process 0, {stories[place][name]} on process {place}{more}"
            return Finding("failed", seen, "give all hosts the same packages, files and command", figures, gather)
    seen = f"{len(stories)} processes, {devices} devices add up, clocks {skew:.1f} s apart"
    if skew > SKEW:
        advice = "have the clocks set by NTP (chrony), or logs and caches of hosts disagree"
        return Finding("warning", seen, advice, figures, gather)
    return Finding("ok", seen, "", figures, gather)


def gather(text: str) -> list[str]:
    """The texts of all processes, which call this together."""
    told = np.zeros(LENGTH, np.uint8)
    encoded = text.encode()
    told[: len(encoded)] = np.frombuffer(encoded, np.uint8)
    rows = np.asarray(multihost_utils.process_allgather(told)).reshape(-1, LENGTH)
    return [row.tobytes().rstrip(b"\0").decode() for row in rows]


def sum_of_ones() -> float:
    """An all-reduce of a one from each device of every process."""
    mesh = Mesh(np.array(jax.devices()), "all")
    ones = jax.make_array_from_callback(
        (mesh.size,), NamedSharding(mesh, P("all")), lambda index: np.ones(mesh.size, np.float32)[index]
    )
    return float(jax.jit(jnp.sum, out_shardings=NamedSharding(mesh, P()))(ones))


def digest(config: TrainConfig | None) -> str:
    """A digest of a config; 'none' where there is none."""
    if config is None:
        return "none"
    return hashlib.blake2b(json.dumps(asdict(config), sort_keys=True).encode(), digest_size=8).hexdigest()
