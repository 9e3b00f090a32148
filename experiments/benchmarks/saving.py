"""Seconds for which saving a checkpoint blocks the step loop, and their share of a run that saves every minute.

    python experiments/benchmarks/saving.py [--models tiny ViT-B-32] [--saves 5] [--folder DIR] [--json FILE]

The state is parameters and both moments of AdamW in float32. After each save the whole state is overwritten in place,
as an update does, while the checkpoint is being written. Two saves to warm up are left out. `blocked` is the median,
`worst` the most, of what `save` took.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import jax

from clip_jax.presets import get_config
from clip_jax.sharding import MeshConfig, make_mesh
from clip_jax.training.config import OptimizerConfig
from clip_jax.training.optimizer import make_optimizer
from clip_jax.training.state import abstract_state, init_state
from clip_jax.weights.orbax_checkpoints import CheckpointWriter


def measure(name: str, saves: int, folder: Path) -> dict[str, float]:
    """GiB of the state, and seconds blocked and written of each save."""
    config, optimizer = get_config(name), make_optimizer(OptimizerConfig(), 1000)
    mesh = make_mesh(MeshConfig(data=len(jax.devices())))
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract_state(config, optimizer, mesh))
    state = jax.jit(lambda: init_state(config, optimizer, 0), out_shardings=shardings)()
    update = jax.jit(
        lambda state: jax.tree.map(lambda leaf: leaf + 1, state), donate_argnums=0, out_shardings=shardings
    )
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(state)) / 2**30
    writer = CheckpointWriter(folder, keep=1)
    blocked, written = [], []
    for step in range(1, saves + 3):
        state = jax.block_until_ready(update(state))
        start = time.perf_counter()
        writer.save(step, state, {"model": config.to_dict()})
        blocked.append(time.perf_counter() - start)
        state = jax.block_until_ready(update(state))  # donates what is being written
        writer.wait()
        written.append(time.perf_counter() - start)
    writer.close()
    return {
        "gib": size,
        "blocked": statistics.median(blocked[2:]),
        "worst": max(blocked[2:]),
        "written": statistics.median(written[2:]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["tiny", "ViT-B-32"])
    parser.add_argument("--saves", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    device = jax.devices()[0]
    print(f"{platform.machine()}, {os.cpu_count()} cores, {device.device_kind}, jax {version('jax')}, ", end="")
    print(f"orbax-checkpoint {version('orbax-checkpoint')}, load {os.getloadavg()[0]:.1f}\n")
    print("| model | state, GiB | blocked, s | worst, s | until written, s | share at one a minute |")
    print("|---|---:|---:|---:|---:|---:|")
    results = {}
    for name in options.models:
        folder = Path(tempfile.mkdtemp(dir=options.folder))
        try:
            row = results[name] = measure(name, options.saves, folder)
        finally:
            shutil.rmtree(folder)
        print(
            f"| {name} | {row['gib']:.3f} | {row['blocked']:.3f} | {row['worst']:.3f} | {row['written']:.2f} "
            f"| {row['blocked'] / 60:.2%} |",
            flush=True,
        )
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
