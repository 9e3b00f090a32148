"""The tf.data pipeline: from a table of captioned images to batches of uint8 pixels and token ids.

What a batch holds is a pure function of (table, seed, step): which samples, which of a sample's captions, which crop.
There is no iterator state, so a run resumes by starting at a step, and every process reads its slice of the same
global batch however many processes there are.
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int32, Int64, UInt8

from clip_jax.data.order import Order, process_slice
from clip_jax.data.table import Sample, Table
from clip_jax.errors import UserError
from clip_jax.inputs.images import open_image

ASPECT_RATIOS = (3 / 4, 4 / 3)
PREFETCH = 2


@dataclass(frozen=True)
class Batch:
    """One process's share of a global batch; `digest` identifies the samples of the whole global batch."""

    step: int
    pixels: UInt8[np.ndarray, "b size size 3"]
    tokens: Int32[np.ndarray, "b n"]
    digest: str


@dataclass(frozen=True)
class Pipeline:
    """Batches of `table` for training. `crop_scale` is the range of the crop's area as a share of the image's."""

    table: Table
    order: Order
    tokenize: Callable[[Sequence[str]], Int32[np.ndarray, "b n"]]
    image_size: int
    batch_size: int
    crop_scale: tuple[float, float] = (0.9, 1.0)
    process_index: int = 0
    process_count: int = 1

    def batches(self, start_step: int, stop_step: int) -> Iterator[Batch]:
        """The batches of steps [start_step, stop_step), decoded and cropped ahead in parallel.

        Raises UserError where a sample cannot be read, naming it.
        """
        tf = _tensorflow()
        failures: list[UserError] = []  # TensorFlow turns exceptions into strings, so the original is kept here

        def read(step: np.int64) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            try:
                return self._read(int(step))
            except UserError as error:
                failures.append(error)
                raise

        def load(image, tokens, position):
            pixels = tf.cond(_is_jpeg(tf, image), lambda: _decode_jpeg(tf, image), lambda: _decode_other(tf, image))
            return _random_crop(tf, pixels, self.image_size, self.crop_scale, (self.order.seed, position)), tokens

        local = self.batch_size // self.process_count
        signature = (tf.string, tf.int32, tf.int64)
        steps = tf.data.Dataset.range(start_step, stop_step)
        samples = steps.map(lambda step: tf.numpy_function(read, [step], signature), num_parallel_calls=2).unbatch()
        batches = samples.map(load, num_parallel_calls=tf.data.AUTOTUNE).batch(local, drop_remainder=True)
        options = tf.data.Options()
        options.deterministic = True
        iterator = batches.prefetch(PREFETCH).with_options(options).as_numpy_iterator()
        for step in range(start_step, stop_step):
            try:
                pixels, tokens = next(iterator)
            except tf.errors.OpError as error:
                raise (failures[0] if failures else self._blame(step, error)) from error
            yield Batch(step, pixels, tokens, self.digest(step))

    def _blame(self, step: int, error: Exception) -> UserError:
        """Says which image of a step cannot be decoded; a pipeline reads ahead, so it may be in one of the next."""
        for ahead in range(step, step + PREFETCH + 3):
            start, stop = process_slice(ahead, self.batch_size, self.process_index, self.process_count)
            for sample in self.table.read(self.order.indices(start, stop)):
                try:
                    open_image(sample.image)
                except UserError as reason:
                    return UserError(f"sample {sample.key}: {reason}")
        return UserError(f"reading the data failed: {str(error).strip().splitlines()[0]}")

    def digest(self, step: int) -> str:
        """A digest of the keys of the global batch, the same on every process and for any number of them."""
        indices = self.order.indices(step * self.batch_size, (step + 1) * self.batch_size)
        keys = "\n".join(self.table.keys(indices))
        return hashlib.blake2b(keys.encode(), digest_size=8).hexdigest()

    def _read(self, step: int) -> tuple[np.ndarray, Int32[np.ndarray, "b n"], Int64[np.ndarray, " b"]]:
        start, stop = process_slice(step, self.batch_size, self.process_index, self.process_count)
        positions = np.arange(start, stop, dtype=np.int64)
        samples = self.table.read(self.order.indices(start, stop))
        captions = [self._caption(sample, int(at)) for sample, at in zip(samples, positions, strict=True)]
        return np.array([sample.image for sample in samples], object), self.tokenize(captions), positions

    def _caption(self, sample: Sample, position: int) -> str:
        """One of the sample's captions, chosen anew each time the sample comes by."""
        if not sample.captions:
            raise UserError(f"sample {sample.key} has no caption; training needs one for every image")
        chosen = np.random.Philox(np.random.SeedSequence(self.order.seed, spawn_key=(2, position))).random_raw()
        return sample.captions[int(chosen) % len(sample.captions)]


def _tensorflow():
    # Both silence what TensorFlow says of its build when imported; nothing here uses the kernels that are switched off.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    import tensorflow as tf

    tf.config.set_visible_devices([], "GPU")  # it would take the memory that JAX needs
    return tf


def _is_jpeg(tf, image):
    return tf.equal(tf.strings.substr(image, 0, 3), b"\xff\xd8\xff")


def _decode_jpeg(tf, image):
    return tf.io.decode_jpeg(image, channels=3, dct_method="INTEGER_ACCURATE")


def _decode_other(tf, image):
    """PNG, WebP and the rest through Pillow, which knows palettes, transparency and 16-bit greys."""
    pixels = tf.numpy_function(lambda data: np.asarray(open_image(data)), [image], tf.uint8)
    return tf.ensure_shape(pixels, (None, None, 3))


def _random_crop(tf, pixels, size: int, scale: tuple[float, float], seed):
    """A random part of the image, resized without aliasing to a square of `size` pixels."""
    corner, extent, _ = tf.image.stateless_sample_distorted_bounding_box(
        tf.shape(pixels),
        bounding_boxes=tf.zeros((1, 0, 4)),
        seed=seed,
        min_object_covered=0.0,
        aspect_ratio_range=ASPECT_RATIOS,
        area_range=scale,
        use_image_if_no_bounding_boxes=True,
    )
    cropped = tf.ensure_shape(tf.slice(pixels, corner, extent), (None, None, 3))
    resized = tf.image.resize(cropped, (size, size), method="bicubic", antialias=True)
    return tf.cast(tf.clip_by_value(tf.round(resized), 0, 255), tf.uint8)
