"""The TensorFlow program that makes a square of pixels of an image: decoded, cropped, resized without aliasing.

Where the crop is larger than the square, pixels are averaged by area, which is several times as fast as an antialiased
bicubic kernel. JPEGs of twice the size and more are decoded at a half, a quarter or an eighth of it, with the edges of
the crop moved to the nearest pixels of that scale. How far each lies from Pillow's bicubic kernel is measured by
experiments/benchmarks/loader.py.
"""

from typing import Any

import numpy as np
from jaxtyping import Bool, Int32, Int64

from clip_jax.data.encoded import decoded_crop

OTHER, WHOLE = 0, 1  # the branches of `decode`: what Pillow decodes, JPEGs, then those at a half, a quarter, an eighth
_RATIOS = (1, 2, 4, 8)
_GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow and torchvision weigh colours


def jpeg_branches(
    crops: Int64[np.ndarray, "b 4"], plain_jpegs: Bool[np.ndarray, " b"], size: int
) -> Int32[np.ndarray, " b"]:
    """How each image is decoded of which a crop (top, left, height, width) becomes a square of `size` pixels."""
    reductions = crops[:, 2:].min(axis=1) // size
    scaled = sum(reductions >= ratio for ratio in _RATIOS[1:])
    return np.where(plain_jpegs, WHOLE + scaled, OTHER).astype(np.int32)


def decode(tf: Any, image: Any, branch: Any, crop: Any) -> Any:
    """Uint8 [h, w, 3]: the crop of an image file, of a JPEG perhaps at a smaller scale; an error where it is broken."""

    def other() -> Any:
        return tf.numpy_function(decoded_crop, [image, crop], tf.uint8)

    def jpeg(ratio: int) -> Any:
        window = crop
        if ratio > 1:
            edges = (tf.stack([crop[:2], crop[:2] + crop[2:]]) + ratio // 2) // ratio
            window = tf.concat([edges[0], edges[1] - edges[0]], 0)
        return tf.io.decode_and_crop_jpeg(image, window, channels=3, ratio=ratio, dct_method="INTEGER_ACCURATE")

    branches = [other, *(lambda ratio=ratio: jpeg(ratio) for ratio in _RATIOS)]
    return tf.ensure_shape(tf.switch_case(branch, branches), (None, None, 3))


def make_pixels(tf: Any, part: Any, flip: Any, colours: Any, size: int) -> Any:
    """Uint8 [size, size, 3] of uint8 [h, w, 3]; `colours` is three factors or none."""
    square = tf.cond(
        tf.reduce_min(tf.shape(part)[:2]) >= size,
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
