"""What of the input pipeline must not depend on where the data lies, how long it is, or how far a run has come.

    python experiments/benchmarks/loader_scale.py [--samples 4096] [--json FILE]

Prints: images a second from tars on a file system whose every request takes 50 ms, beside the same tars on disk, and
the requests an image; seconds to the first batch at the beginning and ten million steps into 100 million samples; and
memory of the process at the quarters of two epochs. Pictures are 384 x 512, batches 64 random crops of 224 pixels.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
sys.path.insert(0, str(Path(__file__).parent))
from loader import write_shards  # pyright: ignore[reportMissingImports]
from support.distant import distant_files  # pyright: ignore[reportMissingImports]

from clip_jax.data.order import Shuffle
from clip_jax.data.pipeline import Batch, make_pipeline
from clip_jax.data.reader import Augmentation
from clip_jax.data.spec import open_table
from clip_jax.data.table import Table
from clip_jax.inputs.tokenizer import ClipTokenizer

BATCH_SIZE = 64
LATENCY = 0.05  # seconds a request
SHUFFLE = Shuffle(block=64, window=8)  # of few samples, so that the epoch has several windows
FAR = 10_000_000  # steps


def batches(table: Table, start: int = 0, stop: int = 10**8) -> Iterator[Batch]:
    pipeline = make_pipeline([(table, 1.0)], ClipTokenizer(77), 224, BATCH_SIZE, 0, SHUFFLE, Augmentation())
    return pipeline.batches(start, stop)


def images_per_second(table: Table, count: int) -> float:
    found = batches(table)
    for _ in range(8):
        next(found)
    start = time.perf_counter()
    for _ in range(count):
        next(found)
    return count * BATCH_SIZE / (time.perf_counter() - start)


def distant(shards: list[str], samples: int) -> dict[str, Any]:
    count = 2 * samples // BATCH_SIZE
    with distant_files(LATENCY) as files:
        for shard in shards:
            files.store(f"bucket/{Path(shard).name}", Path(shard).read_bytes())
        far_table = open_table("tar:distant://bucket/*.tar")
        near_table = open_table(f"tar:{Path(shards[0]).parent}")
        rounds = []
        for _ in range(3):
            near = images_per_second(near_table, count)
            before = files.calls["read"]
            far = images_per_second(far_table, count)
            rounds.append((far / near, near, far, (files.calls["read"] - before) / (count * BATCH_SIZE)))
    ratio, near, far, requests = sorted(rounds)[1]
    print(f"on disk {near:.0f} images/s, 50 ms away {far:.0f}: {ratio:.0%}; a request for {1 / requests:.0f} images")
    return {"near": near, "far": far, "ratio": ratio, "requests_per_image": requests}


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
            resident = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1]) * 4096
            found.append(resident / 2**20)
    print("MiB at the quarters of two epochs: " + ", ".join(f"{size:,.0f}" for size in found))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=4096)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        shards = write_shards(Path(folder) / "shards", options.samples, (384, 512))
        result = {"memory_mib": memory(shards, options.samples), "distant": distant(shards, options.samples)}
    result |= first_batches()
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
