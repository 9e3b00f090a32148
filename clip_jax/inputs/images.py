"""Image files, bytes, arrays and PIL images of every mode to 8-bit RGB."""

import io
import os
from typing import TypeAlias

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from clip_jax.errors import UserError

ImageSource: TypeAlias = str | os.PathLike[str] | bytes | Image.Image | np.ndarray
"""A path, the bytes of an image file, a PIL image, or a uint8 array [h, w, 3]."""

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
"""The formats of Pillow that are opened; what the web has under an image's name may start others' programs (EPS)."""
EXTENSIONS = ("jpg", "png", "jpeg", "webp", "gif", "bmp", "tif", "tiff")
"""How files in these formats end; of several images the first goes, as in open_clip."""

_UNTURNED = {  # from a TIFF as Pillow turns it by its orientation, to the pixels that are stored
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def open_image(source: ImageSource, exif: bool = False) -> Image.Image:
    """`source` as a PIL image in mode RGB, 8 bits a channel. A PIL image given is not changed.

    Transparency is laid on white. 16-bit greys, and 32-bit integers where they fit 0..65535, are scaled to 8 bits
    rather than clipped. Orientation stored in EXIF is applied only with `exif`, as OpenAI and open_clip ignore it.
    Raises UserError, naming the file, for what is missing, in none of FORMATS, corrupt, truncated, too large or
    floating-point.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source)
    if isinstance(source, Image.Image):
        return _decoded(source, exif, "PIL image")
    if isinstance(source, bytes):
        return _from_file(io.BytesIO(source), exif, "image bytes")
    if not isinstance(source, str | os.PathLike):
        raise UserError(
            f"an image must be a path, bytes, a PIL image or a uint8 [h, w, 3] array, not a {type(source).__name__}"
        )
    path = os.fspath(source)
    if os.path.isdir(path):
        raise UserError(f"image '{path}' is a directory; give the path of a file in it")
    try:
        with open(path, "rb") as file:
            return _from_file(file, exif, f"image '{path}'")
    except FileNotFoundError as error:
        raise UserError(f"image '{path}' does not exist") from error
    except (OSError, ValueError) as error:  # no permission, a name too long or with a zero byte in it
        raise UserError(f"image '{path}' cannot be opened: {error}") from error


def _from_array(array: np.ndarray) -> Image.Image:
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or array.size == 0:
        raise UserError(f"an image array must be uint8 of shape [h, w, 3], not {array.dtype} of {list(array.shape)}")
    return Image.fromarray(np.ascontiguousarray(array))


def _from_file(file: io.BytesIO | io.BufferedReader, exif: bool, name: str) -> Image.Image:
    try:
        image = Image.open(file, formats=FORMATS)
    except UnidentifiedImageError as error:
        raise UserError(f"{name} is not an image in one of the formats {', '.join(FORMATS)}") from error
    except Exception as error:
        raise _unreadable(name, error) from error
    return _decoded(image, exif, name)


def _decoded(image: Image.Image, exif: bool, name: str) -> Image.Image:
    try:
        turned = image.getexif().get(ExifTags.Base.Orientation) if image.format == "TIFF" else None
        image.load()
        if turned in _UNTURNED and not exif:
            image = image.transpose(_UNTURNED[turned])
        return _to_rgb(ImageOps.exif_transpose(image) if exif else image, name)
    except UserError:
        raise
    except Exception as error:
        raise _unreadable(name, error) from error


def _unreadable(name: str, error: Exception) -> UserError:
    """Corrupt files make Pillow raise nearly anything: OSError, SyntaxError, ValueError, struct.error, EOFError."""
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return UserError(f"{name} has too many pixels to be opened safely; make it smaller first")
    return UserError(f"{name} is corrupt or truncated: {' '.join(str(error).split()) or type(error).__name__}")


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    if image.mode == "RGB" and not image.has_transparency_data:
        return image
    if image.mode == "F":
        raise UserError(f"{name} has floating-point pixels; convert it to 8 bits a channel, on a scale you choose")
    if image.mode.startswith("I"):  # I, and I;16 in its byte orders
        return _from_16_bit_grey(image, name)
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def _from_16_bit_grey(image: Image.Image, name: str) -> Image.Image:
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise UserError(f"{name} has integer pixels from {values.min()} to {values.max()}; they must lie in 0..65535")
    grey = (values + 128) // 257  # 65535 is 255 * 257
    if "transparency" in image.info:
        grey[values == image.info["transparency"]] = 255
    return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
