"""Seconds of an update, by clip_jax and by open_clip, side by side in one run, with the losses of both.

    python experiments/benchmarks/train_step.py [--models ViT-B-32] [--batch-size 32] [--steps 5] [--json FILE]

Needs open_clip_torch. On a CPU in float32; where JAX and torch both have a GPU, in bfloat16 against open_clip under
torch.compile and autocast, with peak memory and MFU. Both sides begin with the same weights and see the same batches;
an update is both towers, the softmax loss, the backward pass and AdamW. Compilation and two updates are left out.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # torch shares the GPU

import jax
import jax.numpy as jnp
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
from support.open_clip_shim import import_open_clip  # pyright: ignore[reportMissingImports]
from support.torch_clip import params_from_open_clip  # pyright: ignore[reportMissingImports]

from clip_jax.presets import get_config
from clip_jax.sharding import MeshConfig, make_mesh
from clip_jax.training.chips import peak_flops
from clip_jax.training.config import DataConfig, ModelConfig, OptimizerConfig, TrainConfig
from clip_jax.training.optimizer import make_optimizer
from clip_jax.training.state import abstract_state, begin
from clip_jax.training.step import make_step, normalise_pixels
from clip_jax.training.step_flops import mfu

WARM_UPS = 2
OPTIMIZER = OptimizerConfig(learning_rate=1e-4, warmup=0)


def torch_side(name: str, model: Any, gpu: bool) -> Callable[[Any, Any], float]:
    from open_clip.loss import ClipLoss

    settings = get_config(name).preprocess
    device = "cuda" if gpu else "cpu"
    model = model.to(device).train()
    run = torch.compile(model) if gpu else model
    plain = [p for p in model.parameters() if p.ndim < 2]
    decayed = [p for p in model.parameters() if p.ndim >= 2]
    groups = [{"params": plain, "weight_decay": 0.0}, {"params": decayed, "weight_decay": OPTIMIZER.weight_decay}]
    betas = (OPTIMIZER.b1, OPTIMIZER.b2)
    optimizer = torch.optim.AdamW(groups, lr=OPTIMIZER.learning_rate, betas=betas, eps=OPTIMIZER.epsilon, fused=gpu)
    loss_of = ClipLoss()

    def update(pixels: np.ndarray, tokens: np.ndarray) -> float:
        images = np.asarray(normalise_pixels(jnp.asarray(pixels), settings)).transpose(0, 3, 1, 2)
        on_device = torch.tensor(images, device=device), torch.tensor(tokens, device=device)
        with torch.autocast(device, torch.bfloat16, enabled=gpu):
            image, text, scale, *_ = run(*on_device)
            loss = loss_of(image, text, scale)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return float(loss.item())

    return update


def jax_side(name: str, params: Any, batch_size: int, gpu: bool, layers: Any) -> Callable[[Any, Any], float]:
    model = get_config(name)
    config = TrainConfig(
        data=DataConfig(""),
        steps=1_000_000,  # so that the learning rate stays
        batch_size=batch_size,
        model=ModelConfig(name, "bfloat16" if gpu else "float32", layers),
        optimizer=OPTIMIZER,
    )
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    optimizer = make_optimizer(config.optimizer, config.steps)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract_state(model, optimizer, mesh))
    state = jax.jit(lambda params: begin(params, optimizer), out_shardings=shardings)(params)
    step = make_step(config, model, optimizer, mesh, shardings)

    def update(pixels: np.ndarray, tokens: np.ndarray) -> float:
        nonlocal state
        state, figures = step(state, pixels, tokens)
        return float(figures["loss"])

    return update


def measure(name: str, batch_size: int, steps: int, gpu: bool) -> list[dict[str, Any]]:
    open_clip = import_open_clip()
    torch.manual_seed(0)
    model = open_clip.create_model(name)
    params = params_from_open_clip(model.state_dict())
    kind = "bfloat16" if gpu else "float32"
    sides = {
        f"open_clip {kind}{', torch.compile' if gpu else ''}": torch_side(name, model, gpu),
        f"clip_jax {kind}, scan": jax_side(name, params, batch_size, gpu, "scan"),
        f"clip_jax {kind}, unroll": jax_side(name, params, batch_size, gpu, "unroll"),
    }
    rng, size = np.random.default_rng(0), get_config(name).vision.image_size
    pixels = rng.integers(0, 256, (batch_size, size, size, 3), dtype=np.uint8)
    tokens = rng.integers(1, 49_000, (batch_size, 77)).astype(np.int32)
    tokens[:, 40] = 49_407
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    losses: dict[str, list[float]] = {side: [] for side in sides}
    for step in range(WARM_UPS + steps):
        for side, update in sides.items():
            start = time.perf_counter()
            losses[side].append(update(pixels, tokens))
            if step >= WARM_UPS:
                seconds[side].append(time.perf_counter() - start)
    rows, reference = [], statistics.median(seconds[next(iter(sides))])
    config = TrainConfig(data=DataConfig(""), batch_size=batch_size)
    peak = peak_flops(jax.devices()[0].device_kind)
    for side in sides:
        median = statistics.median(seconds[side])
        row = {"model": name, "side": side, "seconds": median, "images_per_second": batch_size / median}
        row |= {"ratio": reference / median, "first_loss": losses[side][0], "last_loss": losses[side][-1]}
        if peak:
            row["mfu"] = mfu(config, get_config(name), batch_size / median, 1, peak)
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
    print(f"{'model':<10} {'side':<36} {'s/update':>9} {'images/s':>9} {'ratio':>6} {'MFU':>6} {'losses':>16}")
    rows = []
    for name in arguments.models:
        for row in measure(name, arguments.batch_size, arguments.steps, gpu):
            rows.append(row)
            share = f"{row['mfu']:.1%}" if "mfu" in row else "-"
            losses = f"{row['first_loss']:.4f} {row['last_loss']:.4f}"
            print(
                f"{name:<10} {row['side']:<36} {row['seconds']:>9.3f} {row['images_per_second']:>9.1f} "
                f"{row['ratio']:>6.2f} {share:>6} {losses:>16}",
                flush=True,
            )
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
