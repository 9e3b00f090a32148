"""Does a run fit a TPU slice, and what would an update cost there: the compiler's own figures, and a roofline."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from typing import Any

from clip_jax.errors import UserError
from clip_jax.tpu.roofline import Roofline, roofline
from clip_jax.tpu.topology import Topology
from clip_jax.training.config import TrainConfig
from clip_jax.training.initial import model_of

MOST_COMPILES = 5
PATIENCE = 1800  # seconds; a compilation takes 20 to 120
SAFE = 0.98  # of the batch that two others foretell
CLOSE = 1.05  # a batch that is known to fit is near enough to the largest if one this much larger does not


@dataclass(frozen=True)
class Plan:
    """One compiled update. Bytes are those of one device, which is a chip but on TPU7x, where it is half of one.

    Where it does not fit, `needed` says for what the compiler looked for room (it stops there, so that there are no
    further figures), and `peak` is none. `collectives` is none where the compiler's programs cannot be read back.
    """

    topology: Topology
    config: TrainConfig
    mesh: dict[str, int]
    parameters: int
    average: int
    optimizer: int
    batch: int
    available: float
    peak: int | None = None
    arguments: int | None = None
    temporaries: int | None = None
    needed: float | None = None
    collectives: dict[str, int] | None = None

    @property
    def fits(self) -> bool:
        """Whether the compiler placed it within the chips' memory."""
        return self.peak is not None

    @property
    def roofline(self) -> Roofline:
        """The least times of an update, by what limits them."""
        return roofline(self.config, model_of(self.config), self.topology, self.mesh)

    def to_dict(self) -> dict[str, Any]:
        """Everything that is known, for JSON."""
        return asdict(self) | {"fits": self.fits, "roofline": self.roofline.to_dict()}


def plan(config: TrainConfig, topology: Topology) -> Plan:
    """Compiles the update of `config` for `topology`, in a process of its own, in seconds to minutes.

    Raises UserError for a mesh or batch that does not fit the slice's shape, and where there is no libtpu.
    """
    if find_spec("libtpu") is None:
        raise UserError(
            "plan needs libtpu, the TPU compiler, which runs on any Linux x86-64 machine; "
            "pip install '.[tpu]' in the repository"
        )
    request = {"config": asdict(config), "topology": topology.name, "slices": topology.slices}
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1", "XLA_FLAGS": ""}
    try:
        done = subprocess.run(
            [sys.executable, "-m", "clip_jax.tpu.compile_step"],
            input=json.dumps(request),
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )
    except subprocess.TimeoutExpired as error:
        raise UserError(f"the TPU compiler has not come to an end in {PATIENCE // 60} minutes") from error
    if done.returncode:
        raise UserError(_what_happened(done.returncode, done.stderr))
    found = json.loads(done.stdout.splitlines()[-1])
    if "message" in found:
        raise UserError(found["message"])
    return Plan(topology, config, **({"available": topology.chip.memory / topology.chip.devices} | found))


def largest_batch(config: TrainConfig, topology: Topology, say: Callable[[Plan], None]) -> Plan:
    """The largest batch that fits, found in at most five compilations; `say` is told of each.

    Memory is nearly linear in the batch, so that two sizes foretell the third. Returns the plan of the largest batch
    that was seen to fit. Raises UserError where none was.
    """
    first = plan(config, topology)
    say(first)
    shares = config.microbatches * first.mesh["data"] * first.mesh["fsdp"]
    tried = [first]
    while len(tried) < MOST_COMPILES:
        size = _next_size(tried, shares)
        if size is None:
            break
        tried.append(plan(replace(config, batch_size=size), topology))
        say(tried[-1])
    fitting = [one for one in tried if one.fits]
    if not fitting:
        smallest = min(one.config.batch_size for one in tried)
        raise UserError(
            f"not even a batch of {smallest:,} fits {topology}; spread the parameters (--mesh fsdp=4), compute more "
            "again (--config.model.remat=block), or take more chips"
        )
    return max(fitting, key=lambda one: one.config.batch_size)


def _next_size(tried: list[Plan], shares: int) -> int | None:
    """The batch to try next, a multiple of `shares`; None where what is known is near enough."""
    fitting = max((one.config.batch_size for one in tried if one.fits), default=0)
    failing = min((one.config.batch_size for one in tried if not one.fits), default=None)
    if failing is not None and fitting and failing <= max(fitting * CLOSE, fitting + shares):
        return None
    if len(tried) == 1:
        only = tried[0]
        used, size = only.peak or only.needed or 1, only.config.batch_size
        guess = size * only.available / used * 0.9  # all of it grows with the batch, at worst
        guess = min(guess, 8 * size) if only.fits else guess
    else:
        (a, used_a), (b, used_b) = sorted((one.config.batch_size, one.peak or one.needed or 1) for one in tried)[-2:]
        slope = max((used_b - used_a) / (b - a), 1e-9) if b != a else 1e-9
        guess = SAFE * (a + (tried[0].available - used_a) / slope)
    most = failing - shares if failing is not None else float("inf")
    size = int(max(shares, min(guess, most)) // shares * shares)
    if size <= fitting or size in {one.config.batch_size for one in tried}:
        size = (fitting + failing) // 2 // shares * shares if failing is not None else 2 * fitting
    return size if size > fitting and (failing is None or size < failing) and size > 0 else None


def _what_happened(code: int, stderr: str) -> str:
    lines = [line for line in stderr.strip().splitlines() if line.strip() and not line.startswith("    ")]
    why = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    last = lines[-1][-300:] if lines else "it said nothing"
    return f"the TPU compiler stopped with {why}: {last}"
