"""The tf.data pipeline: from tables of captioned images to batches of uint8 pixels and token ids.

What a batch holds is a pure function of (tables, seed, step): which samples, which of a sample's captions, which crop.
There is no iterator state, so a run resumes by starting at a step, and every process reads its slice of the same
global batch however many processes there are. A bad sample is replaced by another, by the same rule every time.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int32, Int64, UInt8

from clip_jax.data.mixture import Mixture, Share
from clip_jax.data.order import Order, Shuffle, process_slice
from clip_jax.data.pixels import make_pixels, tensorflow
from clip_jax.data.reader import CAUSES, Augmentation, Reader
from clip_jax.data.table import BadSample, Cause, Table
from clip_jax.errors import UserError
from clip_jax.inputs.base_tokenizer import Tokenizer

PREFETCH = 2
LOCAL_READS, REMOTE_READS = 2, 4  # at a time
SEED_STRIDE = 1_000_003  # so that tables of one size are not shuffled alike


@dataclass(frozen=True)
class Batch:
    """One process's share of a global batch.

    `digest` identifies the samples of the whole global batch; `bad` counts those of this share that were replaced.
    """

    step: int
    pixels: UInt8[np.ndarray, "b size size 3"]
    tokens: Int32[np.ndarray, "b n"]
    digest: str
    bad: Mapping[Cause, int]


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

        Raises UserError where a table cannot be read any more, or has no sample that can be used.
        """
        tf = tensorflow()
        failures: list[UserError] = []  # TensorFlow turns exceptions into strings, so the original is kept here
        step, doubtful = start_step, False
        iterator = self._iterator(tf, start_step, stop_step, failures)
        while step < stop_step:
            try:
                pixels, tokens, bad = next(iterator)
            except tf.errors.OpError as error:
                if failures:
                    raise failures[0] from error
                if doubtful:
                    raise UserError(f"reading the data failed: {str(error).strip().splitlines()[0]}") from error
                # A JPEG that looked whole is not. In this step alone, Pillow decodes all and says which.
                iterator, doubtful = self._iterator(tf, step, step + 1, failures, trust_jpegs=False), True
                continue
            counts = Counter(CAUSES[cause] for cause in bad[bad >= 0].tolist())
            yield Batch(step, pixels, tokens, self.digest(step), counts)
            step += 1
            if doubtful:
                iterator, doubtful = self._iterator(tf, step, stop_step, failures), False

    def digest(self, step: int) -> str:
        """A digest of the keys of the global batch, the same on every process and for any number of them."""
        return hashlib.blake2b("\n".join(self.keys(step)).encode(), digest_size=8).hexdigest()

    def keys(self, step: int) -> list[str]:
        """The keys of the global batch, bad samples not replaced."""
        batch_size = self.readers[0].batch_size
        sources = self.mixture.sources(step * batch_size, (step + 1) * batch_size)
        keys = np.empty(batch_size, object)
        for source, reader in enumerate(self.readers):
            keys[sources == source] = reader.keys(step)
        return keys.tolist()

    def _iterator(
        self, tf: Any, start_step: int, stop_step: int, failures: list[UserError], trust_jpegs: bool = True
    ) -> Iterator[tuple[np.ndarray, ...]]:
        """Pixels, tokens and what was bad, a batch at a time."""
        size, (first, last) = self.readers[0].image_size, self.readers[0].rows
        coloured = self.readers[0].augmentation.colours > 0

        def load(data, branch, crop, flip, colours, tokens, bad):
            pixels = make_pixels(tf, data, branch, crop, flip, colours if coloured else None, size)
            return tf.ensure_shape(pixels, (size, size, 3)), tokens, bad

        streams = [
            self._stream(tf, reader, start_step, stop_step, failures, trust_jpegs).unbatch() for reader in self.readers
        ]
        samples = streams[0]
        if len(streams) > 1:
            choices = tf.data.Dataset.range(start_step, stop_step).map(
                lambda step: tf.ensure_shape(tf.numpy_function(self._own_sources, [step], tf.int64), (None,))
            )
            samples = tf.data.Dataset.choose_from_datasets(streams, choices.unbatch(), stop_on_empty_dataset=False)
        batches = samples.map(load, num_parallel_calls=tf.data.AUTOTUNE).batch(last - first, drop_remainder=True)
        options = tf.data.Options()
        options.deterministic = True
        return batches.prefetch(PREFETCH).with_options(options).as_numpy_iterator()

    def _stream(
        self, tf: Any, reader: Reader, start_step: int, stop_step: int, failures: list[UserError], trust_jpegs: bool
    ) -> Any:
        """The samples of one source before their pixels are made, as many at once as are read at once."""

        def read(start: np.int64, stop: np.int64) -> tuple[np.ndarray, ...]:
            try:
                return reader.read(int(start), int(stop), trust_jpegs)
            except UserError as error:
                failures.append(error)
                raise

        types = (tf.string, tf.int32, tf.int32, tf.bool, tf.float32, tf.int32, tf.int8)
        shapes = ((None,), (None,), (None, 4), (None,), (None, 3), (None, None), (None,))

        def call(start, stop):
            parts = tf.numpy_function(read, [start, stop], types)
            return tuple(tf.ensure_shape(part, shape) for part, shape in zip(parts, shapes, strict=True))

        position = tf.TensorSpec((), tf.int64)
        spans = tf.data.Dataset.from_generator(
            lambda: reader.spans(start_step, stop_step), output_signature=(position, position)
        )
        return spans.map(call, num_parallel_calls=REMOTE_READS if reader.table.is_remote else LOCAL_READS)

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
    readers = []
    for source, (table, _) in enumerate(tables):
        share = Share(mixture, source)
        own_seed = seed + SEED_STRIDE * source
        order = Order(len(table), own_seed, shuffle.block, shuffle.window, batch_size, shuffle.lanes, share)
        rows = process_slice(0, batch_size, *part)
        readers.append(Reader(table, order, share, tokenize, image_size, batch_size, rows, augmentation))
    return Pipeline(tuple(readers), mixture)
