"""Answers of a set of embeddings to texts and images."""

import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from clip_jax.clip import Clip, load
from clip_jax.errors import UserError
from clip_jax.fingerprint import fingerprint_of
from clip_jax.inputs.images import open_image
from clip_jax.search.embedding_set import EmbeddingSet
from clip_jax.search.nearest import nearest


@dataclass(frozen=True)
class Query:
    """A text, or an image file."""

    text: str | None = None
    image: str | None = None

    @property
    def name(self) -> str:
        """The text, or the image's path."""
        return self.text or self.image or ""


@dataclass(frozen=True)
class Hit:
    """A row of a set, its cosine similarity to the query, and what it is of."""

    rank: int
    score: float
    row: int
    key: str
    sample: int | None = None
    caption: str | None = None


def read_queries(texts: Sequence[str], images: Sequence[str], file: Path | None) -> list[Query]:
    """The texts, the lines of `file` that are not empty, and the images. Raises UserError for a fault, and for none."""
    lines: list[str] = []
    if file:
        try:
            lines = [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines()]
        except (OSError, ValueError) as error:
            raise UserError(f"cannot read the queries in {file}: {error}") from error
    if any(not text.strip() for text in texts):
        raise UserError("a text to search for is empty; give it words")
    for image in images:
        open_image(image)
    queries = [Query(text=text) for text in (*texts, *filter(None, lines))] + [Query(image=image) for image in images]
    if not queries:
        raise UserError("there is nothing to search for; give --text, --image or a --queries file with a text a line")
    return queries


def model_of(found: EmbeddingSet, path: Path, model: str | None) -> Clip:
    """The model that made the set, or `model`.

    Raises UserError where the first is not known, no longer there or no longer the same, and where widths differ.
    """
    told = found.description
    if model is None and told is None:
        raise UserError(f"{path} does not say which model made it; --model names it")
    name = model or (told.model if told else "")
    try:
        clip = load(name, told.compute if told else "float32")
    except UserError as error:
        hint = "" if model else f"; it made {path}, and --model says where it is now"
        raise UserError(f"{error}{hint}") from error
    if clip.config.embed_dim != found.width:
        raise UserError(
            f"the model {name} gives {clip.config.embed_dim} numbers, but rows of {path} have {found.width}; "
            "take the model that made the set"
        )
    digests = fingerprint_of(clip, "visual"), fingerprint_of(clip, "text")
    if told and digests != (told.visual_digest, told.text_digest):
        if model is None:
            raise UserError(f"{name} is not as it was when it made {path}; embed anew, or name that model with --model")
        warnings.warn(f"another model made {path}, {told.model}; scores mean little unless both agree", stacklevel=2)
    return clip


def search(found: EmbeddingSet, clip: Clip, queries: Sequence[Query], k: int = 10) -> list[list[Hit]]:
    """The `k` rows of the greatest cosine similarity to each query, or all where there are fewer. Raises UserError."""
    told = found.description
    exact = told is not None and told.normalized and told.dtype == "float32"  # products are cosines there
    rows, scores = nearest(found.parts(), _embedded(clip, queries), min(k, sum(found.sizes)), cosine=not exact)
    keys = found.keys(rows.ravel().tolist())
    return [
        [Hit(rank, score, row, **asdict(keys[row])) for rank, (row, score) in enumerate(zip(*answer, strict=True), 1)]
        for answer in zip(rows.tolist(), scores.tolist(), strict=True)
    ]


def _embedded(clip: Clip, queries: Sequence[Query]) -> Float32[np.ndarray, "q width"]:
    embeddings = np.zeros((len(queries), clip.config.embed_dim), np.float32)
    of_text = [place for place, query in enumerate(queries) if query.text is not None]
    of_image = [place for place, query in enumerate(queries) if query.image is not None]
    embeddings[of_text] = clip.encode_text([queries[place].text or "" for place in of_text], normalize=True)
    embeddings[of_image] = clip.encode_image([queries[place].image or "" for place in of_image], normalize=True)
    return embeddings
