"""A sample's image before pixels are made of it: is it sound, how large is it, and who decodes it.

TensorFlow decodes whole 8-bit JPEGs, which is fast; everything else is Pillow's. A look at an image's header and end
costs little, keeps it as small as it is stored, and finds most of what is bad while many samples are read at once.
"""

import io
import warnings
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image

from clip_jax.data.table import BadSample, Sample
from clip_jax.errors import UserError
from clip_jax.inputs.images import FORMATS, open_image

MOST_PIXELS = 2**26  # 8,192 x 8,192, of 200 MB
_STANDALONE = {0x01, *range(0xD0, 0xD9)}  # markers without a length
_FRAMES = {0xC0, 0xC1, 0xC2}  # baseline, extended and progressive Huffman


@dataclass(frozen=True)
class Encoded:
    """What is known of an image file: height and width, and whether it is a JPEG that TensorFlow decodes."""

    size: tuple[int, int]
    plain_jpeg: bool


def encoded(sample: Sample, trust: bool = True) -> Encoded | BadSample:
    """What the image of `sample` is, or why there is none.

    An image that has a header and an end is trusted to be whole in between; without `trust` Pillow decodes all.
    """
    size = jpeg_size(sample.image) if trust else None
    plain_jpeg = size is not None
    try:
        if size is None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)
                width, height = Image.open(io.BytesIO(sample.image), formats=FORMATS).size
            size = height, width
            if height * width <= MOST_PIXELS and not (trust and _has_end(sample.image)):
                width, height = open_image(sample.image).size
                size = height, width
    except Exception as error:  # Pillow raises nearly anything over damaged files
        if isinstance(error, Image.DecompressionBombError):
            return BadSample(sample.key, "too many pixels", f"the image is too large to be opened: {error}")
        reason = (
            str(error) if isinstance(error, UserError) else f"it is no image in one of the formats {', '.join(FORMATS)}"
        )
        return BadSample(sample.key, "bad image", reason)
    if size[0] * size[1] > MOST_PIXELS:
        return BadSample(sample.key, "too many pixels", f"the image has {size[1]:,} x {size[0]:,} pixels")
    return Encoded(size, plain_jpeg)


def decoded_crop(data: bytes, crop: Int[np.ndarray, " 4"]) -> UInt8[np.ndarray, "h w 3"]:
    """A crop (top, left, height, width) by Pillow. Raises UserError where the image is broken, or smaller than that."""
    top, left, height, width = crop.tolist()
    image = open_image(data)
    if left + width > image.width or top + height > image.height:
        raise UserError(f"the image has {image.width} x {image.height} pixels, fewer than its header says")
    return np.asarray(image.crop((left, top, left + width, top + height)))


def _has_end(data: bytes) -> bool:
    """Whether a PNG or WebP file has its end; no other format is known here."""
    if data[:4] == b"RIFF":
        return len(data) >= 8 + int.from_bytes(data[4:8], "little")
    return data[:4] == b"\x89PNG" and b"IEND" in data[-32:]


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
