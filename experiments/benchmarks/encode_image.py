"""Seconds that a CPU takes to encode a batch of images, by clip_jax and by open_clip, side by side in one run.

    python experiments/benchmarks/encode_image.py [--model ViT-B-32] [--batch-size 32] [--repetitions 7] [--json FILE]

Needs open_clip_torch. Both sides get the same weights and float32 pixels that are preprocessed already. Compilation
and two warm-up passes are left out; after that the sides take turns, so that a busy moment of the machine meets all of
them. The peak of square float32 matrix products tells how much head room the hardware leaves. Features are compared
too, since a fast wrong answer is worth nothing.
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

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["TQDM_DISABLE"] = "1"

import jax
import jax.numpy as jnp
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
from support.open_clip_shim import import_open_clip  # pyright: ignore[reportMissingImports]
from support.torch_clip import params_from_open_clip  # pyright: ignore[reportMissingImports]

from clip_jax.clip import Clip
from clip_jax.config import ClipConfig, ComputeConfig
from clip_jax.model_size import flops
from clip_jax.presets import get_config, list_models

REFERENCE = "open_clip float32"
COMPUTES = {
    "clip_jax float32, unroll": ComputeConfig(),
    "clip_jax float32, scan": ComputeConfig(layers="scan"),
    "clip_jax bfloat16, unroll": ComputeConfig(dtype="bfloat16"),
}
MATRIX = 2048
WARM_UPS = 2


def torch_side(model: Any, pixels: np.ndarray, bfloat16: bool) -> Callable[[], np.ndarray]:
    images = torch.tensor(pixels).permute(0, 3, 1, 2).contiguous()

    def encode() -> np.ndarray:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            return model.encode_image(images).float().numpy()

    return encode


def jax_side(config: ClipConfig, compute: ComputeConfig, params: Any, pixels: np.ndarray) -> Callable[[], np.ndarray]:
    if compute.dtype == "bfloat16":  # as clip_jax.load(..., dtype="bfloat16") does
        params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.bfloat16), params)
    clip = Clip(config, params, compute)
    return lambda: clip.encode_image(pixels, batch_size=len(pixels))


def take_turns(sides: dict[str, Callable[[], Any]], repetitions: int) -> dict[str, list[float]]:
    """Seconds of every repetition by side."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for repetition in range(WARM_UPS + repetitions):
        for name, side in sides.items():
            start = time.perf_counter()
            side()
            if repetition >= WARM_UPS:
                times[name].append(time.perf_counter() - start)
    return times


def matmul_sides() -> dict[str, Callable[[], Any]]:
    left, right = np.random.default_rng(0).standard_normal((2, MATRIX, MATRIX), np.float32)
    jax_pair, torch_pair = (jnp.asarray(left), jnp.asarray(right)), (torch.tensor(left), torch.tensor(right))
    product = jax.jit(jnp.matmul)
    return {
        "jax": lambda: jax.block_until_ready(product(*jax_pair)),
        "torch": lambda: torch.matmul(*torch_pair),
    }


def cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]}, {len(names)} logical cores" if names else platform.processor()


def measure(name: str, batch_size: int, repetitions: int) -> dict[str, Any]:
    config = get_config(name)
    torch.manual_seed(0)
    model = import_open_clip().create_model(name).eval()
    params = params_from_open_clip(model.state_dict())
    size = config.vision.image_size
    pixels = np.random.default_rng(0).standard_normal((batch_size, size, size, 3)).astype(np.float32)
    sides = {
        REFERENCE: torch_side(model, pixels, bfloat16=False),
        "open_clip bfloat16 autocast": torch_side(model, pixels, bfloat16=True),
    }
    sides |= {label: jax_side(config, compute, params, pixels) for label, compute in COMPUTES.items()}
    expected = sides[REFERENCE]()
    errors = {label: float(np.abs(side() - expected).max() / np.abs(expected).max()) for label, side in sides.items()}
    times = take_turns(sides, repetitions)
    peaks = {label: 2 * MATRIX**3 / min(seconds) for label, seconds in take_turns(matmul_sides(), repetitions).items()}
    reference = statistics.median(times[REFERENCE])
    rows = {
        label: {
            "median_seconds": statistics.median(seconds),
            "min_seconds": min(seconds),
            "images_per_second": batch_size / statistics.median(seconds),
            "times_open_clip_float32": reference / statistics.median(seconds),
            "gigaflops": flops(config).image * batch_size / statistics.median(seconds) / 1e9,
            "relative_error": errors[label],
        }
        for label, seconds in times.items()
    }
    return {
        "model": name,
        "batch_size": batch_size,
        "repetitions": repetitions,
        "cpu": cpu_model(),
        "torch_threads": torch.get_num_threads(),
        "versions": {package: version(package) for package in ("jax", "jaxlib", "flax", "torch", "open_clip_torch")},
        "matmul_float32_gigaflops": {label: peak / 1e9 for label, peak in peaks.items()},
        "results": rows,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="ViT-B-32", choices=[name for name in list_models() if "tiny" not in name])
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--repetitions", type=int, default=7, help="timed passes of each side")
    parser.add_argument("--json", type=Path, help="where to write the results")
    arguments = parser.parse_args()

    result = measure(arguments.model, arguments.batch_size, arguments.repetitions)
    print(f"{result['model']}, batches of {result['batch_size']}, {result['repetitions']} repetitions")
    print(f"{result['cpu']}; {result['torch_threads']} torch threads")
    print(", ".join(f"{package} {number}" for package, number in result["versions"].items()))
    peaks = ", ".join(f"{peak:.0f} GFLOP/s by {label}" for label, peak in result["matmul_float32_gigaflops"].items())
    print(f"float32 matrix products of {MATRIX} x {MATRIX}: {peaks}\n")
    print(f"{'':28}{'median s':>9}{'min s':>8}{'images/s':>10}{'GFLOP/s':>9}{'ratio':>7}{'error':>10}")
    for label, row in result["results"].items():
        print(
            f"{label:28}{row['median_seconds']:9.3f}{row['min_seconds']:8.3f}{row['images_per_second']:10.1f}"
            f"{row['gigaflops']:9.0f}{row['times_open_clip_float32']:7.2f}{row['relative_error']:10.1e}"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
