"""Positions resampled for another resolution or context length, against PyTorch and open_clip."""

import json
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import pytest
from support.checkpoints import (
    channels_first,
    random_pixels,
    random_tokens,
    stored,
    toy_siglip,
    write_open_clip,
)
from support.closeness import relative_error
from support.open_clip_shim import import_open_clip

import clip_jax
from clip_jax import Clip, UserError
from clip_jax.cli.main import main
from clip_jax.weights.resample import resample_grid, resample_line

torch = pytest.importorskip("torch")

WEIGHTS, CONFIG = "open_clip_model.safetensors", "open_clip_config.json"


@pytest.fixture(scope="module", autouse=True)
def toy() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        toy_siglip(patch)
        yield


def in_torch(grid: np.ndarray, new: int) -> np.ndarray:
    """PyTorch's bicubic interpolation in float64, as open_clip asks for it."""
    old, width = int(len(grid) ** 0.5), grid.shape[1]
    maps = torch.tensor(grid).double().reshape(1, old, old, width).permute(0, 3, 1, 2)
    maps = torch.nn.functional.interpolate(maps, size=(new, new), mode="bicubic", antialias=True, align_corners=False)
    return maps.permute(0, 2, 3, 1).reshape(new * new, width).numpy()


@pytest.mark.parametrize(("old", "new"), [(7, 12), (16, 24), (24, 16), (14, 27), (9, 2), (5, 1), (1, 4), (6, 6)])
@pytest.mark.parametrize("class_row", [True, False])
def test_grids(old, new, class_row):
    positions = np.random.default_rng(old).standard_normal((old * old + class_row, 5)).astype(np.float32)
    resampled = resample_grid(positions, old, new, class_row)
    assert resampled.dtype == np.float32
    np.testing.assert_array_equal(resampled[:class_row], positions[:class_row])
    assert relative_error(resampled[class_row:], in_torch(positions[class_row:], new)) <= 2e-6


@pytest.mark.parametrize(("old", "new"), [(77, 248), (64, 77), (77, 32), (16, 15), (9, 1), (1, 5)])
def test_lines(old, new):
    positions = np.random.default_rng(old).standard_normal((old, 5)).astype(np.float32)
    line = torch.tensor(positions).double().T[None]
    expected = torch.nn.functional.interpolate(line, size=new, mode="linear", antialias=False, align_corners=False)
    resampled = resample_line(positions, new)
    assert resampled.dtype == np.float32
    # A place on the line is a float32 of up to 77, so it may be off by 77 / 2^24, which is 5e-6.
    assert relative_error(resampled, expected[0].T) <= 1e-5


def features_of(model: Any, image_size: int, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    with torch.no_grad():
        image = model.eval().encode_image(channels_first(random_pixels(image_size)))
        return image.numpy(), model.encode_text(torch.tensor(tokens).long()).numpy()


def assert_features(clip: Clip, image_size: int, tokens: np.ndarray, expected: tuple[np.ndarray, np.ndarray]) -> None:
    assert relative_error(clip.encode_image(random_pixels(image_size)), expected[0]) <= 1e-5
    assert relative_error(clip.encode_text(tokens), expected[1]) <= 1e-5


@pytest.mark.parametrize(
    ("name", "image_size", "context_length"),
    [
        pytest.param("ViT-B-32-quickgelu", 61, 21, marks=pytest.mark.slow),
        ("ViT-B-32-quickgelu", 24, 7),
        pytest.param("ViT-B-16-SigLIP2", 48, 12, marks=pytest.mark.slow),
    ],
)
def test_features_are_those_of_open_clip(tmp_path, name, image_size, context_length):
    """As it loads the same folder at another size itself."""
    write_open_clip(tmp_path, name)
    model = import_open_clip().create_model(
        f"local-dir:{tmp_path}", force_image_size=image_size, force_context_length=context_length
    )
    clip = clip_jax.load(tmp_path, image_size=image_size, context_length=context_length, resample_text=True)
    vocab_size = clip.config.text.vocab_size
    tokens = random_tokens(context_length, vocab_size, vocab_size - 1)
    assert_features(clip, image_size, tokens, features_of(model, image_size, tokens))


def test_a_resnets_positions(tmp_path):
    """open_clip does not resize these; the mean's row stays, and the map's positions are resampled as a grid."""
    model = write_open_clip(tmp_path, "RN50")
    positions = model.visual.attnpool.positional_embedding.detach().numpy()
    clip = clip_jax.load(tmp_path, image_size=160)
    ours = np.asarray(clip.params["visual"]["attention_pool"]["positional_embedding"])
    np.testing.assert_array_equal(ours[0], positions[0])
    assert relative_error(ours[1:], in_torch(positions[1:], 5)) <= 2e-6
    with torch.no_grad():
        resized = torch.cat([torch.tensor(positions[:1]), torch.tensor(in_torch(positions[1:], 5)).float()])
        model.visual.attnpool.positional_embedding = torch.nn.Parameter(resized)
        expected = model.encode_image(channels_first(random_pixels(160)))
    assert relative_error(clip.encode_image(random_pixels(160)), expected) <= 1e-5


def test_a_shorter_context_keeps_the_first_positions(tmp_path):
    """Behind the end token nothing matters, so that short texts have the features that they had."""
    model = write_open_clip(tmp_path, "ViT-B-32-quickgelu")
    clip = clip_jax.load(tmp_path, context_length=10)
    tokens = random_tokens(16, 49408, 49407)
    tokens[:, 9:] = 0
    tokens[2, 9] = 49407
    with torch.no_grad():
        expected = model.encode_text(torch.tensor(tokens).long())
    assert relative_error(clip.encode_text(tokens[:, :10]), expected) <= 1e-5
    assert clip.tokenize("a dog").shape == (1, 10)


def test_a_longer_context_must_be_asked_for(tmp_path):
    write_open_clip(tmp_path, "ViT-B-32-quickgelu")
    for length in (17, 0, -3):
        with pytest.raises(UserError) as caught:
            clip_jax.load(tmp_path, context_length=length)
        assert str(caught.value) == (
            f"context length {length} is not within the 16 positions that were trained; resample_text=True "
            "(--resample-text) stretches them"
        )
    with pytest.raises(UserError, match="context length 0 "):
        clip_jax.load(tmp_path, context_length=0, resample_text=True)


@pytest.mark.parametrize("image_size", [37, 32, 39])
def test_the_same_grid_changes_nothing(tmp_path, image_size):
    """Other pixels, but as many patches."""
    write_open_clip(tmp_path / "source", "ViT-B-32-quickgelu")
    clip = clip_jax.load(tmp_path / "source", image_size=image_size, context_length=16)
    assert clip.config.vision.image_size == image_size
    clip_jax.save(clip, tmp_path / "back", layout="open_clip")
    assert stored(tmp_path / "back" / WEIGHTS) == stored(tmp_path / "source" / WEIGHTS)


@pytest.mark.parametrize("by_way_of", ["memory", "convert"])
def test_only_positions_change_their_type(tmp_path, by_way_of):
    """Resampled values are written in float32, all others as they were."""
    tensors = write_open_clip(tmp_path / "source", "ViT-B-32-quickgelu").state_dict()
    half = {key: tensor.half() for key, tensor in tensors.items()}
    write_open_clip(tmp_path / "source", "ViT-B-32-quickgelu", tensors=half)
    if by_way_of == "memory":
        clip_jax.save(clip_jax.load(tmp_path / "source", image_size=64), tmp_path / "back", layout="open_clip")
    else:
        flags = ["--image-size", "64", "--to", "open_clip"]
        main(["convert", str(tmp_path / "source"), str(tmp_path / "back"), *flags])
    before, after = (stored(tmp_path / folder / WEIGHTS) for folder in ("source", "back"))
    assert {key for key in before if before[key] != after[key]} == {"visual.positional_embedding"}
    dtype, shape, content = after["visual.positional_embedding"]
    assert (dtype, shape) == ("torch.float32", (65, 32))
    expected = in_torch(half["visual.positional_embedding"][1:].float().numpy(), 8)
    assert relative_error(np.frombuffer(content, np.float32).reshape(65, 32)[1:], expected) <= 2e-6


def test_a_cut_context_keeps_its_type(tmp_path):
    tensors = write_open_clip(tmp_path / "source", "ViT-B-32-quickgelu").state_dict()
    write_open_clip(
        tmp_path / "source", "ViT-B-32-quickgelu", tensors={key: tensor.half() for key, tensor in tensors.items()}
    )
    clip_jax.save(clip_jax.load(tmp_path / "source", context_length=7), tmp_path / "back", layout="open_clip")
    dtype, shape, content = stored(tmp_path / "back" / WEIGHTS)["positional_embedding"]
    assert (dtype, shape) == ("torch.float16", (7, 40))
    assert content == tensors["positional_embedding"][:7].half().numpy().tobytes()


def test_open_clip_loads_what_was_resized_here(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    write_open_clip(source, "ViT-M-16-alt")
    flags = ["--image-size", "61", "--context-length", "15", "--resample-text", "--to", "open_clip"]
    main(["convert", str(source), str(target), *flags])
    config = json.loads((target / CONFIG).read_text())
    assert config["model_cfg"]["vision_cfg"]["image_size"] == 61
    assert config["model_cfg"]["text_cfg"]["context_length"] == 15
    assert config["preprocess_cfg"]["size"] == 61
    open_clip = import_open_clip()
    theirs = open_clip.create_model(f"local-dir:{source}", force_image_size=61, force_context_length=15)
    ours = open_clip.create_model(f"local-dir:{target}")
    tokens = random_tokens(15, 60, 59)
    for a, b in zip(features_of(ours, 61, tokens), features_of(theirs, 61, tokens), strict=True):
        assert relative_error(a, b) <= 1e-5


def test_a_model_that_was_resized_can_be_resized_again(tmp_path):
    write_open_clip(tmp_path / "source", "ViT-M-16-alt")
    clip_jax.save(clip_jax.load(tmp_path / "source", image_size=64), tmp_path / "larger")
    once = clip_jax.load(tmp_path / "larger", image_size=40)
    assert once.config.vision.grid == 5
    assert once.params["visual"]["positional_embedding"].shape == (26, 32)
    kept = {key: leaf for key, leaf in once.params["visual"].items() if key != "positional_embedding"}
    original = clip_jax.load(tmp_path / "source").params["visual"]
    jax.tree.map(np.testing.assert_array_equal, kept, {key: original[key] for key in kept})
