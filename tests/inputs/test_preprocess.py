"""Pixels and floats against the torchvision transforms that open_clip evaluates with."""

import io

import numpy as np
import pytest
from PIL import Image
from support.open_clip_shim import import_open_clip

from clip_jax.config import PreprocessConfig
from clip_jax.errors import UserError
from clip_jax.inputs.preprocess import normalise, preprocess, resize_and_crop

MODES = ["shortest", "longest", "squash"]
SHAPES = [(32, 32), (33, 32), (48, 64), (65, 47), (100, 33), (20, 31), (7, 5), (1, 1), (3, 190), (250, 4), (301, 299)]


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * 1000 + width).integers(0, 256, (height, width, 3), np.uint8)


def reference_transform(config: PreprocessConfig, size: int):
    """open_clip's evaluation transform, as a function from a uint8 [h, w, 3] array to float32 [size, size, 3]."""
    try:
        open_clip = import_open_clip()
    except ImportError as error:
        pytest.skip(f"needs open_clip: {error}")
    transform = open_clip.transform.image_transform(
        size,
        is_train=False,
        mean=config.mean,
        std=config.std,
        interpolation=config.interpolation,
        resize_mode=config.resize,
        fill_color=config.fill,
    )
    return lambda pixels: transform(Image.fromarray(pixels)).numpy().transpose(1, 2, 0)


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", [32, 33])
def test_same_floats_as_torchvision(mode, interpolation, size):
    config = PreprocessConfig(resize=mode, interpolation=interpolation, fill=77)
    images = [noise(*shape) for shape in SHAPES]
    transform = reference_transform(config, size)
    expected = np.stack([transform(image) for image in images])
    np.testing.assert_allclose(preprocess(images, config, size), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("shape", [(1200, 11), (1, 300), (1200, 3), (2, 777), (3100, 12)])
def test_thin_images(shape):
    """Those above 256 times as long as wide are cropped first, where float32 boxes may move a pixel by one level."""
    config = PreprocessConfig(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    expected = reference_transform(config, 32)(noise(*shape))
    np.testing.assert_allclose(preprocess([noise(*shape)], config, 32)[0], expected, rtol=0, atol=1.01 / 255)


@pytest.mark.parametrize("shape", [(1, 5000), (5000, 1), (1, 60000)])
def test_extremely_thin_images_keep_their_middle(shape):
    """As if only the 20 pixels in the middle were there, which Pillow can enlarge whole."""
    height, width = shape
    image = Image.fromarray(noise(height, width))
    middle = image.crop(
        (max(0, width // 2 - 10), max(0, height // 2 - 10), min(width, width // 2 + 10), min(height, height // 2 + 10))
    )
    expected = resize_and_crop(middle, PreprocessConfig(), 224)
    pixels = resize_and_crop(image, PreprocessConfig(), 224)
    np.testing.assert_allclose(pixels.astype(float), expected, rtol=0, atol=1)


@pytest.mark.parametrize(("mode", "content"), [("longest", 1), ("squash", 224)])
@pytest.mark.parametrize("shape", [(1, 5000), (5000, 1)])
def test_extremely_thin_images_fit_whole(mode, content, shape):
    pixels = resize_and_crop(Image.new("RGB", shape[::-1], "white"), PreprocessConfig(resize=mode), 224)
    assert (pixels == 255).sum() == content * 224 * 3


def test_normalise_is_the_formula():
    config = PreprocessConfig(mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    pixels = noise(4, 6)
    expected = (pixels.astype(np.float64) / 255 - [0.1, 0.2, 0.3]) / [0.4, 0.5, 0.6]
    np.testing.assert_allclose(normalise(pixels, config), expected, rtol=0, atol=1e-6)
    np.testing.assert_allclose(normalise(pixels[None], config)[0], expected, rtol=0, atol=1e-6)


def test_sources_mix_and_keep_their_order(tmp_path):
    images = [noise(8 + i, 9) for i in range(12)]
    file = io.BytesIO()
    Image.fromarray(images[1]).save(file, "PNG")
    (tmp_path / "2.png").write_bytes(file.getvalue())
    Image.fromarray(images[2]).save(tmp_path / "2.png")
    sources = [images[0], file.getvalue(), tmp_path / "2.png", Image.fromarray(images[3]), *images[4:]]
    expected = np.concatenate([preprocess([image], PreprocessConfig(), 8) for image in images])
    np.testing.assert_array_equal(preprocess(sources, PreprocessConfig(), 8), expected)


def test_exif_is_passed_on():
    exif = Image.Exif()
    exif[0x0112] = 3
    file = io.BytesIO()
    Image.fromarray(noise(8, 8)).save(file, "PNG", exif=exif)
    upright, turned = (preprocess([file.getvalue()], PreprocessConfig(), 8, exif=exif)[0] for exif in (True, False))
    np.testing.assert_array_equal(upright, turned[::-1, ::-1])


def test_colours_are_converted_before_the_resize():
    """A palette image gives the pixels of the same image in RGB, which Pillow's resize of palettes does not."""
    palette = Image.fromarray(noise(40, 40)).quantize(16)
    rgb = np.asarray(palette.convert("RGB"))
    config = PreprocessConfig()
    np.testing.assert_array_equal(preprocess([palette], config, 16), preprocess([rgb], config, 16))


def test_no_images_make_no_rows():
    assert preprocess([], PreprocessConfig(), 8).shape == (0, 8, 8, 3)


def test_one_bad_image_among_many_is_named(tmp_path):
    with pytest.raises(UserError, match=r"gone\.png' does not exist"):
        preprocess([noise(4, 4)] * 20 + [tmp_path / "gone.png"], PreprocessConfig(), 8)
