"""Images to the pixels a vision tower takes: resized and cropped by Pillow on 8 bits, then normalised.

The pixels are those of the torchvision transforms that OpenAI and open_clip evaluate with, or of transformers' image
processors on Pillow, as the model's config says. One difference from the former is meant: images become RGB before the
resize, not after it, since Pillow resizes palettes by nearest neighbour.
"""

import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image

from clip_jax.config import PreprocessConfig
from clip_jax.inputs.images import ImageSource, open_image

RESAMPLING = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}

# Where the short side becomes `size`, a thin image (a ruled line, say) may become gigabytes, nearly all cropped away.
# One that is longer than THIN times its width is therefore cropped first.
THIN = 256


def preprocess(
    images: Sequence[ImageSource], config: PreprocessConfig, size: int, exif: bool = False
) -> Float32[np.ndarray, "b size size 3"]:
    """Model input from image sources, decoded in parallel threads. Raises UserError as `open_image` does."""

    def pixels_of(source: ImageSource) -> np.ndarray:
        return resize_and_crop(open_image(source, exif), config, size)

    pixels = np.empty((len(images), size, size, 3), np.uint8)
    with ThreadPoolExecutor(min(os.cpu_count() or 1, 16)) as pool:  # Pillow decodes and resizes without the GIL
        for i, image_pixels in enumerate(pool.map(pixels_of, images)):
            pixels[i] = image_pixels
    return normalise(pixels, config)


def normalise(pixels: UInt8[np.ndarray, "*b h w 3"], config: PreprocessConfig) -> Float32[np.ndarray, "*b h w 3"]:
    """(pixels / 255 - mean) / std, in float32."""
    scaled = pixels.astype(np.float32)
    scaled /= np.float32(255)
    scaled -= np.asarray(config.mean, np.float32)
    scaled /= np.asarray(config.std, np.float32)
    return scaled


def resize_and_crop(image: Image.Image, config: PreprocessConfig, size: int) -> UInt8[np.ndarray, "size size 3"]:
    """An RGB image as a square of `size` pixels, by the resize mode of `config`."""
    resampling = RESAMPLING[config.interpolation]
    if config.resize == "squash":
        square = image.resize((size, size), resampling)
    elif config.resize == "longest":
        square = _fit_and_pad(image, size, resampling, config.fill)
    else:
        square = _fill_and_crop(image, size, resampling, config.crop_offset)
    return np.asarray(square)


def _fit_and_pad(image: Image.Image, size: int, resampling: Image.Resampling, fill: int) -> Image.Image:
    ratio = max(image.size) / size
    width, height = (max(1, round(side / ratio)) for side in image.size)
    square = Image.new("RGB", (size, size), (fill, fill, fill))
    square.paste(image.resize((width, height), resampling), ((size - width) // 2, (size - height) // 2))
    return square


def _fill_and_crop(image: Image.Image, size: int, resampling: Image.Resampling, crop_offset: str) -> Image.Image:
    short = min(image.size)
    width, height = (int(size * side / short) for side in image.size)  # truncated, as torchvision does
    half = round if crop_offset == "round" else math.floor
    left, top = half((width - size) / 2), half((height - size) / 2)
    if max(width, height) <= THIN * size:
        return image.resize((width, height), resampling).crop((left, top, left + size, top + size))
    x0, x1, box_x0, box_x1 = _source_of(left, size, image.width, width)
    y0, y1, box_y0, box_y1 = _source_of(top, size, image.height, height)
    return image.crop((x0, y0, x1, y1)).resize((size, size), resampling, box=(box_x0, box_y0, box_x1, box_y1))


def _source_of(start: int, size: int, length: int, resized: int) -> tuple[int, int, float, float]:
    """Along one axis: the source pixels that matter to resized pixels start..start+size, and the box in them.

    The same pixels as a crop after the resize, or one level off, since Pillow holds boxes in float32. Only where a
    height above 256 * size shrinks may they differ by more: Pillow then swaps the order of its two passes.
    """
    scale = length / resized
    reach = math.ceil(3 * max(1.0, scale))  # the bicubic kernel spans two pixels to each side
    low = max(0, math.floor(start * scale) - reach)
    high = min(length, math.ceil((start + size) * scale) + reach)
    return low, high, start * scale - low, min((start + size) * scale, length) - low
