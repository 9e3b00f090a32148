"""A sample's image before pixels are made of it: is it sound, how large is it, and who decodes it.

TensorFlow decodes whole 8-bit JPEGs, which is fast. Everything else is Pillow's: other formats, and JPEGs that may be
truncated, so that a bad image is found here and not in the middle of a TensorFlow program.
"""

import io
import warnings
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from clip_jax.data.table import BadSample, Sample
from clip_jax.errors import UserError
from clip_jax.inputs.images import open_image

MOST_PIXELS = 2**26  # 8,192 x 8,192, of 200 MB
_STANDALONE = {0x01, *range(0xD0, 0xD9)}  # markers without a length
_FRAMES = {0xC0, 0xC1, 0xC2}  # baseline, extended and progressive Huffman


@dataclass(frozen=True)
class Encoded:
    """An image that is sound: a JPEG file, or RGB pixels [h, w, 3]; `size` is height and width."""

    data: bytes | UInt8[np.ndarray, "h w 3"]
    size: tuple[int, int]


def encoded(sample: Sample, trust_jpeg: bool = True) -> Encoded | BadSample:
    """The image of `sample`, or why there is none. Where JPEGs are not trusted, Pillow decodes those too."""
    size = jpeg_size(sample.image) if trust_jpeg else None
    try:
        if size is None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)
                width, height = Image.open(io.BytesIO(sample.image)).size
                if width * height <= MOST_PIXELS:
                    pixels = np.asarray(open_image(sample.image))
                    return Encoded(pixels, (height, width))
            size = height, width
    except Exception as error:  # Pillow raises nearly anything over damaged files
        if isinstance(error, Image.DecompressionBombError):
            return BadSample(sample.key, "too many pixels", f"the image is too large to be opened: {error}")
        reason = str(error) if isinstance(error, UserError) else "it is no image that Pillow knows"
        return BadSample(sample.key, "bad image", reason)
    if size[0] * size[1] > MOST_PIXELS:
        return BadSample(sample.key, "too many pixels", f"the image has {size[1]:,} x {size[0]:,} pixels")
    return Encoded(sample.image, size)


def jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Height and width of a whole JPEG of 8-bit grey or colour; None for whatever else, a truncated one included."""
    if data[:2] != b"\xff\xd8":
        return None
    place, size = 2, None
    while place + 4 <= len(data):
        if data[place] != 0xFF:
            return None
        marker = data[place + 1]
        if marker == 0xFF:  # padding
            place += 1
            continue
        if marker in _STANDALONE:
            place += 2
            continue
        if marker == 0xDA:  # the scan begins, and ends with the mark that may not occur in it
            return size if data.rfind(b"\xff\xd9", place) >= 0 else None
        length = int.from_bytes(data[place + 2 : place + 4])
        if marker in _FRAMES:
            frame = data[place + 4 : place + 10]
            if len(frame) < 6 or frame[0] != 8 or frame[5] not in (1, 3):
                return None
            size = int.from_bytes(frame[1:3]), int.from_bytes(frame[3:5])
            if 0 in size:
                return None
        place += 2 + length
    return None
