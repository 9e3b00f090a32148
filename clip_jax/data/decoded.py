"""Samples with their pixels as an image tower takes them for inference, the next ones decoded behind those in use."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, UInt8

from clip_jax.config import PreprocessConfig
from clip_jax.data.table import BadSample, Sample, Table
from clip_jax.errors import UserError
from clip_jax.inputs.images import open_image
from clip_jax.inputs.preprocess import normalise, resize_and_crop

AHEAD = 2  # batches that are decoded, or waited for, while one is in use


class Decoded(NamedTuple):
    """Rows of a table, what was found there, and the pixels of those that are good."""

    places: range
    samples: list[Sample | BadSample]
    pixels: Float32[np.ndarray, "b size size 3"]


def read_ahead(table: Table, batches: Iterable[range], config: PreprocessConfig, size: int) -> Iterator[Decoded]:
    """Each of `batches` of rows, read and decoded by threads. Raises UserError where the table's source fails."""

    def pixels_of(one: Sample | BadSample) -> UInt8[np.ndarray, "size size 3"] | BadSample:
        try:
            return one if isinstance(one, BadSample) else resize_and_crop(open_image(one.image), config, size)
        except UserError as error:
            return BadSample(one.key, "bad image", str(error))

    def load(places: range) -> Decoded:
        samples = table.read(places)
        found = list(decoders.map(pixels_of, samples))
        good = [one for one in found if not isinstance(one, BadSample)]
        pixels = np.stack(good) if good else np.zeros((0, size, size, 3), np.uint8)
        told = [one if isinstance(one, BadSample) else sample for sample, one in zip(samples, found, strict=True)]
        return Decoded(places, told, normalise(pixels, config))

    waiting = iter(batches)
    with ThreadPoolExecutor() as decoders, ThreadPoolExecutor(1) as ahead:
        coming = deque(ahead.submit(load, places) for places in islice(waiting, AHEAD))
        while coming:
            ready = coming.popleft().result()
            coming.extend(ahead.submit(load, places) for places in islice(waiting, 1))
            yield ready
