"""Retrieval: which captions fit an image, and which image fits a caption, each found among all others.

Source: section 4.3 and table 13 of the paper, for Flickr30k and MSCOCO, whose images have five captions each.
"""

from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float32, Int

from clip_jax.clip import Clip
from clip_jax.data.table import BadSample, Table
from clip_jax.errors import UserError
from clip_jax.evaluation.bootstrap import interval_of_ratio
from clip_jax.evaluation.features import Features, embed_table, embed_texts

RECALLS = (1, 5, 10)
SCORES_AT_ONCE = 2**25  # 128 MiB


@dataclass(frozen=True)
class RetrievalResult:
    """Of each image the rank of the best of its captions among all, of each caption that of its image; 0 is the first.

    `bad` are images that could not be asked about, those without a caption included.
    """

    image_to_text: Int[np.ndarray, " images"]
    text_to_image: Int[np.ndarray, " texts"]
    image_of: Int[np.ndarray, " texts"]
    bad: tuple[BadSample, ...] = ()

    def metrics(self) -> dict[str, float]:
        """In both directions recall at 1, 5 and 10, as image_to_text_recall_at_1, and the median rank, from 1 on."""
        figures = {}
        for name, ranks in (("image_to_text", self.image_to_text), ("text_to_image", self.text_to_image)):
            figures |= {f"{name}_recall_at_{k}": float((ranks < k).mean()) for k in RECALLS}
            figures[f"{name}_median_rank"] = float(np.median(ranks + 1))
        return figures

    def interval(self, name: str, seed: int = 0) -> tuple[float, float]:
        """Where 95 % of a recall lie when images, with all their captions, are resampled; `name` as in `metrics`."""
        direction, _, k = name.partition("_recall_at_")
        if direction == "image_to_text":
            return interval_of_ratio(self.image_to_text < int(k), np.ones(len(self.image_to_text)), seed)
        found = np.bincount(self.image_of, self.text_to_image < int(k))
        return interval_of_ratio(found, np.bincount(self.image_of), seed)


def retrieval(
    clip: Clip, table: Table, prefix: str = "", batch_size: int = 64, cache: Path | None = None, spec: str = ""
) -> RetrievalResult:
    """Of every image and caption of a table its rank, `prefix` put before each caption ("a photo of ", in the paper).

    Raises UserError where no image has a caption, and as `embed_table` does, whose `cache` and `spec` are.
    """
    return retrieve_features(clip, embed_table(clip, table, batch_size, cache, spec), prefix, cache)


def retrieve_features(clip: Clip, features: Features, prefix: str = "", cache: Path | None = None) -> RetrievalResult:
    """As `retrieval`, for a table that is embedded already."""
    used = np.array([bool(captions) for captions in features.captions])
    if not used.any():
        raise UserError("this data has no captions; tars with .txt have, captions=FIELD takes them from their .json")
    texts = [prefix + caption for captions in features.captions for caption in captions]
    embeddings = embed_texts(clip, texts, cache=cache)
    counts = [len(captions) for captions in features.captions if captions]
    reason = "it has no caption, and retrieval needs one for every image"
    bad = [BadSample(features.keys[i], "no caption", reason) for i in np.flatnonzero(~used)]
    images, image_of = features.embeddings[used], np.repeat(np.arange(len(counts)), counts)
    return RetrievalResult(*ranks(images, embeddings, image_of), image_of, (*features.bad, *bad))


def ranks(
    images: Float32[np.ndarray, "images k"],
    texts: Float32[np.ndarray, "texts k"],
    image_of: Int[np.ndarray, " texts"],
) -> tuple[Int[np.ndarray, " images"], Int[np.ndarray, " texts"]]:
    """Of each image the rank of the best of its texts, of each text that of its image, in chunks on the device.

    `image_of` rises, and has every image. Of equal scores the one that stands first counts as the higher.
    """
    starts = np.searchsorted(image_of, np.arange(len(images) + 1))
    own = starts[:-1, None] + np.arange(np.diff(starts).max())[None]  # of each image, the places of its texts
    is_own = own < starts[1:, None]
    own = np.where(is_own, own, 0)
    each = image_of[:, None]
    return _ranks(images, texts, own, is_own), _ranks(texts, images, each, np.ones_like(each, bool))


def _ranks(
    queries: Float32[np.ndarray, "q k"],
    items: Float32[np.ndarray, "m k"],
    own: Int[np.ndarray, "q several"],
    is_own: Bool[np.ndarray, "q several"],
) -> Int[np.ndarray, " q"]:
    rows = max(1, min(len(queries), SCORES_AT_ONCE // len(items)))
    items_there, found = jnp.asarray(items), []
    for start in range(0, len(queries), rows):
        parts = [array[start : start + rows] for array in (queries, own, is_own)]
        padding = rows - len(parts[0])
        parts = [np.pad(part, ((0, padding), (0, 0))) for part in parts]
        found.append(np.asarray(_ranks_of_rows(items_there, *parts))[: rows - padding])
    return np.concatenate(found)


@jax.jit
def _ranks_of_rows(items: Array, queries: Array, own: Array, is_own: Array) -> Array:
    scores = jnp.matmul(queries, items.T, precision="highest")
    # Taken from the same product: computed apart, an item's score might be another by a rounding, and beat itself.
    candidates = jnp.where(is_own, jnp.take_along_axis(scores, own, axis=1), -jnp.inf)
    best, place = candidates.max(axis=1, keepdims=True), jnp.argmax(candidates, axis=1)[:, None]
    before = jnp.arange(len(items))[None] < jnp.take_along_axis(own, place, axis=1)
    return jnp.count_nonzero((scores > best) | ((scores == best) & before), axis=1)
