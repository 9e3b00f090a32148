"""Training batches a second, by clip_jax's pipeline and open_clip's webdataset loader, from the same tar shards.

    python experiments/benchmarks/loader.py [--samples 2048] [--side 384 512] [--size 224] [--rounds 3] [--json FILE]

Needs open_clip_torch, pandas and 'webdataset<0.2.87', with which open_clip's loader works. Both make batches of 64
random resized crops (scale 0.9 to 1.0) with tokenised captions: open_clip with two workers, clip_jax with TensorFlow's
threads. They take turns; the median of the rounds counts, start-up and the first batches do not. Pictures are drawn
with the spectrum of photographs and saved at quality 85. Below the table: how far crops lie from those Pillow resizes
by a bicubic kernel, in levels of 255, and how much is left of a pattern too fine for the crop, which should be grey.
"""

import argparse
import io
import json
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
from support.open_clip_shim import import_open_clip  # pyright: ignore[reportMissingImports]

from clip_jax.data.order import Shuffle
from clip_jax.data.pipeline import make_pipeline
from clip_jax.data.pixels import WHOLE, make_pixels, tensorflow
from clip_jax.data.reader import Augmentation
from clip_jax.data.shards import Record, write_tar_shards
from clip_jax.data.tar import TarTable
from clip_jax.inputs.tokenizer import ClipTokenizer

BATCH_SIZE = 64
WARM_UPS = 4  # batches of a round that are not counted
WORDS = ("a photo of", "the red", "old", "small", "house", "near some trees", "under clouds", "with two dogs", "and")


def photograph(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Random pixels whose spectrum falls off as that of photographs does."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None])
    frequency[0, 0] = 1
    grey = rng.standard_normal((height, width))
    layers = [0.9 * grey + 0.3 * rng.standard_normal((height, width)) for _ in range(3)]
    smooth = [np.fft.ifft2(np.fft.fft2(layer) / frequency**1.4).real for layer in layers]
    pixels = np.stack([(layer - layer.mean()) / layer.std() * 55 + 120 for layer in smooth], axis=-1)
    return np.clip(pixels, 0, 255).astype(np.uint8)


def jpeg(pixels: np.ndarray, quality: int = 85) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "jpeg", quality=quality)
    return buffer.getvalue()


def write_shards(folder: Path, samples: int, side: tuple[int, int]) -> list[str]:
    rng = np.random.default_rng(0)
    pictures = [jpeg(photograph(rng, *side)) for _ in range(64)]

    def records() -> Iterator[Record]:
        for i in range(samples):
            yield Record(f"{i:06d}", pictures[i % 64], (" ".join(rng.choice(WORDS, 12)),))

    write_tar_shards(records(), folder, samples_per_shard=256)
    print(f"{samples} pictures of {side[1]} x {side[0]}, {np.mean([len(p) for p in pictures]) / 1e3:.0f} kB each")
    return sorted(map(str, folder.glob("*.tar")))


def ours(shards: list[str], size: int) -> Iterator[Any]:
    pipeline = make_pipeline(
        [(TarTable(shards), 1.0)], ClipTokenizer(77), size, BATCH_SIZE, 0, Shuffle(), Augmentation((0.9, 1.0))
    )
    return pipeline.batches(0, 10**6)


def open_clips(shards: list[str], size: int, samples: int) -> Iterator[Any]:
    open_clip = import_open_clip()
    from open_clip_train.data import get_wds_dataset

    folder = os.path.dirname(shards[0])
    numbers = [Path(shard).stem for shard in shards]
    arguments = SimpleNamespace(
        **{"train_data": f"{folder}/{{{numbers[0]}..{numbers[-1]}}}.tar", "train_num_samples": samples},
        **{"dataset_resampled": False, "train_data_upsampling_factors": None, "seed": 0, "workers": 2},
        **{"batch_size": BATCH_SIZE, "world_size": 1, "rank": 0, "local_rank": 0, "distributed": False},
        **{"use_naflex": False, "json_text_key": None, "json_text_key_probs": None, "dataset_type": "webdataset"},
    )
    transform = open_clip.image_transform(size, is_train=True, aug_cfg={"scale": (0.9, 1.0)})
    epoch = 0
    while True:
        data = get_wds_dataset(arguments, transform, True, epoch=epoch, tokenizer=open_clip.get_tokenizer("ViT-B-32"))
        yield from data.dataloader
        epoch += 1


def images_per_second(batches: Iterator[Any], count: int) -> float:
    for _ in range(WARM_UPS):
        next(batches)
    start = time.perf_counter()
    for _ in range(count):
        next(batches)
    return count * BATCH_SIZE / (time.perf_counter() - start)


def pixel_errors(side: tuple[int, int], size: int) -> dict[str, float]:
    """Mean difference from Pillow's bicubic resize of the same crops; what is left of a chequerboard."""
    tf = tensorflow()
    rng = np.random.default_rng(1)
    crop = np.array([side[0] // 32, side[1] // 32, side[0] * 15 // 16, side[1] * 15 // 16])
    board = np.repeat((np.indices(side).sum(axis=0) % 2 * 255).astype(np.uint8)[..., None], 3, axis=-1)
    top, left, height, width = crop.tolist()
    differences, contrast = [], 0.0
    for pixels in [*(photograph(rng, *side) for _ in range(16)), board]:
        data = jpeg(pixels, 100)
        made = make_pixels(
            tf, tf.constant(data), tf.constant(WHOLE), tf.constant(crop, tf.int32), tf.constant(False), None, size
        )
        box = (left, top, left + width, top + height)
        whole = Image.open(io.BytesIO(data)).convert("RGB")
        reference = np.asarray(whole.resize((size, size), Image.Resampling.BICUBIC, box=box))
        if pixels is board:
            contrast = float(np.std(made.numpy()))
        else:
            differences.append(np.abs(made.numpy().astype(int) - reference).mean())
    return {"mean_difference": float(np.mean(differences)), "chequerboard_deviation": contrast}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=2048)
    parser.add_argument("--side", type=int, nargs=2, default=(384, 512), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batches", type=int, default=20, help="batches a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    speeds: dict[str, list[float]] = {"open_clip, two workers": [], "clip_jax": []}
    with tempfile.TemporaryDirectory() as folder:
        shards = write_shards(Path(folder) / "shards", options.samples, tuple(options.side))
        for _ in range(options.rounds):
            theirs = open_clips(shards, options.size, options.samples)
            speeds["open_clip, two workers"].append(images_per_second(theirs, options.batches))
            theirs.close()  # pyright: ignore[reportAttributeAccessIssue]
            mine = ours(shards, options.size)
            speeds["clip_jax"].append(images_per_second(mine, options.batches))
            mine.close()  # pyright: ignore[reportAttributeAccessIssue]
    medians = {side: statistics.median(found) for side, found in speeds.items()}
    cores = len(os.sched_getaffinity(0))
    print(f"{'loader':<24} {'images/s':>9} {'a core':>7} {'ratio':>6}   rounds")
    for side, median in medians.items():
        rounds = ", ".join(f"{speed:.0f}" for speed in speeds[side])
        ratio = median / medians["open_clip, two workers"]
        print(f"{side:<24} {median:>9.0f} {median / cores:>7.0f} {ratio:>6.2f}   {rounds}")
    errors = pixel_errors(tuple(options.side), options.size)
    print(f"mean difference from Pillow's bicubic: {errors['mean_difference']:.2f} of 255")
    print(f"deviation of a chequerboard, 127 where nothing is averaged: {errors['chequerboard_deviation']:.2f}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    print(f"most memory of this process, both libraries and TensorFlow included: {peak:,.0f} MiB")
    if options.json:
        result = {"images_per_second": medians, "rounds": speeds, "cores": cores, "peak_mib": peak, **errors}
        options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
