"""Compiles a run's train step for TPUs that are not there. A program of its own, since libtpu may abort.

Reads {"config": ..., "topology": ..., "slices": ...} from standard input, and prints one line of JSON: the compiler's
figures, what it would have needed, or a message for the user.
"""

import json
import re
import sys
from collections import Counter
from dataclasses import asdict
from typing import Any

import jax
import numpy as np
from jax.experimental import topologies

from clip_jax.errors import UserError
from clip_jax.schema import parse
from clip_jax.sharding import batch_sharding, make_mesh
from clip_jax.training.config import TrainConfig
from clip_jax.training.initial import model_of
from clip_jax.training.model import check_mesh
from clip_jax.training.optimizer import make_optimizer
from clip_jax.training.state import abstract_state
from clip_jax.training.step import jit_step, leaves_patches_out, with_all_patches

COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "collective-permute", "all-to-all")
UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
NEEDED = re.compile(r"(?:Used |temporaries \(|require[ds]? )([\d.]+)([KMGT]?)[^(]{0,40}?(?:of|\(|exceed)")
AVAILABLE = re.compile(r"(?:of|available HBM \()\s*([\d.]+)([KMGT]?)")


def main() -> None:
    """Compiles what standard input asks for, and prints the figures, or a user's mistake, as JSON."""
    request = json.load(sys.stdin)
    config = parse(TrainConfig, request["config"], "config")
    try:
        print(json.dumps(compile_step(config, request["topology"], request["slices"])))
    except UserError as error:
        print(json.dumps({"message": str(error)}))


def compile_step(config: TrainConfig, topology: str, slices: int) -> dict[str, Any]:
    """The figures of the compiled step, in bytes a device, or `needed` and `available` where it does not fit."""
    mesh = make_mesh(config.mesh, topology_devices(topology, slices))
    model = model_of(config)
    check_mesh(config, model, mesh)
    optimizer = make_optimizer(config.optimizer, config.steps)
    state = abstract_state(model, optimizer, mesh, config.optimizer.ema is not None)
    size, context = model.vision.image_size, model.text.context_length
    pixels, tokens = (
        jax.ShapeDtypeStruct((config.batch_size, *shape), dtype, sharding=batch_sharding(mesh))
        for shape, dtype in (((size, size, 3), np.uint8), ((context,), np.int32))
    )
    found = {
        "mesh": asdict(config.mesh) | dict(mesh.shape),
        "parameters": held(state["params"]),
        "average": held(state.get("ema")),
        "optimizer": held(state["opt_state"]),
        "batch": held((pixels, tokens)),
    }
    shardings = jax.tree.map(lambda leaf: leaf.sharding, state)
    if not leaves_patches_out(config, config.steps - 1):  # the last updates see all patches, and need the most memory
        config = with_all_patches(config)
    step = jit_step(config, model, optimizer, mesh, shardings)
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):  # no arrays can be made on devices that are not there
        lowered = step.lower(state, pixels, tokens)
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        return found | out_of_memory(str(error))
    memory: Any = compiled.memory_analysis()
    return found | {
        "arguments": memory.argument_size_in_bytes,
        "temporaries": memory.temp_size_in_bytes,
        "peak": memory.peak_memory_in_bytes,
        "collectives": collectives(compiled),
    }


def topology_devices(topology: str, slices: int) -> list[Any]:
    """The devices of slices that are not there. Raises UserError for a shape that libtpu does not know."""
    options: dict[str, Any] = {"num_slices": slices} if slices > 1 else {}
    if topology.startswith("v4"):
        options["chip_config_name"] = "megacore"  # one device a chip, as on Cloud TPU VMs
    if topology.endswith(":1x1"):
        options["chips_per_host_bounds"] = (1, 1, 1)  # by default a host has four chips
    try:
        return list(topologies.get_topology_desc(topology, "tpu", **options).devices)
    except Exception as error:  # whatever libtpu says of a name
        raise UserError(f"libtpu knows no topology {topology}: {' '.join(str(error).split())[:200]}") from error


def held(tree: Any) -> int:
    """Bytes of the largest share that a device has of abstract arrays."""
    leaves = jax.tree.leaves(tree)
    return int(sum(np.prod(x.sharding.shard_shape(x.shape), dtype=np.int64) * x.dtype.itemsize for x in leaves))


def out_of_memory(message: str) -> dict[str, Any]:
    """What the compiler says that it would have needed. Raises UserError where it failed for another reason."""
    needed, available = NEEDED.search(message), AVAILABLE.search(message)
    if "RESOURCE_EXHAUSTED" not in message or not needed or not available:
        raise UserError(f"the TPU compiler failed: {' '.join(message.split())[:300]}")
    return {
        "needed": float(needed[1]) * UNITS[needed[2]],
        "available": float(available[1]) * UNITS[available[2]],
    }


def collectives(compiled: Any) -> dict[str, int] | None:
    """How often each collective stands in the program; None where this compiler's programs cannot be read back."""
    try:
        text = compiled.as_text()
    except jax.errors.JaxRuntimeError:
        return None
    counts = Counter(name for name in re.findall(r"= [^=]*? ([a-z-]+?)(?:-start)?\(", text) if name in COLLECTIVES)
    return dict(counts)


if __name__ == "__main__":
    main()
