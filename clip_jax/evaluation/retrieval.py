"""Retrieval: which captions fit an image, and which image fits a caption, each found among all others.

Source: section 4.3 and table 13 of the paper, for Flickr30k and MSCOCO, whose images have five captions each.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Int

from clip_jax.clip import Clip
from clip_jax.data.table import BadSample, Table
from clip_jax.errors import UserError
from clip_jax.evaluation.bootstrap import interval_of_ratio
from clip_jax.evaluation.features import Features, embed_table, embed_texts

RECALLS = (1, 5, 10)
SCORES_AT_ONCE = 2**21  # 8 MiB, which a CPU's cache holds
FILLING = -1  # the place of what fills up a block


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
    """As `retrieval`, for a table that is embedded already. Raises UserError where it has no captions."""
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
    """Of each image the rank of the best of its texts, of each text that of its image, on the device.

    `image_of` rises, and has every image. Of equal scores the one that stands first counts as the higher. Scores are
    computed once for both directions, those of some images and of all texts of some images at a time.
    """
    starts = np.searchsorted(image_of, np.arange(len(images) + 1))
    bounds = _bounds(starts, math.ceil(math.sqrt(len(images) * len(texts) / SCORES_AT_ONCE)))
    image_places, text_places = _places(bounds), _places(starts[bounds])
    owners = np.where(text_places == FILLING, FILLING, image_of[text_places])
    blocks = [
        _Block(*map(jnp.asarray, (images[i], texts[t], i[:, None], t[None], owner[None])))
        for i, t, owner in zip(image_places, text_places, owners, strict=True)
    ]
    to_text, to_image = np.zeros_like(image_places), np.zeros_like(text_places)
    each, own = range(len(blocks)), []
    # First each block with itself, which has its own scores. They are taken from the same product as all others:
    # computed apart, an item's score might be another by a rounding, and beat itself.
    for i, j in [(i, i) for i in each] + [(i, j) for i in each for j in each if i != j]:
        scores = _scores(blocks[i].images, blocks[j].texts)
        if i == j:
            own.append(_own(scores, blocks[i]))
        above = _above(scores, blocks[i], blocks[j], own[i], own[j])
        to_text[i] += np.asarray(above[0])
        to_image[j] += np.asarray(above[1])
    return to_text[image_places != FILLING], to_image[text_places != FILLING]


class _Block(NamedTuple):
    """Some images and all their texts, the places of both, and of each text that of its image; FILLING behind them."""

    images: Float32[Array, "i k"]
    texts: Float32[Array, "t k"]
    image_places: Int[Array, "i 1"]
    text_places: Int[Array, "1 t"]
    image_of: Int[Array, "1 t"]


class _Own(NamedTuple):
    """Of each image of a block score and place of the best of its texts; of each text the score of its image."""

    best: Float32[Array, "i 1"]
    best_places: Int[Array, "i 1"]
    of_texts: Float32[Array, "1 t"]


def _bounds(starts: Int[np.ndarray, " images1"], blocks: int) -> Int[np.ndarray, " blocks1"]:
    """Where blocks of images begin, and the last ends: in each about as many images, and as many texts."""
    along = np.arange(len(starts)) / (len(starts) - 1) + starts / starts[-1]
    begins = np.diff(np.floor(along[:-1] / 2 * blocks), prepend=-1) > 0
    return np.append(np.flatnonzero(begins), len(starts) - 1)


def _places(bounds: Int[np.ndarray, " blocks1"]) -> Int[np.ndarray, "blocks size"]:
    """The places from each bound to the next, as rows that are filled up to the longest."""
    places = bounds[:-1, None] + np.arange(np.diff(bounds).max())
    return np.where(places < bounds[1:, None], places, FILLING)


@jax.jit
def _scores(images: Float32[Array, "i k"], texts: Float32[Array, "t k"]) -> Float32[Array, "i t"]:
    return jnp.matmul(images, texts.T, precision="highest")


@jax.jit
def _own(scores: Float32[Array, "i t"], block: _Block) -> _Own:
    own = jnp.where(block.image_places == block.image_of, scores, -jnp.inf)
    best_places = jnp.take_along_axis(block.text_places, own.argmax(axis=1)[None], axis=1).T
    return _Own(own.max(axis=1, keepdims=True), best_places, own.max(axis=0, keepdims=True))


@jax.jit
def _above(
    scores: Float32[Array, "i t"], images: _Block, texts: _Block, own_of_images: _Own, own_of_texts: _Own
) -> tuple[Int[Array, " i"], Int[Array, " t"]]:
    """How many of the texts rank above the best of each image, and how many of the images above that of each text."""
    best, own = own_of_images.best, own_of_texts.of_texts
    texts_above = (scores > best) | ((scores == best) & (texts.text_places < own_of_images.best_places))
    images_above = (scores > own) | ((scores == own) & (images.image_places < texts.image_of))
    return (
        jnp.count_nonzero(texts_above & (texts.text_places != FILLING), axis=1),
        jnp.count_nonzero(images_above & (images.image_places != FILLING), axis=0),
    )
