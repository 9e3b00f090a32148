"""What of the input pipeline must not depend on where the data lies, how long it is, or how far a run has come.

    python experiments/benchmarks/loader_scale.py [--samples 8192] [--side 384 512] [--json FILE]

Prints: images a second from tars on a file system whose every request takes 50 ms, beside the same tars on disk, with
the seconds to the first batch, the requests an image and the most memory, each in a process of its own; the same where
2 % of the JPEGs are cut, and of WebP pictures; seconds to the first batch at the beginning and ten million steps into
100 million samples; and memory at the quarters of two epochs. Batches are 64 random crops of 224 pixels,
in training's usual order, whose windows are 4,096 samples.
"""

import argparse
import json
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
sys.path.insert(0, str(Path(__file__).parent))
from loader import memory_mib, write_shards  # pyright: ignore[reportMissingImports]
from support.distant import distant_files  # pyright: ignore[reportMissingImports]

from clip_jax.data.order import Shuffle
from clip_jax.data.pipeline import Batch, make_pipeline
from clip_jax.data.reader import Augmentation
from clip_jax.data.spec import open_table
from clip_jax.data.table import Table
from clip_jax.inputs.tokenizer import ClipTokenizer

BATCH_SIZE = 64
LATENCY = 0.05  # seconds a request
KINDS = (("jpeg", 0.0), ("jpeg", 0.02), ("webp", 0.0))  # of pictures, and the share that is cut
FAR = 10_000_000  # steps


def batches(table: Table, start: int = 0, stop: int = 10**8) -> Iterator[Batch]:
    pipeline = make_pipeline([(table, 1.0)], ClipTokenizer(77), 224, BATCH_SIZE, 0, Shuffle(), Augmentation())
    return pipeline.batches(start, stop)


def measure(shards: list[str], is_far: bool, count: int) -> dict[str, float]:
    """Of reading `count` batches here; `mib` is the most memory without what stands in for the bucket."""
    with distant_files(LATENCY) as files:
        for shard in shards if is_far else []:
            files.store(f"bucket/{Path(shard).name}", Path(shard).read_bytes())
        stored = sum(map(len, files.contents.values())) / 2**20
        table = open_table("tar:distant://bucket/*.tar" if is_far else f"tar:{Path(shards[0]).parent}")
        files.calls.clear()  # those that made the index
        start = time.perf_counter()
        found = batches(table)
        next(found)
        first = time.perf_counter() - start
        for _ in range(8):
            next(found)
        start = time.perf_counter()
        for _ in range(count):
            next(found)
        seconds = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10 - stored
        requests = files.calls["read"] / ((count + 9) * BATCH_SIZE)
        return {"speed": count * BATCH_SIZE / seconds, "first": first, "requests": requests, "mib": peak}


def places(shards: list[str], count: int, rounds: int) -> dict[str, dict[str, float]]:
    """The round whose ratio of far to near is the median one."""
    found = []
    for _ in range(rounds):
        pair = {}
        for name, is_far in (("near", False), ("far", True)):
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                pair[name] = pool.submit(measure, shards, is_far, count).result()
        found.append(pair)
    return sorted(found, key=lambda pair: pair["far"]["speed"] / pair["near"]["speed"])[rounds // 2]


def first_batches() -> dict[str, float]:
    table, found = open_table("synthetic:100000000"), {}
    next(batches(table))  # TensorFlow is imported, and has compiled what it does
    for name, step in (("first batch of a run", 0), (f"first batch at step {FAR:,}", FAR)):
        start = time.perf_counter()
        next(batches(table, step))
        found[name] = time.perf_counter() - start
        print(f"{name}: {found[name]:.2f} s")
    return found


def memory(shards: list[str], samples: int) -> list[float]:
    epoch, found = samples // BATCH_SIZE, []
    for step, _ in enumerate(batches(open_table(f"tar:{Path(shards[0]).parent}"), 0, 2 * epoch), 1):
        if step % (epoch // 4) == 0:
            found.append(memory_mib("self"))
    print("MiB at the quarters of two epochs: " + ", ".join(f"{size:,.0f}" for size in found))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=8192)
    parser.add_argument("--side", type=int, nargs=2, default=(384, 512), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    result: dict[str, Any] = {"kinds": []}
    for form, bad in KINDS:
        with tempfile.TemporaryDirectory() as folder:
            shards = write_shards(Path(folder) / "shards", options.samples, tuple(options.side), form, bad)
            found = places(shards, options.samples // BATCH_SIZE, options.rounds)
            result["kinds"].append({"form": form, "bad": bad, **found})
            for name, one in found.items():
                line = f"{one['speed']:.0f} images/s, the first batch after {one['first']:.1f} s, {one['mib']:,.0f} MiB"
                print(f"{name:<5} {line}" + (f", {one['requests']:.3f} requests an image" if name == "far" else ""))
            if not result.get("memory_mib"):
                result["memory_mib"] = memory(shards, options.samples)
    result |= first_batches()
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
