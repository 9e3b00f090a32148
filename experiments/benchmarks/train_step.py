"""Seconds of an update, by clip_jax and by open_clip, side by side in one run, with the losses of both.

    python experiments/benchmarks/train_step.py [--models ViT-B-32] [--batch-size 32] [--steps 5] [--json FILE]

Needs open_clip_torch. On a CPU in float32; where JAX and torch both have a GPU, in bfloat16 against open_clip under
torch.compile and autocast, with MFU and peak memory: what torch allocated at most, and what XLA says that its program
needs. Both sides begin with the same weights and see the same batch, which lies on the device; an update is both
towers, the softmax loss, the backward pass and AdamW. Compilation and two updates are left out.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # torch shares the GPU

import jax
import jax.numpy as jnp
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
from support.open_clip_shim import import_open_clip  # pyright: ignore[reportMissingImports]
from support.torch_clip import params_from_open_clip  # pyright: ignore[reportMissingImports]

from clip_jax.presets import get_config
from clip_jax.sharding import MeshConfig, batch_sharding, make_mesh
from clip_jax.training.chips import peak_flops
from clip_jax.training.config import DataConfig, ModelConfig, OptimizerConfig, TrainConfig
from clip_jax.training.optimizer import make_optimizer
from clip_jax.training.state import abstract_state, begin
from clip_jax.training.step import jit_step, normalise_pixels
from clip_jax.training.step_flops import mfu

WARM_UPS = 2
OPTIMIZER = OptimizerConfig(learning_rate=1e-4, warmup=0)


@dataclass(frozen=True)
class Side:
    """One library's training: `update` makes a step and returns its loss, `peak` tells the most bytes ever in use."""

    update: Callable[[], float]
    peak: Callable[[], int]


def torch_side(name: str, model: Any, pixels: np.ndarray, tokens: np.ndarray, gpu: bool) -> Side:
    from open_clip.loss import ClipLoss

    device = "cuda" if gpu else "cpu"
    model = model.to(device).train()
    run = torch.compile(model) if gpu else model
    plain = [p for p in model.parameters() if p.ndim < 2]
    decayed = [p for p in model.parameters() if p.ndim >= 2]
    groups = [{"params": plain, "weight_decay": 0.0}, {"params": decayed, "weight_decay": OPTIMIZER.weight_decay}]
    betas = (OPTIMIZER.b1, OPTIMIZER.b2)
    optimizer = torch.optim.AdamW(groups, lr=OPTIMIZER.learning_rate, betas=betas, eps=OPTIMIZER.epsilon, fused=gpu)
    loss_of = ClipLoss()
    images = np.asarray(normalise_pixels(jnp.asarray(pixels), get_config(name).preprocess)).transpose(0, 3, 1, 2)
    on_device = torch.tensor(images, device=device), torch.tensor(tokens, device=device)

    def update() -> float:
        with torch.autocast(device, torch.bfloat16, enabled=gpu):
            image, text, scale, *_ = run(*on_device)
            loss = loss_of(image, text, scale)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return float(loss.item())

    return Side(update, lambda: torch.cuda.max_memory_allocated() if gpu else 0)


def jax_side(compute: ModelConfig, params: Any, pixels: np.ndarray, tokens: np.ndarray) -> Side:
    model = get_config(compute.name)
    # As many steps as keep the learning rate where it is.
    config = TrainConfig(DataConfig(""), steps=1_000_000, batch_size=len(pixels), model=compute, optimizer=OPTIMIZER)
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    optimizer = make_optimizer(config.optimizer, config.steps)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract_state(model, optimizer, mesh))
    state = jax.jit(lambda params: begin(params, optimizer), out_shardings=shardings)(params)
    batch = jax.device_put((pixels, tokens), batch_sharding(mesh))
    with jax.set_mesh(mesh):
        step = jit_step(config, model, optimizer, mesh, shardings).lower(state, *batch).compile()

    def update() -> float:
        nonlocal state
        state, figures = step(state, *batch)
        return float(figures["loss"])

    memory: Any = step.memory_analysis()
    return Side(update, lambda: memory.peak_memory_in_bytes)


def measure(name: str, batch_size: int, steps: int, gpu: bool) -> list[dict[str, Any]]:
    open_clip = import_open_clip()
    torch.manual_seed(0)
    model = open_clip.create_model(name)
    params = params_from_open_clip(model.state_dict())
    rng, size = np.random.default_rng(0), get_config(name).vision.image_size
    pixels = rng.integers(0, 256, (batch_size, size, size, 3), dtype=np.uint8)
    tokens = rng.integers(1, 49_000, (batch_size, 77)).astype(np.int32)
    tokens[:, 40] = 49_407
    kind: Literal["bfloat16", "float32"] = "bfloat16" if gpu else "float32"
    sides = {f"open_clip {kind}{', torch.compile' if gpu else ''}": torch_side(name, model, pixels, tokens, gpu)}
    plain = [ModelConfig(name, kind, "scan"), ModelConfig(name, kind, "unroll")]
    fused = [replace(compute, attention="cudnn") for compute in plain if gpu]
    for compute in [*plain, *fused]:
        label = f"clip_jax {kind}, {compute.layers}, {compute.attention}"
        sides[label] = jax_side(compute, params, pixels, tokens)
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    losses: dict[str, list[float]] = {side: [] for side in sides}
    for step in range(WARM_UPS + steps):
        for label, side in sides.items():
            start = time.perf_counter()
            losses[label].append(side.update())
            print(
                f"{label}: {time.perf_counter() - start:.2f} s, {'warm-up' if step < WARM_UPS else 'counted'}",
                file=sys.stderr,
            )
            if step >= WARM_UPS:
                seconds[label].append(time.perf_counter() - start)
    rows, reference = [], statistics.median(seconds[next(iter(sides))])
    config = TrainConfig(data=DataConfig(""), batch_size=batch_size)
    peak = peak_flops(jax.devices()[0].device_kind)
    for label, side in sides.items():
        median = statistics.median(seconds[label])
        row = {"model": name, "side": label, "seconds": median, "images_per_second": batch_size / median}
        row |= {"ratio": reference / median, "first_loss": losses[label][0], "last_loss": losses[label][-1]}
        if peak:
            row["mfu"] = mfu(config, get_config(name), batch_size / median, 1, peak)
        if gpu:
            row["peak_memory"] = side.peak()
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["ViT-B-32"])
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    gpu = torch.cuda.is_available() and jax.default_backend() == "gpu"
    packages = ", ".join(f"{package} {version(package)}" for package in ("jax", "torch", "open_clip_torch"))
    print(f"{jax.devices()[0].device_kind}, {platform.machine()}, {os.cpu_count()} cores; {packages}")
    figures = f"{'s/update':>9} {'images/s':>9} {'ratio':>6} {'MFU':>6} {'GiB':>6} {'losses':>16}"
    print(f"{'model':<10} {'side':<36} {figures}")
    rows = []
    for name in arguments.models:
        for row in measure(name, arguments.batch_size, arguments.steps, gpu):
            rows.append(row)
            share = f"{row['mfu']:.1%}" if "mfu" in row else "-"
            memory = f"{row['peak_memory'] / 2**30:.2f}" if "peak_memory" in row else "-"
            losses = f"{row['first_loss']:.4f} {row['last_loss']:.4f}"
            print(
                f"{name:<10} {row['side']:<36} {row['seconds']:>9.3f} {row['images_per_second']:>9.1f} "
                f"{row['ratio']:>6.2f} {share:>6} {memory:>6} {losses:>16}",
                flush=True,
            )
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
