"""Every kind of image source to 8-bit RGB, against arithmetic on the pixels, and every mistake to one line."""

import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clip_jax.errors import UserError
from clip_jax.inputs.images import FORMATS, open_image

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 5, 3), np.uint8)
ALPHA = np.random.default_rng(1).integers(0, 256, (6, 5), np.uint8)
GREY = PIXELS[..., 0]

TRANSPOSED = (  # orientations 5 to 8
    lambda x: x.swapaxes(0, 1),
    lambda x: np.rot90(x, -1),
    lambda x: x[::-1, ::-1].swapaxes(0, 1),
    lambda x: np.rot90(x),
)


def encoded(image: Image.Image, format: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def png(width: int, height: int, depth: int, colour_type: int, rows: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG file by the specification, so that no part of Pillow decides what is in it."""
    header = (b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0))
    parts = [header, *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    body = b"".join(struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in parts)
    return b"\x89PNG\r\n\x1a\n" + body


def on_white(pixels: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    share = alpha[..., None] / 255
    return pixels * share + 255 * (1 - share)


def assert_pixels(source, expected: np.ndarray, atol: float = 0) -> None:
    image = open_image(source)
    assert image.mode == "RGB"
    if expected.ndim == 2:
        expected = np.stack([expected] * 3, axis=-1)
    np.testing.assert_allclose(np.asarray(image, float), expected, rtol=0, atol=atol)


def test_path_bytes_array_and_pil_image_are_the_same(tmp_path):
    path = tmp_path / "image.png"
    path.write_bytes(encoded(Image.fromarray(PIXELS)))
    for source in (path, str(path), path.read_bytes(), PIXELS, PIXELS[:, ::-1][:, ::-1], Image.fromarray(PIXELS)):
        assert_pixels(source, PIXELS)


def test_a_lazily_opened_pil_image_stays_usable(tmp_path):
    path = tmp_path / "image.png"
    Image.fromarray(np.dstack([PIXELS, ALPHA])).save(path)
    with Image.open(path) as image:
        open_image(image)
        assert image.mode == "RGBA"
        np.testing.assert_array_equal(np.asarray(image)[..., 3], ALPHA)


def test_rgba_is_laid_on_white():
    assert_pixels(encoded(Image.fromarray(np.dstack([PIXELS, ALPHA]))), on_white(PIXELS, ALPHA), atol=1)


def test_grey_with_alpha_is_laid_on_white():
    image = Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(ALPHA)])
    assert_pixels(encoded(image), on_white(GREY[..., None], ALPHA)[..., 0], atol=1)


def test_palette_with_alpha_is_laid_on_white():
    indices = Image.fromarray(np.arange(6, dtype=np.uint8).reshape(2, 3))
    colours = np.concatenate([PIXELS[0], [[9, 8, 7]]])
    palette = indices.copy()
    palette.putpalette(colours.ravel().tolist())
    image = Image.merge("PA", [indices, Image.fromarray(ALPHA[:2, :3])])
    image.putpalette(colours.ravel().tolist())
    assert_pixels(palette, colours.reshape(2, 3, 3))
    assert_pixels(image, on_white(colours.reshape(2, 3, 3), ALPHA[:2, :3]), atol=1)


@pytest.mark.parametrize("transparency", [None, b"\x00\x80\xff"])
def test_palette_file(transparency):
    colours, indices = np.array([[200, 10, 30], [0, 0, 0], [1, 2, 3], [250, 0, 9]]), [[0, 1], [2, 3]]
    rows = b"".join(b"\x00" + bytes(row) for row in indices)
    chunks = [(b"PLTE", colours.astype(np.uint8).tobytes())] + ([(b"tRNS", transparency)] if transparency else [])
    alpha = np.array([0, 128, 255, 255] if transparency else [255] * 4)
    assert_pixels(png(2, 2, 8, 3, rows, *chunks), on_white(colours, alpha)[indices], atol=1 if transparency else 0)


def test_gif_with_a_transparent_colour():
    image = Image.fromarray(np.array([[0, 1], [1, 0]], np.uint8))
    image.putpalette([10, 20, 30, 40, 50, 60])
    expected = np.array([[[255] * 3, [40, 50, 60]], [[40, 50, 60], [255] * 3]])
    assert_pixels(encoded(image, "GIF", transparency=0), expected)


@pytest.mark.parametrize("transparent", [False, True])
def test_16_bit_grey_is_scaled(transparent):
    values = np.array([[0, 128, 129, 257], [385, 386, 32768, 65535]])
    rows = b"".join(b"\x00" + row.astype(">u2").tobytes() for row in values)
    chunks = [(b"tRNS", struct.pack(">H", 32768))] if transparent else []
    expected = np.rint(values / 257)
    assert expected.ravel().tolist() == [0, 0, 1, 1, 1, 2, 128, 255]
    expected[1, 2] = 255 if transparent else 128
    assert_pixels(png(4, 2, 16, 0, rows, *chunks), expected)


@pytest.mark.parametrize("dtype", ["<u2", ">u2", "<i4"])
def test_16_bit_grey_of_every_mode_is_scaled(dtype):
    values = np.arange(0, 65536, 13)[None]
    assert_pixels(Image.fromarray(values.astype(dtype)), np.rint(values / 257))


@pytest.mark.parametrize("value", [-1, 65536])
def test_integers_out_of_16_bits_are_refused(value):
    with pytest.raises(UserError, match=r"integer pixels from .* must lie in 0\.\.65535"):
        open_image(Image.fromarray(np.array([[0, value]], np.int32)))


def test_floating_point_is_refused():
    with pytest.raises(UserError, match="PIL image has floating-point pixels"):
        open_image(Image.fromarray(np.zeros((2, 2), np.float32)))


def test_grey_and_one_bit():
    assert_pixels(encoded(Image.fromarray(GREY)), GREY)
    bits = GREY > 127
    assert_pixels(encoded(Image.fromarray(bits)), bits * 255)


def test_cmyk():
    cmyk = np.dstack([PIXELS, ALPHA])
    expected = (255 - PIXELS.astype(float)) * (255 - ALPHA[..., None]) / 255
    assert_pixels(encoded(Image.fromarray(cmyk, "CMYK"), "TIFF"), expected, atol=1)


@pytest.mark.parametrize(("orientation", "turn"), [(1, lambda x: x), (3, lambda x: x[::-1, ::-1]), (6, np.rot90)])
def test_exif_orientation_only_when_asked(orientation, turn):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = turn(PIXELS)  # a camera turned to the right stores the upright picture turned to the left
    file = encoded(Image.fromarray(np.ascontiguousarray(stored)), exif=exif)
    np.testing.assert_array_equal(np.asarray(open_image(file)), stored)
    np.testing.assert_array_equal(np.asarray(open_image(file, exif=True)), PIXELS)


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
def test_tiffs_are_turned_only_when_asked_too(compression):
    """Pillow turns them on its own; the value of the tag is where the stored rows and columns begin (TIFF 6.0)."""
    upright = {1: lambda x: x, 2: lambda x: x[:, ::-1], 3: lambda x: x[::-1, ::-1], 4: lambda x: x[::-1]}
    upright |= {n + 4: lambda x, turn=turn: turn(x) for n, turn in enumerate(TRANSPOSED, start=1)}
    for orientation, turn in upright.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        file = encoded(Image.fromarray(PIXELS), "TIFF", exif=exif, compression=compression)
        np.testing.assert_array_equal(np.asarray(open_image(file)), PIXELS)
        np.testing.assert_array_equal(np.asarray(open_image(Image.open(io.BytesIO(file)))), PIXELS)
        np.testing.assert_array_equal(np.asarray(open_image(file, exif=True)), turn(PIXELS))


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_that_is_named_is_read(format):
    assert_pixels(encoded(Image.new("RGB", (8, 8), (255, 0, 0)), format), np.full((8, 8, 3), [255, 0, 0]), atol=3)


def corrupt(data: bytes) -> bytes:
    """A PNG whose compressed pixels are damaged."""
    start = data.index(b"IDAT") + 4
    return data[:start] + bytes(255 - byte for byte in data[start : start + 20]) + data[start + 20 :]


NOISE = Image.fromarray(np.random.default_rng(2).integers(0, 256, (64, 64, 3), np.uint8))
BROKEN = {
    "empty": (b"", "is not an image in one of the formats JPEG, PNG, "),
    "text": (b"a dog", "is not an image in one of the formats JPEG, PNG, "),
    "program.jpg": (encoded(NOISE, "EPS"), "is not an image in one of the formats JPEG, PNG, "),
    "truncated.jpg": (encoded(NOISE, "JPEG")[:1500], "is corrupt or truncated"),
    "truncated.png": (encoded(NOISE)[:1500], "is corrupt or truncated"),
    "truncated.webp": (encoded(NOISE, "WEBP")[:1500], "is "),
    "corrupt.png": (corrupt(encoded(NOISE)), "is corrupt or truncated"),
    "bomb.png": (png(20000, 20000, 1, 0, b""), "has too many pixels"),
    "warned_bomb.png": (png(10000, 10000, 1, 0, b""), "has too many pixels"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_are_named(tmp_path, name):
    data, complaint = BROKEN[name]
    (tmp_path / name).write_bytes(data)
    for source, described in ((tmp_path / name, f"image '{tmp_path / name}'"), (data, "image bytes")):
        with pytest.raises(UserError) as raised:
            open_image(source)
        message = str(raised.value)
        assert message.startswith(f"{described} {complaint}")
        assert "\n" not in message


def test_truncated_pil_image_is_refused():
    with pytest.raises(UserError, match="PIL image is corrupt or truncated"):
        open_image(Image.open(io.BytesIO(BROKEN["truncated.jpg"][0])))


def test_missing_file_and_directory_are_named(tmp_path):
    with pytest.raises(UserError, match=r"none\.jpg' does not exist"):
        open_image(tmp_path / "none.jpg")
    with pytest.raises(UserError, match=f"image '{tmp_path}' is a directory"):
        open_image(tmp_path)
    with pytest.raises(UserError, match="cannot be opened"):
        open_image("nul\0byte.jpg")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError, match="cannot be opened"):
        open_image(tmp_path / "file" / "below.jpg")


@pytest.mark.parametrize(
    ("array", "described"),
    [
        (np.zeros((4, 5, 3), np.float32), r"float32 of \[4, 5, 3\]"),
        (np.zeros((4, 5), np.uint8), r"uint8 of \[4, 5\]"),
        (np.zeros((3, 4, 5), np.uint8), r"uint8 of \[3, 4, 5\]"),
        (np.zeros((2, 4, 5, 3), np.uint8), r"uint8 of \[2, 4, 5, 3\]"),
        (np.zeros((0, 5, 3), np.uint8), r"uint8 of \[0, 5, 3\]"),
    ],
)
def test_other_arrays_are_refused(array, described):
    with pytest.raises(UserError, match=rf"must be uint8 of shape \[h, w, 3\], not {described}"):
        open_image(array)


def test_other_types_are_refused():
    # In a process of its own: under pytest the type checker would object before the code under test does.
    script = (
        "from clip_jax.inputs.images import UserError, open_image\n"
        "try: open_image(['cat.jpg'])\n"
        "except UserError as error: print(error)\n"
    )
    root = Path(__file__).parents[2]
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=root)
    assert run.stdout == "an image must be a path, bytes, a PIL image or a uint8 [h, w, 3] array, not a list\n"
