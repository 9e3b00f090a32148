"""The tf.data pipeline: from tables of captioned images to batches of uint8 pixels and token ids.

What a batch holds is a pure function of (tables, seed, step): which samples, which of a sample's captions, which crop.
There is no iterator state, so a run resumes by starting at a step, and every process reads its slice of the same
global batch however many processes there are. A bad sample is replaced by another, by the same rule every time.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
from jaxtyping import Int32, Int64, UInt8

from clip_jax.data.lazy_tensorflow import tensorflow
from clip_jax.data.mixture import Mixture, Share
from clip_jax.data.order import Order, Shuffle
from clip_jax.data.pixels import decode, make_pixels
from clip_jax.data.reader import Augmentation, Drawn, Reader, Replaced
from clip_jax.data.rows import Rows, whole_batches
from clip_jax.data.table import BadSample, Cause, Table
from clip_jax.errors import UserError
from clip_jax.inputs.base_tokenizer import Tokenizer

PREFETCH = 2
LOCAL_READS, REMOTE_READS = 2, 2  # at a time; a remote one is a window, and of a mixture each source has one
SEED_STRIDE = 1_000_003  # so that tables of one size are not shuffled alike


@dataclass(frozen=True)
class Batch:
    """One process's share of a global batch.

    `replaced` tells of this share's samples that others stand in for; `keys` gives those of the whole global batch.
    """

    step: int
    pixels: UInt8[np.ndarray, "b size size 3"]
    tokens: Int32[np.ndarray, "b n"]
    replaced: tuple[Replaced, ...]
    keys: Callable[[], list[str]]

    @cached_property
    def digest(self) -> str:
        """Of the keys of the global batch, the same on every process and for any number of them."""
        return hashlib.blake2b("\n".join(self.keys()).encode(), digest_size=8).hexdigest()

    @property
    def bad(self) -> Mapping[Cause, int]:
        """How many samples of this share were replaced, by cause."""
        return Counter(one.cause for one in self.replaced)


@dataclass(frozen=True)
class Pipeline:
    """Batches for training of the sources that `mixture` mixes, each with its reader."""

    readers: tuple[Reader, ...]
    mixture: Mixture

    @property
    def examples(self) -> dict[Cause, BadSample]:
        """The first bad sample of each cause so far."""
        return {cause: bad for reader in self.readers for cause, bad in reader.examples.items()}

    def batches(self, start_step: int, stop_step: int) -> Iterator[Batch]:
        """The batches of steps [start_step, stop_step), read, decoded and cropped ahead in parallel.

        Raises UserError where a table cannot be read any more, or a source has no sample that can be used.
        """
        tf = tensorflow()
        for reader in self.readers:
            reader.check(start_step)
        failures: list[Exception] = []  # TensorFlow turns exceptions into strings, so the original is kept here

        def read(place: int) -> Rows:
            if failures:
                raise failures[0]
            return self._read_singly(tf, place)

        found = (Rows(*arrays) for arrays in self._iterator(tf, start_step, stop_step, failures))
        first, last = self.readers[0].rows
        starts = (step * self.readers[0].batch_size for step in range(start_step, stop_step))
        places = (np.arange(start + first, start + last) for start in starts)
        for step, rows in enumerate(whole_batches(found, places, read), start_step):
            yield Batch(step, rows.pixels, rows.tokens, self._replaced(rows), partial(self.keys, step))

    def keys(self, step: int) -> list[str]:
        """The keys of the global batch, bad samples not replaced."""
        batch_size = self.readers[0].batch_size
        sources = self.mixture.sources(step * batch_size, (step + 1) * batch_size)
        keys = np.empty(batch_size, object)
        for source, reader in enumerate(self.readers):
            keys[sources == source] = reader.keys(step)
        return keys.tolist()

    def _replaced(self, rows: Rows) -> tuple[Replaced, ...]:
        bad = np.flatnonzero(rows.bad >= 0)
        several = zip(rows.place[bad].tolist(), rows.bad[bad].tolist(), rows.used[bad].tolist(), strict=True)
        return tuple(self._reader_of(place).replaced(place, cause, used) for place, cause, used in several)

    def _read_singly(self, tf: Any, place: int) -> Rows:
        """The row at one place, its image decoded by Pillow."""
        reader = self._reader_of(place)
        part, drawn = reader.read_decoded(place)
        colours = drawn.colours[0] if reader.augmentation.colours > 0 else None
        pixels = make_pixels(tf, tf.constant(part), tf.constant(drawn.flip[0]), colours, reader.image_size).numpy()
        return Rows(drawn.place, pixels[None], drawn.tokens, drawn.bad, drawn.used)

    def _reader_of(self, place: int) -> Reader:
        return self.readers[int(self.mixture.sources(place, place + 1)[0])]

    def _iterator(
        self, tf: Any, start_step: int, stop_step: int, failures: list[Exception]
    ) -> Iterator[tuple[np.ndarray, ...]]:
        """Rows in their order, but for those whose images cannot be decoded; they end early where reading fails."""
        size, (first, last) = self.readers[0].image_size, self.readers[0].rows
        coloured = self.readers[0].augmentation.colours > 0

        def load(*parts: Any) -> tuple[Any, ...]:
            drawn = Drawn(*parts)
            part = decode(tf, drawn.image, drawn.branch, drawn.crop)
            pixels = make_pixels(tf, part, drawn.flip, drawn.colours if coloured else None, size)
            return drawn.place, tf.ensure_shape(pixels, (size, size, 3)), drawn.tokens, drawn.bad, drawn.used

        streams = [self._stream(tf, reader, start_step, stop_step, failures).unbatch() for reader in self.readers]
        samples = streams[0]
        if len(streams) > 1:
            choices = tf.data.Dataset.range(start_step, stop_step).map(
                lambda step: tf.ensure_shape(tf.numpy_function(self._own_sources, [step], tf.int64), (None,))
            )
            samples = tf.data.Dataset.choose_from_datasets(streams, choices.unbatch(), stop_on_empty_dataset=False)
        rows = samples.map(load, num_parallel_calls=tf.data.AUTOTUNE).ignore_errors()
        options = tf.data.Options()
        options.deterministic = True
        return rows.batch(last - first).prefetch(PREFETCH).with_options(options).as_numpy_iterator()

    def _stream(self, tf: Any, reader: Reader, start_step: int, stop_step: int, failures: list[Exception]) -> Any:
        """The samples of one source before their pixels are made, as many at once as are read at once."""

        def spans() -> Iterator[tuple[int, int]]:
            for span in reader.spans(start_step, stop_step):
                if failures:
                    return
                yield span

        def read(start: np.int64, stop: np.int64) -> Drawn:
            try:
                return reader.read(int(start), int(stop))
            except Exception as error:
                failures.append(error)
                raise

        types = (tf.int64, tf.string, tf.int32, tf.int32, tf.bool, tf.float32, tf.int32, tf.int8, tf.int64)  # Drawn's
        shapes = ((None,), (None,), (None,), (None, 4), (None,), (None, 3), (None, None), (None,), (None,))

        def call(start: Any, stop: Any) -> tuple[Any, ...]:
            parts = tf.numpy_function(read, [start, stop], types)
            return tuple(tf.ensure_shape(part, shape) for part, shape in zip(parts, shapes, strict=True))

        position = tf.TensorSpec((), tf.int64)
        parallel = max(1, REMOTE_READS // len(self.readers)) if reader.table.is_remote else LOCAL_READS
        dataset = tf.data.Dataset.from_generator(spans, output_signature=(position, position))
        return dataset.map(call, num_parallel_calls=parallel)

    def _own_sources(self, step: np.int64) -> Int64[np.ndarray, " b"]:
        reader = self.readers[0]
        start = int(step) * reader.batch_size
        return self.mixture.sources(start + reader.rows[0], start + reader.rows[1])


def make_pipeline(
    tables: Sequence[tuple[Table, float]],
    tokenize: Tokenizer,
    image_size: int,
    batch_size: int,
    seed: int,
    shuffle: Shuffle,
    augmentation: Augmentation,
    part: tuple[int, int] = (0, 1),
) -> Pipeline:
    """The pipeline of tables, each with its weight, for `part` (index, count) of every batch.

    Raises UserError where the batch does not divide among the parts, or a table's weight is nearly nothing.
    """
    mixture = Mixture.of_weights([weight for _, weight in tables], seed)
    readers, rows = [], rows_of(part, batch_size)
    for source, (table, _) in enumerate(tables):
        share = Share(mixture, source)
        own_seed = seed + SEED_STRIDE * source
        order = Order(len(table), own_seed, shuffle.block, shuffle.window, batch_size, shuffle.lanes, share)
        readers.append(Reader(table, order, share, tokenize, image_size, batch_size, rows, augmentation))
    return Pipeline(tuple(readers), mixture)


def rows_of(part: tuple[int, int], batch_size: int) -> tuple[int, int]:
    """The rows [first, last) of every batch that are those of `part` (index, count).

    Raises UserError where a batch does not divide evenly among the parts.
    """
    index, count = part
    if batch_size % count:
        down = batch_size // count * count
        near = f"{down} or {down + count}" if down else f"{count}"
        raise UserError(f"batch_size {batch_size} does not divide among {count} processes; {near} would")
    return index * batch_size // count, (index + 1) * batch_size // count
