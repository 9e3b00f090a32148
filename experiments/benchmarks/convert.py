"""Seconds and peak memory of converting a model between layouts, each conversion in a process of its own.

    python experiments/benchmarks/convert.py [--model ViT-L-14] [--json FILE]

The bound on memory is 1.5 times the larger file plus 300 MiB. Random weights; the .pt files are written by torch,
which is not needed otherwise. Reading is from the page cache, since the files were just written.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["TQDM_DISABLE"] = "1"

import clip_jax

MIB = 2**20
# What is read, and the layout that is written.
CONVERSIONS = (
    ("open_clip.safetensors", "clip_jax"),
    ("open_clip.pt", "clip_jax"),
    ("half.pt", "clip_jax"),
    ("clip_jax", "open_clip"),
    ("clip_jax", "hf"),
    ("open_clip.safetensors", "hf"),
    ("hf", "open_clip"),
)
# Prints the seconds, and the peak of resident memory in MiB: Linux's VmHWM, since what getrusage tells begins with the
# peak of the process that started this one.
CHILD = """
import sys, time
from clip_jax.cli.main import main
start = time.perf_counter()
main(sys.argv[1:])
peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) / 1024
print("MEASURED", time.perf_counter() - start, peak)
"""


def write_sources(folder: Path, model: str) -> None:
    """The model in every form that is converted from."""
    clip = clip_jax.create(model)
    for layout in ("clip_jax", "hf"):
        clip_jax.save(clip, folder / layout, layout)
    clip_jax.save(clip, folder / "whole", "open_clip")
    (folder / "whole" / "open_clip_model.safetensors").rename(folder / "open_clip.safetensors")

    import torch
    from safetensors.torch import load_file

    tensors = load_file(folder / "open_clip.safetensors")
    torch.save({"state_dict": tensors}, folder / "open_clip.pt")
    torch.save({name: tensor.half() for name, tensor in tensors.items()}, folder / "half.pt")


def measure(source: Path, target: Path, layout: str, model: str) -> dict[str, Any]:
    """One conversion in a fresh process."""
    arguments = ["convert", str(source), str(target), "--to", layout]
    if source.is_file():
        arguments += ["--model", model]
    started = time.perf_counter()
    result = subprocess.run([sys.executable, "-c", CHILD, *arguments], capture_output=True, text=True, check=True)
    whole = time.perf_counter() - started
    seconds, peak = map(float, result.stdout.split("MEASURED")[1].split())
    larger = max(weights_size(source), weights_size(target)) / MIB
    return {
        "source": source.name,
        "layout": layout,
        "seconds": seconds,
        "process_seconds": whole,
        "peak_mib": peak,
        "larger_file_mib": larger,
        "bound_mib": 1.5 * larger + 300,
    }


def weights_size(path: Path) -> int:
    """Bytes of a file of weights, or of those in a folder."""
    return path.stat().st_size if path.is_file() else max(file.stat().st_size for file in path.iterdir())


def main() -> None:
    parser = argparse.ArgumentParser(description="Seconds and peak memory of conversions.")
    parser.add_argument("--model", default="ViT-L-14", choices=clip_jax.list_models(), metavar="NAME")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_sources(folder, options.model)
        rows = []
        for source, layout in CONVERSIONS:
            rows.append(measure(folder / source, folder / "target", layout, options.model))
            for file in (folder / "target").iterdir():
                file.unlink()
            (folder / "target").rmdir()

    load = round(os.getloadavg()[0], 1)
    print(f"{options.model}, {platform.machine()}, {os.cpu_count()} cores, load {load}")
    print(f"{'from':24} {'to':10} {'seconds':>8} {'process':>8} {'peak MiB':>9} {'bound MiB':>10}")
    for row in rows:
        print(
            f"{row['source']:24} {row['layout']:10} {row['seconds']:8.1f} {row['process_seconds']:8.1f} "
            f"{row['peak_mib']:9.0f} {row['bound_mib']:10.0f}"
        )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
