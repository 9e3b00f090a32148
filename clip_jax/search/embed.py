"""Embedding all of some data, in shards: by every device and process, and going on where it was stopped."""

import os
import shutil
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import jax
import numpy as np
from tqdm import tqdm

from clip_jax.clip import PROGRESS_AFTER_SECONDS, Clip
from clip_jax.data import files
from clip_jax.data.spec import open_table, parse_spec
from clip_jax.errors import UserError
from clip_jax.fingerprint import fingerprint_of
from clip_jax.processes import everywhere, from_first, is_first, wait_for_all
from clip_jax.search.description import SHARD, Description, read_description
from clip_jax.search.embedding_set import read_bad
from clip_jax.search.encoder import Encoder
from clip_jax.search.images import Images
from clip_jax.search.join import completed, join_npy, join_parquet
from clip_jax.search.shards import (
    DESCRIPTION,
    JOINED,
    Shard,
    begin,
    check_same,
    complete_shards,
    locked,
    write_kept,
    write_shard,
)
from clip_jax.search.source import Embedded, Source
from clip_jax.search.target import Target, found_complete
from clip_jax.search.texts import Captions, Lines

PATIENCE = 10  # seconds until a shared file system shows to one host what another has written
BATCH_SIZES = {"images": 64, "texts": 256}
LOCAL = ("tar", "folder", "csv", "tfrecord", "arrayrecord")  # kinds of data whose location is a path


@dataclass(frozen=True)
class Options:
    """How data are embedded. `dtype` is that of the rows, `shard` the samples that are kept together."""

    normalized: bool = True
    dtype: Literal["float32", "float16"] = "float32"
    shard: int = SHARD


@dataclass(frozen=True)
class Outcome:
    """A complete set, how many samples were embedded for it now, and in how many seconds."""

    description: Description
    samples: int
    seconds: float


def open_source(spec: str, texts: bool = False) -> tuple[Source, str]:
    """What a data spec names to be embedded, images or `texts`, and the spec with a whole path in it.

    For texts, a file that ends in .txt will do. All processes call it together: the first one writes the indexes that
    tars lack, which the others find then. Raises UserError.
    """
    first = _opened(spec, texts) if is_first() else None
    wait_for_all("the first process has opened the data")
    return first or _opened(spec, texts)


def _opened(spec: str, texts: bool) -> tuple[Source, str]:
    if spec.endswith(".txt") and os.path.isfile(os.path.expanduser(spec)):
        if not texts:
            raise UserError(f"{spec} is a text file; --texts embeds its lines")
        path = os.path.abspath(os.path.expanduser(spec))
        return Lines(path), path
    parsed = parse_spec(spec)
    table = open_table(spec)
    if not len(table):
        raise UserError(f"{spec} has no samples")
    place = parsed.location
    if parsed.kind in LOCAL and not files.is_remote(place):
        place = os.path.abspath(os.path.expanduser(place))
    options = "&".join(f"{key}={value}" for key, value in parsed.options)
    whole = f"{parsed.kind}:{place}{'?' if options else ''}{options}"
    return (Captions if texts else Images)(table), whole


def describe(clip: Clip, model: str, source: Source, spec: str, options: Options) -> Description:
    """The set that is to be. Raises UserError for options at fault."""
    if options.shard < 1:
        raise UserError(f"--shard {options.shard}: it must be at least 1")
    place = os.path.expanduser(model)
    return Description(
        model=os.path.abspath(place) if os.path.exists(place) else model,
        visual_digest=fingerprint_of(clip, "visual"),
        text_digest=fingerprint_of(clip, "text"),
        data=spec,
        data_digest=source.digest(spec),
        of=source.of,
        kind=source.kind,
        samples=len(source),
        shard=options.shard,
        width=clip.config.embed_dim,
        normalized=options.normalized,
        dtype=options.dtype,
        compute=clip.compute.dtype,
    )


def embed(
    clip: Clip, source: Source, description: Description, target: Target, batch_size: int | None = None
) -> Outcome:
    """Makes the set, or what it lacks. All processes call it together, and each embeds every so-many-th shard.

    They have to see the same place. Raises UserError where another set is there, where nothing in the data can be used,
    and where an embedding is not finite or too large for float16; IOFailure where the disk fails.
    """
    if batch_size is not None and batch_size < 1:
        raise UserError(f"--batch-size {batch_size}: it must be at least 1")
    started = time.monotonic()
    folder = target.folder
    there = found_complete(target, description)
    if not everywhere(there is None):
        if is_first() and folder != target.path and folder.exists():  # of a process killed at the very end
            with suppress(UserError), locked(folder):  # or one that is at it
                shutil.rmtree(folder, ignore_errors=True)
        return Outcome(there or description, 0, time.monotonic() - started)
    with locked(folder) if is_first() else nullcontext():
        if is_first():
            begin(folder, description)
        wait_for_all("the set is begun")
        _check_shared(folder, description)
        samples = 0
        if not from_first(int((folder / JOINED).exists())):  # hosts may see it at different times
            samples = _embed_missing(clip, source, description, folder, batch_size)
        wait_for_all("every shard is written")
        outcome = Outcome(description, samples, time.monotonic() - started)
        if is_first():
            outcome = Outcome(_complete(folder, target, description), samples, time.monotonic() - started)
        wait_for_all("the set is complete")
        return outcome


def _check_shared(folder: Path, description: Description) -> None:
    """Raises UserError where this process does not see what the first one wrote, or has another model or other data."""
    if not _comes_to_hold(lambda: folder.is_dir() and DESCRIPTION in os.listdir(folder)):
        raise UserError(f"{folder} is not there on process {jax.process_index()}; --out must be a place that all see")
    check_same(folder, read_description(folder / DESCRIPTION), description)


def _comes_to_hold(condition: Callable[[], bool]) -> bool:
    """Whether it holds before PATIENCE ends."""
    until = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.1)
    return True


def _embed_missing(clip: Clip, source: Source, description: Description, folder: Path, batch_size: int | None) -> int:
    """Embeds this process's share of the shards that are missing, and returns of how many samples they are."""
    done = complete_shards(folder)
    missing = [number for number in range(description.shards) if number not in done]
    wait_for_all("what is missing is known")
    own = [number for number in missing if number % jax.process_count() == jax.process_index()]
    ranges = [description.samples_of(number) for number in own]
    encoder = Encoder(clip, _fitting(batch_size, description), description.normalized)
    begun = description.samples - sum(len(description.samples_of(number)) for number in missing)
    total = description.samples
    hidden = not is_first()
    with (
        tqdm(
            total=total, initial=begun, unit=" samples", delay=PROGRESS_AFTER_SECONDS, leave=False, disable=hidden
        ) as progress,
        ThreadPoolExecutor(1) as writer,
    ):

        def advance(samples: int) -> None:
            progress.update(min(samples * jax.process_count(), total - progress.n))

        writing: Future[None] | None = None
        for number, found in zip(own, source.embed(encoder, ranges, advance), strict=True):
            shard = Shard(number, _stored(found, description), found.keys, found.bad)
            if writing:
                writing.result()
            writing = writer.submit(write_shard, folder, shard)
        if writing:
            writing.result()
    return sum(map(len, ranges))


def _fitting(batch_size: int | None, description: Description) -> int:
    """As many rows as are encoded together: no more than there are samples in a shard."""
    return min(batch_size or BATCH_SIZES[description.of], len(description.samples_of(0)))


def _stored(found: Embedded, description: Description) -> np.ndarray:
    """The rows as they are kept."""
    with np.errstate(over="ignore"):
        rows = found.embeddings.astype(description.dtype)
    usable = np.isfinite(rows).all(axis=1) & rows.any(axis=1)
    if not usable.all():
        bad = int(np.argmin(usable))
        key = found.keys[bad]["key"]
        if np.isfinite(found.embeddings[bad]).all() and found.embeddings[bad].any():
            size = "large" if rows[bad].any() else "small"
            raise UserError(f"the embedding of {key} is too {size} for float16; choose --dtype float32")
        raise UserError(f"the model's embedding of {key} is zero or not finite; its weights or --compute are at fault")
    return rows


def _complete(folder: Path, target: Target, description: Description) -> Description:
    def missing() -> set[int]:
        return set(range(description.shards)) - complete_shards(folder)

    if not (folder / JOINED).exists() and not _comes_to_hold(lambda: not missing()):
        raise UserError(f"{len(missing())} shards are not in {folder}; --out must be a place that all processes see")
    whole = completed(folder, description)
    if whole.rows == 0:
        first = read_bad(folder, 1)[0]
        told = f"the first is {first['key']}: {first['reason']}"
        raise UserError(f"of {whole.samples:,} samples none can be used, {told}")
    if target.format == "npy":
        join_npy(folder, target.path, whole)
    elif target.format == "parquet":
        join_parquet(folder, target.path, whole)
    else:
        write_kept(folder / DESCRIPTION, whole.to_json().encode())
    return whole
