"""What a model makes of a whole table: embedded once, by every process and every device, and kept on disk.

Every evaluation begins with it, and needs neither the images nor the image tower afterwards.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress, pairwise
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Float32, Int
from tqdm import tqdm

from clip_jax.clip import PROGRESS_AFTER_SECONDS, Clip
from clip_jax.data.decoded import read_ahead
from clip_jax.data.fingerprint import fingerprint
from clip_jax.data.table import BadSample, Table
from clip_jax.errors import UserError
from clip_jax.evaluation.feature_store import FeatureStore, fingerprint_of_texts
from clip_jax.inputs.prompts import prompts_of
from clip_jax.processes import everywhere, is_first, joined, of_all

CHUNK = 4096  # samples that are embedded, and then kept, together
NO_LABEL = -1


@dataclass(frozen=True)
class Features:
    """The images of a table that can be used, in its order; `bad` are the others.

    `embeddings` are normalised, `pre_projection` is what the image tower has before its last projection, `rows` are
    places in the table. `labels` are of the table's classes, NO_LABEL where an image has none; where images have
    several, they are marked in `several`.
    """

    class_names: tuple[str, ...]
    rows: Int[np.ndarray, " b"]
    keys: tuple[str, ...]
    embeddings: Float32[np.ndarray, "b k"]
    pre_projection: Float32[np.ndarray, "b d"]
    labels: Int[np.ndarray, " b"]
    several: Bool[np.ndarray, "b c"] | None
    captions: tuple[tuple[str, ...], ...]
    bad: tuple[BadSample, ...] = ()

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, used: Bool[np.ndarray, " b"]) -> "Features":
        """Those images alone, and no bad ones."""
        return Features(
            class_names=self.class_names,
            rows=self.rows[used],
            keys=tuple(compress(self.keys, used)),
            embeddings=self.embeddings[used],
            pre_projection=self.pre_projection[used],
            labels=self.labels[used],
            several=None if self.several is None else self.several[used],
            captions=tuple(compress(self.captions, used)),
        )


@dataclass(frozen=True)
class _Chunk:
    """Some rows of a table; embeddings are not normalised.

    `good` are [row, key, label, several labels, captions], one of each embedding, `bad` [row, key, cause, reason].
    """

    embeddings: Float32[np.ndarray, "b k"]
    pre_projection: Float32[np.ndarray, "b d"]
    good: list[list[Any]]
    bad: list[list[Any]]


def embed_table(clip: Clip, table: Table, batch_size: int = 64, cache: Path | None = None, spec: str = "") -> Features:
    """The features of a whole table. All processes call it together, and each embeds its share.

    With a `cache` folder, what was embedded before is read from there, also where that was stopped half-way; `spec` is
    the table's, which tells it from others. Bad images are left out, which a warning tells. Raises UserError where none
    is left, and where an embedding is not finite.
    """
    if cache and not spec:
        raise ValueError("a cache needs the data spec of the table, to tell its features from those of others")
    if batch_size < 1:
        raise UserError(f"batch_size is {batch_size}; it must be at least 1")
    store = FeatureStore(cache, clip, "visual", fingerprint(table, spec)) if cache else None
    chunks = []
    hidden = not is_first()
    with tqdm(total=len(table), unit=" images", delay=PROGRESS_AFTER_SECONDS, leave=False, disable=hidden) as progress:
        for number, start in enumerate(range(0, len(table), CHUNK)):
            stop = min(start + CHUNK, len(table))
            kept = store.read(number) if store else None
            if everywhere(kept is not None) and kept is not None:
                arrays, told = kept
                chunk = _Chunk(arrays["embeddings"], arrays["pre_projection"], *told)
            else:
                chunk = _together(_embed(clip, table, _share(start, stop), batch_size, progress))
                if store:
                    arrays = {"embeddings": chunk.embeddings, "pre_projection": chunk.pre_projection}
                    store.write(number, arrays, [chunk.good, chunk.bad])
            chunks.append(chunk)
            progress.update(stop - start - (progress.n - start))
    return _features(table, chunks)


def embed_texts(
    clip: Clip, texts: Sequence[str], batch_size: int = 256, cache: Path | None = None
) -> Float32[np.ndarray, "b k"]:
    """Normalised text embeddings, kept in the `cache` folder. All processes call it together, each embeds its share."""
    store = FeatureStore(cache, clip, "text", fingerprint_of_texts(texts)) if cache else None
    kept = store.read(0) if store else None
    if everywhere(kept is not None) and kept is not None:
        return kept[0]["embeddings"]
    share = _share(0, len(texts))
    embeddings = joined(clip.encode_text(texts[share.start : share.stop], normalize=True, batch_size=batch_size))
    if store:
        store.write(0, {"embeddings": embeddings})
    return embeddings


def embed_classes(
    clip: Clip,
    classes: Sequence[str | Sequence[str]],
    templates: str | Sequence[str] | None = None,
    cache: Path | None = None,
) -> Float32[np.ndarray, "c k"]:
    """`Clip.class_embeddings`, kept in the `cache` folder; each process embeds its share of the classes."""
    prompts = ["classes", *(f"{number} {prompt}" for number, prompt in prompts_of(classes, templates))]
    store = FeatureStore(cache, clip, "text", fingerprint_of_texts(prompts)) if cache else None
    kept = store.read(0) if store else None
    if everywhere(kept is not None) and kept is not None:
        return kept[0]["embeddings"]
    share = _share(0, len(classes))
    own = classes[share.start : share.stop]
    empty = np.zeros((0, clip.config.embed_dim), np.float32)
    embeddings = joined(clip.class_embeddings(own, templates) if own else empty)
    if store:
        store.write(0, {"embeddings": embeddings})
    return embeddings


def _share(start: int, stop: int) -> range:
    """This process's part of the rows from `start` to `stop`."""
    bounds = np.linspace(start, stop, jax.process_count() + 1).astype(int).tolist()
    return range(*list(pairwise(bounds))[jax.process_index()])


def _embed(clip: Clip, table: Table, rows: range, batch_size: int, progress: tqdm) -> _Chunk:
    """What this process makes of some rows."""
    embeddings, features, good, bad = [], [], [], []
    batches = (range(start, min(start + batch_size, rows.stop)) for start in range(rows.start, rows.stop, batch_size))
    config, size = clip.config.preprocess, clip.config.vision.image_size
    for places, samples, pixels in read_ahead(table, batches, config, size):
        if len(pixels):
            embedding, before = clip.image_features(pixels, batch_size)
            embeddings.append(embedding)
            features.append(before)
        for place, one in zip(places, samples, strict=True):
            if isinstance(one, BadSample):
                bad.append([place, one.key, one.cause, one.reason])
            else:
                several = None if one.labels is None else list(one.labels)
                good.append([place, one.key, one.label, several, list(one.captions)])
        progress.update(len(places) * jax.process_count())
    if not embeddings:
        embeddings, features = [np.zeros((0, clip.config.embed_dim), np.float32)], [np.zeros((0, 0), np.float32)]
    return _Chunk(np.concatenate(embeddings), np.concatenate(features), good, bad)


def _together(own: _Chunk) -> _Chunk:
    """The rows of all processes, in their order."""
    width = max(of_all(own.pre_projection.shape[1]))
    features = own.pre_projection if len(own.pre_projection) else np.zeros((0, width), np.float32)
    good, bad = ([one for part in of_all(mine) for one in part] for mine in (own.good, own.bad))
    return _Chunk(joined(own.embeddings), joined(features), good, bad)


def _features(table: Table, chunks: Sequence[_Chunk]) -> Features:
    good = [one for chunk in chunks for one in chunk.good]
    bad = tuple(BadSample(key, cause, reason) for chunk in chunks for _, key, cause, reason in chunk.bad)
    if bad:
        told = f"of {len(table):,} images {len(bad):,} cannot be used, the first is {bad[0].key}: {bad[0].reason}"
        if not good:
            raise UserError(told)
        if is_first():
            warnings.warn(f"{told}; they are left out of the evaluation", stacklevel=3)
    kept = [chunk for chunk in chunks if chunk.good]
    embeddings = np.concatenate([chunk.embeddings for chunk in kept])
    norms = np.linalg.norm(embeddings, axis=-1, keepdims=True)
    usable = (np.isfinite(norms) & (norms > 0))[:, 0]
    if not usable.all():
        key = good[int(np.argmin(usable))][1]
        raise UserError(f"the model's embedding of {key} is zero or not finite; its weights or its dtype are at fault")
    return Features(
        class_names=table.class_names,
        rows=np.array([place for place, *_ in good]),
        keys=tuple(key for _, key, *_ in good),
        embeddings=embeddings / norms,
        pre_projection=np.concatenate([chunk.pre_projection for chunk in kept]),
        labels=np.array([NO_LABEL if label is None else label for _, _, label, _, _ in good]),
        several=_marks([several for _, _, _, several, _ in good], len(table.class_names)),
        captions=tuple(tuple(captions) for *_, captions in good),
        bad=bad,
    )


def _marks(several: Sequence[list[int] | None], classes: int) -> Bool[np.ndarray, "b c"] | None:
    if all(labels is None for labels in several):
        return None
    most = max(max(labels or [-1]) for labels in several)
    marks = np.zeros((len(several), max(classes, most + 1)), bool)
    for row, labels in enumerate(several):
        marks[row, labels or []] = True
    return marks
