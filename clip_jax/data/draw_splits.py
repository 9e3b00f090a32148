"""Drawing the splits of the drawn scenes to disk, as the tar shards that training reads."""

import dataclasses
import json
import os
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path

from clip_jax.data.scenes import ScenesTable, Split
from clip_jax.data.shards import DESCRIPTION, Record, write_tar_shards
from clip_jax.data.table import usable
from clip_jax.errors import UserError

CHUNK = 256


def draw_splits(folder: Path, images: dict[Split, int], seed: int, image_size: int) -> None:
    """Draws each split that `folder` lacks into `folder/SPLIT/*.tar`, on every core.

    A split appears whole or not at all. The images are a pure function of (seed, split), not of the number of cores.
    Raises UserError where a split is there already but was drawn otherwise, and where the processes that draw end.
    """
    shared = {"seed": seed, "image_size": image_size}
    missing: dict[Split, dict[str, int]] = {}
    for split, count in images.items():
        wanted = {"images": count, **shared}
        if not is_drawn(folder / split, wanted):
            missing[split] = wanted
    if not missing:
        return
    try:
        # Workers are started afresh: a fork of a process in which JAX or TensorFlow run threads may hang.
        with ProcessPoolExecutor(os.cpu_count(), get_context("spawn"), _end_with, (os.getpid(),)) as pool:
            for split, wanted in missing.items():
                _draw_split(pool, folder / split, split, wanted)
    except BrokenProcessPool as error:
        raise UserError(
            "the processes that draw have ended: for lack of memory, or because the script that is run, which they "
            "import, does not do what it does below `if __name__ == '__main__':`"
        ) from error


def _draw_split(pool: ProcessPoolExecutor, folder: Path, split: Split, wanted: dict[str, int]) -> None:
    table = ScenesTable(split, wanted["images"], wanted["seed"], wanted["image_size"])
    chunks = [range(start, min(start + CHUNK, len(table))) for start in range(0, len(table), CHUNK)]
    records = (record for chunk in pool.map(_draw, [table] * len(chunks), chunks) for record in chunk)
    write_tar_shards(records, folder, class_names=table.class_names, total=len(table), description=wanted)


def is_drawn(folder: Path, wanted: dict[str, int]) -> bool:
    """Whether a split is there as `wanted`. Raises UserError where it was drawn otherwise."""
    if not folder.is_dir():
        return False
    try:
        found = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = None
    if found != wanted:
        raise UserError(f"{folder} was drawn with {found}, not {wanted}; choose another folder, or remove it")
    return True


def _end_with(parent: int) -> None:
    """Ends this worker when its parent is gone, even if that was killed and could not say so."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _draw(table: ScenesTable, indices: range) -> list[Record]:
    records = []
    for index, sample in zip(indices, usable(table.read(indices)), strict=True):
        scene = table.scene(index)
        metadata = {
            "kind": scene.kind,
            "background": scene.background,
            "objects": [dataclasses.asdict(sprite) for sprite in scene.sprites],
        }
        records.append(Record(sample.key, sample.image, sample.captions, metadata, sample.label))
    return records
