"""Training batches a second, by clip_jax's pipeline and open_clip's webdataset loader, from the same tar shards.

    python experiments/benchmarks/loader.py [--samples 2048] [--side 384 512] [--size 224] [--rounds 3] [--json FILE]

Needs open_clip_torch, pandas and 'webdataset<0.2.87', with which open_clip's loader works. Both make batches of 64
random resized crops (scale 0.9 to 1.0) with tokenised captions: open_clip with two workers, clip_jax with TensorFlow's
threads. They take turns, each round in a process of its own; the median of the rounds counts, start-up and the first
batches do not. Memory is that of the process and its workers at the end of a round, pages they share counted once, and
so with PyTorch or TensorFlow. Pictures are drawn with the spectrum of photographs and saved at quality 85. Below the
table: how far crops lie from those Pillow resizes by a bicubic kernel, in levels of 255, and how much is left of a
pattern too fine for the crop, which should be grey, for each way in which JPEGs are decoded. These crops end at whole
pixels of the scale that JPEGs are decoded at, where the pipeline moves them.
"""

import argparse
import io
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
from support.open_clip_shim import import_open_clip  # pyright: ignore[reportMissingImports]

from clip_jax.data.lazy_tensorflow import tensorflow
from clip_jax.data.order import Shuffle
from clip_jax.data.pipeline import make_pipeline
from clip_jax.data.pixels import decode, jpeg_branches, make_pixels
from clip_jax.data.reader import Augmentation
from clip_jax.data.shards import Record, write_tar_shards
from clip_jax.data.tar import TarTable
from clip_jax.inputs.tokenizer import ClipTokenizer

BATCH_SIZE = 64
SIDES = ((256, 342), (384, 512), (512, 683), (1024, 1366), (2048, 2731))  # from nearly the square's to an eighth
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


def saved(pixels: np.ndarray, form: str = "jpeg", quality: int = 85) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form, quality=quality)
    return buffer.getvalue()


def write_shards(folder: Path, samples: int, side: tuple[int, int], form: str = "jpeg", bad: float = 0.0) -> list[str]:
    """Shards of 256 samples, a share of them cut in the middle."""
    rng = np.random.default_rng(0)
    pictures = [saved(photograph(rng, *side), form) for _ in range(64)]

    def records() -> Iterator[Record]:
        for i in range(samples):
            picture = pictures[i % 64]
            image = picture[: len(picture) // 2] if rng.random() < bad else picture
            yield Record(f"{i:06d}", image, (" ".join(rng.choice(WORDS, 12)),), extension=form)

    write_tar_shards(records(), folder, samples_per_shard=256)
    size = np.mean([len(picture) for picture in pictures]) / 1e3
    print(f"{samples} {form} pictures of {side[1]} x {side[0]}, {size:.0f} kB each, {bad:.0%} of them cut")
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


def one_round(loader: Callable[..., Iterator[Any]], arguments: tuple[Any, ...], count: int) -> tuple[float, float]:
    """Images a second, and the MiB of memory of this process and its workers."""
    multiprocessing.set_start_method("fork", force=True)  # that of open_clip's workers, which cannot be pickled
    batches = loader(*arguments)
    for _ in range(WARM_UPS):
        next(batches)
    start = time.perf_counter()
    for _ in range(count):
        next(batches)
    speed = count * BATCH_SIZE / (time.perf_counter() - start)
    own = os.getpid()
    children = Path(f"/proc/{own}/task/{own}/children").read_text(encoding="utf-8").split()
    return speed, sum(map(memory_mib, ["self", *children]))


def memory_mib(process: str) -> float:
    """Of one process, its part of the pages that it shares included."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text(encoding="utf-8").splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 2**10


def in_own_process(*arguments: Any) -> tuple[float, float]:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(one_round, *arguments).result()


def pixel_errors(side: tuple[int, int], size: int) -> dict[str, Any]:
    """How JPEGs of `side` are decoded, how far from Pillow's bicubic of the same crops, and a chequerboard's rest."""
    tf = tensorflow()
    rng = np.random.default_rng(1)
    crop = np.array([side[0] // 33, side[1] // 31, side[0] * 15 // 16, side[1] * 15 // 16]) // 8 * 8
    (branch,) = jpeg_branches(crop[None], np.array([True]), size)
    board = np.repeat((np.indices(side).sum(axis=0) % 2 * 255).astype(np.uint8)[..., None], 3, axis=-1)
    top, left, height, width = crop.tolist()
    differences, contrasts = [], (0.0, 0.0)
    for pixels in [*(photograph(rng, *side) for _ in range(4)), board]:
        data = saved(pixels, quality=100)
        part = decode(tf, tf.constant(data), tf.constant(branch), tf.constant(crop, tf.int32))
        made = make_pixels(tf, part, tf.constant(False), None, size).numpy()
        box = (left, top, left + width, top + height)
        whole = Image.open(io.BytesIO(data)).convert("RGB")
        reference = np.asarray(whole.resize((size, size), Image.Resampling.BICUBIC, box=box))
        if pixels is board:
            contrasts = float(np.std(made)), float(np.std(reference))
        else:
            differences.append(np.abs(made.astype(int) - reference).mean())
    found = {"scale": 2 ** (int(branch) - 1), "mean_difference": float(np.mean(differences))}
    return {"side": list(side), **found, "chequerboard": contrasts[0], "chequerboard_pillow": contrasts[1]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=2048)
    parser.add_argument("--side", type=int, nargs=2, default=(384, 512), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batches", type=int, default=20, help="batches a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        shards = write_shards(Path(folder) / "shards", options.samples, tuple(options.side))
        loaders = {
            "open_clip, two workers": (open_clips, (shards, options.size, options.samples)),
            "clip_jax": (ours, (shards, options.size)),
        }
        rounds = {name: [] for name in loaders}
        for _ in range(options.rounds):
            for name, loader in loaders.items():
                rounds[name].append(in_own_process(*loader, options.batches))
    speeds = {name: statistics.median(speed for speed, _ in found) for name, found in rounds.items()}
    memory = {name: max(mib for _, mib in found) for name, found in rounds.items()}
    cores = len(os.sched_getaffinity(0))
    print(f"{'loader':<24} {'images/s':>9} {'a core':>7} {'ratio':>6} {'MiB':>6}   rounds")
    for name, speed in speeds.items():
        found = ", ".join(f"{one:.0f}" for one, _ in rounds[name])
        ratio = speed / speeds["open_clip, two workers"]
        print(f"{name:<24} {speed:>9.0f} {speed / cores:>7.0f} {ratio:>6.2f} {memory[name]:>6.0f}   {found}")
    errors = [pixel_errors(side, options.size) for side in SIDES]
    print(f"\n{'JPEG':<12} {'decoded at':>10} {'from bicubic':>12} {'chequerboard':>12} {'of Pillow':>9}")
    for one in errors:
        name, scale = f"{one['side'][0]} x {one['side'][1]}", f"1/{one['scale']}"
        board = f"{one['chequerboard']:>12.1f} {one['chequerboard_pillow']:>9.1f}"
        print(f"{name:<12} {scale:>10} {one['mean_difference']:>12.2f} {board}")
    if options.json:
        result = {"images_per_second": speeds, "rounds": rounds, "cores": cores, "mib": memory, "errors": errors}
        options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
