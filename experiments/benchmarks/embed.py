"""Images a second of `clip-jax embed` beside the bare encoder's on pixels that are ready, in one run.

    python experiments/benchmarks/embed.py [--model ViT-B-32] [--images 10000] [--rounds 10] [--size 64] [--json FILE]

Random weights and JPEGs of random colours, in tars. The command's side does all that the command does but start Python
and load the model: it opens and fingerprints the data, reads, decodes, preprocesses, encodes, writes and joins shards.
The encoder's side is `Clip.encode_image` of float32 pixels in memory. The images are split over the rounds, in which
the sides take turns, so that a busy moment of the machine meets both; one round before is not counted. Processor time
is told too, which other programs disturb less. On a CPU decoding takes its time from the encoder, and no overlap can
hide it: what it costs alone is told beside.
"""

import argparse
import io
import json
import os
import statistics
import tempfile
import time
from itertools import pairwise
from pathlib import Path

os.environ["JAX_PLATFORMS"] = os.environ.get("JAX_PLATFORMS", "cpu")

import numpy as np
from PIL import Image

from clip_jax.clip import Clip, create
from clip_jax.data.shards import Record, write_tar_shards
from clip_jax.search.embed import Options, describe, embed, open_source
from clip_jax.search.target import target_of


def jpeg(number: int, size: int) -> bytes:
    """Random colours that change every eight pixels."""
    rng = np.random.default_rng(number)
    coarse = Image.fromarray(rng.integers(0, 256, (-(-size // 8), -(-size // 8), 3), np.uint8))
    content = io.BytesIO()
    coarse.resize((size, size), Image.Resampling.BICUBIC).save(content, "jpeg", quality=90)
    return content.getvalue()


def command(clip: Clip, data: Path, out: Path, batch_size: int) -> np.ndarray:
    source, spec = open_source(f"tar:{data}")
    description = describe(clip, "model", source, spec, Options())
    embed(clip, source, description, target_of(str(out)), batch_size)
    return np.load(out, mmap_mode="r")


def now() -> tuple[float, float]:
    """Seconds that have passed, and those that this process has had of the processors."""
    return time.perf_counter(), time.process_time()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="ViT-B-32")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--size", type=int, default=64, help="pixels of a side of the JPEGs (default: 64)")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--json", type=Path, help="where to write the results")
    arguments = parser.parse_args()

    clip = create(arguments.model)
    a_round = arguments.images // arguments.rounds
    seconds: dict[str, list[float]] = {"decoding alone": [], "encoder": [], "clip-jax embed": []}
    processor: dict[str, list[float]] = {name: [] for name in seconds}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(arguments.rounds + 1):
            first = number * a_round
            images = [jpeg(image, arguments.size) for image in range(first, first + a_round)]
            data = Path(folder) / f"data{number}"
            write_tar_shards((Record(f"{i:08d}", image, ()) for i, image in enumerate(images)), data)
            marks = [now()]
            pixels = clip.preprocess(images)
            marks.append(now())
            ready = clip.encode_image(pixels, normalize=True, batch_size=arguments.batch_size)
            marks.append(now())
            rows = command(clip, data, Path(folder) / f"{number}.npy", arguments.batch_size)
            marks.append(now())
            assert np.abs(rows - ready).max() < 1e-5
            if number:
                for name, (start, stop) in zip(seconds, pairwise(marks), strict=True):
                    seconds[name].append(stop[0] - start[0])
                    processor[name].append(stop[1] - start[1])
    print(f"{arguments.model}, {arguments.rounds} rounds of {a_round} JPEGs of {arguments.size} pixels a side", end="")
    print(f", batches of {arguments.batch_size}; load {os.getloadavg()[0]:.1f}\n")
    print(f"{'':16}{'images/s':>10}{'ratio':>8}{'CPU ms an image':>18}{'ratio':>8}   ratios of the rounds")
    results = {}
    spent = {name: statistics.median(times) / a_round for name, times in processor.items()}
    for name, times in seconds.items():
        ratios = [bare / one for bare, one in zip(seconds["encoder"], times, strict=True)]
        speed, ratio = a_round / statistics.median(times), statistics.median(ratios)
        of_processor = spent["encoder"] / spent[name]
        results[name] = {"images_per_second": speed, "ratio": ratio, "cpu_s": spent[name], "cpu_ratio": of_processor}
        rounds = ", ".join(f"{one:.2f}" for one in ratios)
        print(f"{name:16}{speed:10.1f}{ratio:8.2f}{1000 * spent[name]:18.1f}{of_processor:8.2f}   {rounds}")
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
