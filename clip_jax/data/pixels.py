"""The TensorFlow program that makes a square of pixels of an image: decoded, cropped, resized without aliasing.

Where the crop is larger than the square, pixels are averaged by area, which is several times as fast as an antialiased
bicubic kernel and differs from Pillow's by 2 levels of 255 in the mean (experiments/benchmarks/loader.py). JPEGs of
twice the size and more are decoded at a half, a quarter or an eighth of it.
"""

import os
from typing import Any

import numpy as np
from jaxtyping import Int64

RAW, WHOLE = 0, 1  # the branches of `make_pixels`: RGB pixels, a JPEG, then JPEGs at a half, a quarter and an eighth
_RATIOS = (1, 2, 4, 8)
_GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow and torchvision weigh colours


def tensorflow() -> Any:
    """TensorFlow, kept off the accelerator and quiet."""
    # Both silence what TensorFlow says of its build when imported; nothing here uses the kernels that are switched off.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    import tensorflow as tf

    tf.config.set_visible_devices([], "GPU")  # it would take the memory that JAX needs
    return tf


def jpeg_branch(crop: Int64[np.ndarray, " 4"], size: int) -> tuple[int, Int64[np.ndarray, " 4"]]:
    """How a JPEG is decoded of which `crop` becomes a square of `size` pixels, and the crop at that scale."""
    reduction = int(min(crop[2], crop[3])) // size
    branch = sum(reduction >= ratio for ratio in _RATIOS[1:])
    return WHOLE + branch, crop // _RATIOS[branch]


def make_pixels(tf: Any, data: Any, branch: Any, crop: Any, flip: Any, colours: Any, size: int) -> Any:
    """Uint8 [size, size, 3] of one image; `crop` is top, left, height and width, `colours` three factors or none."""

    def raw() -> Any:
        return tf.reshape(tf.io.decode_raw(data, tf.uint8), (crop[2], crop[3], 3))

    def jpeg(ratio: int) -> Any:
        return tf.io.decode_and_crop_jpeg(data, crop, channels=3, ratio=ratio, dct_method="INTEGER_ACCURATE")

    branches = [raw, *(lambda ratio=ratio: jpeg(ratio) for ratio in _RATIOS)]
    part = tf.ensure_shape(tf.switch_case(branch, branches), (None, None, 3))
    square = tf.cond(
        tf.reduce_min(crop[2:]) >= size,
        lambda: tf.image.resize(part, (size, size), method="area"),
        lambda: tf.image.resize(part, (size, size), method="bicubic", antialias=True),
    )
    square = tf.cond(flip, lambda: tf.reverse(square, axis=[1]), lambda: square)
    if colours is not None:
        square = _coloured(tf, square, colours)
    return tf.cast(tf.clip_by_value(tf.round(square), 0, 255), tf.uint8)


def _coloured(tf: Any, pixels: Any, factors: Any) -> Any:
    """Brightness, then contrast about the mean grey, then saturation, as torchvision's ColorJitter has them."""
    pixels = tf.clip_by_value(pixels * factors[0], 0.0, 255.0)
    mean = tf.reduce_mean(tf.tensordot(pixels, _GREY, 1))
    pixels = tf.clip_by_value(mean + factors[1] * (pixels - mean), 0.0, 255.0)
    grey = tf.tensordot(pixels, _GREY, 1)[..., None]
    return grey + factors[2] * (pixels - grey)
