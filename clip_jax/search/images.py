"""The images of a table, embedded while the next ones are read and decoded."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Array

from clip_jax.data.decoded import read_ahead
from clip_jax.data.fingerprint import fingerprint
from clip_jax.data.table import BadSample, Table
from clip_jax.search.encoder import Encoder
from clip_jax.search.source import Embedded, Json, bad_json, one_behind


class _Batch(NamedTuple):
    places: range
    keys: list[Json]
    bad: list[Json]


class Images:
    """The images of `table`, one a sample."""

    of: Literal["images"] = "images"
    kind: Literal["table"] = "table"

    def __init__(self, table: Table) -> None:
        self._table = table

    def __len__(self) -> int:
        return len(self._table)

    def digest(self, spec: str) -> str:
        return fingerprint(self._table, spec)

    def embed(self, encoder: Encoder, shards: Sequence[range], advance: Callable[[int], Any]) -> Iterator[Embedded]:
        found = one_behind(self._encoded(encoder, shards))
        for shard in shards:
            rows, keys, bad, stop = [np.zeros((0, encoder.width), np.float32)], [], [], shard.start
            while stop < shard.stop:
                batch, embeddings = next(found)
                advance(len(batch.places))
                rows, keys, bad = [*rows, embeddings], keys + batch.keys, bad + batch.bad
                stop = batch.places.stop
            yield Embedded(np.concatenate(rows), keys, bad)

    def _encoded(self, encoder: Encoder, shards: Sequence[range]) -> Iterator[tuple[_Batch, Array, int]]:
        step, config = encoder.batch_size, encoder.config
        batches = (shard[start : start + step] for shard in shards for start in range(0, len(shard), step))
        for places, samples, pixels in read_ahead(self._table, batches, config.preprocess, config.vision.image_size):
            told = list(zip(places, samples, strict=True))
            keys = [{"key": one.key, "sample": place} for place, one in told if not isinstance(one, BadSample)]
            bad = [bad_json(place, one) for place, one in told if isinstance(one, BadSample)]
            yield _Batch(places, keys, bad), encoder.image(pixels), len(pixels)
