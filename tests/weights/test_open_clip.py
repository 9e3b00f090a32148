"""Folders of open_clip, read, run, written back and loaded again by the unmodified library."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from safetensors import safe_open
from support.checkpoints import (
    OPEN_CLIP,
    OPENAI_PREPROCESS,
    SIGLIP_WORDS,
    SQUASH,
    TIMM,
    TOKENIZERS,
    channels_first,
    open_clip_model,
    random_pixels,
    random_tokens,
    stored,
    toy_siglip,
    write_jpegs,
    write_json,
    write_open_clip,
)
from support.closeness import relative_error
from support.open_clip_shim import import_open_clip
from support.varied_texts import varied_texts

import clip_jax
from clip_jax import Clip, UserError
from clip_jax.sharding import MeshConfig, make_mesh
from clip_jax.weights.checkpoint import Origin
from clip_jax.weights.loading import find_checkpoint
from clip_jax.weights.writing import write_checkpoint

torch = pytest.importorskip("torch")

WEIGHTS, CONFIG = "open_clip_model.safetensors", "open_clip_config.json"
HALF_STACK = "visual.transformer.resblocks.1."


@dataclass(frozen=True)
class Source:
    """A folder that open_clip can load, the model in it, and what we read from it."""

    name: str
    folder: Path
    model: Any
    clip: Clip

    def inputs(self) -> tuple[np.ndarray, np.ndarray]:
        text = self.clip.config.text
        end = text.vocab_size - 1 if text.end_token_id is None else text.end_token_id
        pixels = random_pixels(self.clip.config.vision.image_size)
        return pixels, random_tokens(text.context_length, text.vocab_size, end)


@pytest.fixture(scope="module", autouse=True)
def toy() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        toy_siglip(patch)
        yield


@pytest.fixture(scope="module")
def jpegs(tmp_path_factory) -> list[Path]:
    return write_jpegs(tmp_path_factory.mktemp("jpegs"))


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=pytest.mark.slow if name == "custom text, RN50" else ()) for name in OPEN_CLIP],
)
def source(request, tmp_path_factory) -> Source:
    folder = tmp_path_factory.mktemp("open_clip")
    model = write_open_clip(folder, request.param)
    return Source(request.param, folder, model, clip_jax.load(folder))


def features(model: Any, pixels: np.ndarray, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    with torch.no_grad():
        image, text = model.encode_image(channels_first(pixels)), model.encode_text(torch.tensor(tokens).long())
    return image.numpy(), text.numpy()


def convert(source: Path, target: Path, layout: str) -> Path:
    write_checkpoint(find_checkpoint(source), target, layout, overwrite=False)
    return target


def assert_equal_params(a: Clip, b: Clip) -> None:
    assert a.config == b.config
    jax.tree.map(np.testing.assert_array_equal, a.params, b.params)


def test_features_of_equal_inputs(source):
    pixels, tokens = source.inputs()
    image, text = features(source.model, pixels, tokens)
    assert relative_error(source.clip.encode_image(pixels), image) <= 1e-5
    assert relative_error(source.clip.encode_text(tokens), text) <= 1e-5
    assert source.clip.logit_scale == pytest.approx(source.model.logit_scale.exp().item(), rel=1e-6)
    bias = source.model.logit_bias
    assert source.clip.logit_bias == (0 if bias is None else bias.item())


def test_features_of_image_files(source, jpegs):
    """Each side reads, resizes and normalises by itself."""
    model, transform = import_open_clip().create_model_from_pretrained(f"local-dir:{source.folder}")
    from PIL import Image

    with torch.no_grad():
        expected = model.eval().encode_image(torch.stack([transform(Image.open(path)) for path in jpegs]))
    assert relative_error(source.clip.encode_image(jpegs), expected) <= 1e-4


def test_strings_become_the_same_ids(source):
    """For models whose vocabulary was not cut."""
    if source.name not in (*TOKENIZERS, "ViT-B-32-quickgelu"):
        pytest.skip("a vocabulary smaller than its tokenizer's")
    texts = [text for text in varied_texts(150, seed=3) if text.isprintable()]
    expected = import_open_clip().get_tokenizer(f"local-dir:{source.folder}")(texts)
    np.testing.assert_array_equal(source.clip.tokenize(texts), expected)


@pytest.mark.parametrize("by_way_of", ["memory", "clip_jax", "open_clip"])
def test_back_again_is_bit_identical(source, tmp_path, by_way_of):
    if by_way_of == "memory":
        clip_jax.save(source.clip, tmp_path / "back", layout="open_clip")
    else:
        convert(convert(source.folder, tmp_path / "between", by_way_of), tmp_path / "back", "open_clip")
    assert stored(tmp_path / "back" / WEIGHTS) == stored(source.folder / WEIGHTS)
    config, original = (json.loads((folder / CONFIG).read_text()) for folder in (tmp_path / "back", source.folder))
    assert config == original
    for file in source.folder.glob("tokenizer*"):
        assert (tmp_path / "back" / file.name).read_bytes() == file.read_bytes()


def test_loading_what_was_saved(source, tmp_path):
    clip_jax.save(source.clip, tmp_path / "model")
    again = clip_jax.load(tmp_path / "model")
    assert_equal_params(again, source.clip)
    assert again.origin == source.clip.origin
    assert again.tokenizer_files == source.clip.tokenizer_files


def test_open_clip_loads_a_config_that_is_ours(source, tmp_path, jpegs):
    """Without the source's own config, as for a model that was trained here."""
    from PIL import Image

    clip_jax.save(replace(source.clip, origin=Origin()), tmp_path / "model", layout="open_clip")
    open_clip = import_open_clip()
    model, transform = open_clip.create_model_from_pretrained(f"local-dir:{tmp_path / 'model'}")
    _, expected_transform = open_clip.create_model_from_pretrained(f"local-dir:{source.folder}")
    for ours, theirs in zip(
        features(model.eval(), *source.inputs()), features(source.model, *source.inputs()), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)
    for image in map(Image.open, jpegs):
        np.testing.assert_array_equal(transform(image), expected_transform(image))
    if source.name not in ("ViT-SO400M-16-SigLIP-i18n-256",):
        texts = ["a photo of a dog", "  Two  cats,   &amp; a bird "]
        ids = [open_clip.get_tokenizer(f"local-dir:{f}")(texts) for f in (tmp_path / "model", source.folder)]
        np.testing.assert_array_equal(*ids)
    assert_equal_params(clip_jax.load(tmp_path / "model"), source.clip)


@pytest.mark.parametrize("name", ["ViT-M-16-alt", "RN50", "ViT-B-16-SigLIP2"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_files_of_torch_save(tmp_path, name, wrapped):
    model = write_open_clip(tmp_path / "source", name)
    expected = stored(tmp_path / "source" / WEIGHTS)
    (tmp_path / "source" / WEIGHTS).unlink()
    tensors = model.state_dict()
    if wrapped:
        tensors = {"state_dict": {f"module.{key}": value for key, value in tensors.items()}, "epoch": 3, "name": "run"}
    torch.save(tensors, tmp_path / "source" / "open_clip_pytorch_model.bin")
    convert(tmp_path / "source", tmp_path / "back", "open_clip")
    assert stored(tmp_path / "back" / WEIGHTS) == expected
    clip_jax.save(clip_jax.load(tmp_path / "source" / "open_clip_pytorch_model.bin"), tmp_path / "b", "open_clip")
    assert stored(tmp_path / "b" / WEIGHTS) == expected


def narrowed(tensors: dict[str, Any], dtype: Any, prefix: str = "") -> dict[str, Any]:
    return {k: v.to(dtype) if v.is_floating_point() and k.startswith(prefix) else v for k, v in tensors.items()}


def in_types(name: str, types: str) -> dict[str, Any]:
    """A state dict whose tensors are not, or not all, float32."""
    model = open_clip_model(OPEN_CLIP[name])
    tensors = dict(model.state_dict())
    match types:
        case "float16" | "bfloat16" | "float64":
            return narrowed(tensors, getattr(torch, types))
        case "OpenAI's":  # convolutions, linear layers and projections in float16, norms and embeddings in float32
            import_open_clip().model.convert_weights_to_fp16(model)
            return dict(model.state_dict())
        case "one layer":
            return narrowed(tensors, torch.float16, prefix=HALF_STACK)
        case "float16 and bfloat16":
            return narrowed(narrowed(tensors, torch.bfloat16), torch.float16, prefix=HALF_STACK)
        case _:
            raise ValueError(types)


TYPES = {
    "ViT-M-16-alt": ("float16", "bfloat16", "float64", "OpenAI's", "one layer", "float16 and bfloat16"),
    "RN50": ("float16", "bfloat16", "OpenAI's"),
    "custom text": ("float16",),
    "custom text, no bias": ("OpenAI's",),
    "ViT-B-16-SigLIP2": ("bfloat16",),
    "ViT-SO400M-16-SigLIP-i18n-256": ("OpenAI's",),
}
typed = pytest.mark.parametrize(("name", "types"), [(name, types) for name, all_ in TYPES.items() for types in all_])


@typed
def test_types_survive(tmp_path, name, types):
    tensors = in_types(name, types)
    write_open_clip(tmp_path / "source", name, tensors=tensors)
    expected = stored(tmp_path / "source" / WEIGHTS)
    assert len({dtype for dtype, _, _ in expected.values()} - {"torch.int64"}) >= (2 if "OpenAI" in types else 1)
    convert(convert(tmp_path / "source", tmp_path / "between", "clip_jax"), tmp_path / "back", "open_clip")
    assert stored(tmp_path / "back" / WEIGHTS) == expected
    convert(convert(tmp_path / "back", tmp_path / "again", "clip_jax"), tmp_path / "twice", "open_clip")
    assert stored(tmp_path / "twice" / WEIGHTS) == expected


@typed
def test_types_survive_memory(tmp_path, name, types):
    if types == "float64":
        pytest.skip("in memory, parameters are float32")
    write_open_clip(tmp_path / "source", name, tensors=in_types(name, types))
    clip = clip_jax.load(tmp_path / "source")
    assert {leaf.dtype.name for leaf in jax.tree.leaves(clip.params)} == {"float32"}
    clip_jax.save(clip, tmp_path / "back", layout="open_clip")
    assert stored(tmp_path / "back" / WEIGHTS) == stored(tmp_path / "source" / WEIGHTS)
    clip_jax.save(clip, tmp_path / "between")
    clip_jax.save(clip_jax.load(tmp_path / "between"), tmp_path / "twice", layout="open_clip")
    assert stored(tmp_path / "twice" / WEIGHTS) == stored(tmp_path / "source" / WEIGHTS)


@pytest.mark.parametrize("value", [1 + 2.0**-20, 1e6], ids=["too fine for float16", "too large for float16"])
def test_what_was_trained_on_is_written_without_loss(tmp_path, value):
    write_open_clip(tmp_path / "source", "ViT-M-16-alt", tensors=in_types("ViT-M-16-alt", "float16"))
    clip = clip_jax.load(tmp_path / "source")
    bias = clip.params["visual"]["norm_post"]["bias"]
    clip.params["visual"]["norm_post"]["bias"] = bias.at[3].set(value)
    clip.params["text"]["transformer"]["block"]["norm_1"]["scale"] += 2.0**-20
    clip_jax.save(clip, tmp_path / "back", layout="open_clip")
    before, after = stored(tmp_path / "source" / WEIGHTS), stored(tmp_path / "back" / WEIGHTS)
    changed = {"visual.ln_post.bias", *(f"transformer.resblocks.{layer}.ln_1.weight" for layer in (0, 1))}
    assert {key for key in before if before[key] != after[key]} == changed
    assert {after[key][0] for key in changed} == {"torch.float32"}
    written = np.frombuffer(after["visual.ln_post.bias"][2], np.float32)
    np.testing.assert_array_equal(written, clip.params["visual"]["norm_post"]["bias"])
    assert written[3] == np.float32(value)


def test_buffers_that_follow_from_the_architecture_are_left_out(tmp_path):
    model = open_clip_model(OPEN_CLIP["RN50"])
    tensors = {key: value for key, value in model.state_dict().items() if not key.endswith("num_batches_tracked")}
    mask = {"attn_mask": torch.zeros(9, 9), "text.transformer.embeddings.position_ids": torch.arange(9)[None]}
    write_open_clip(tmp_path / "source", "RN50", tensors=tensors | mask)
    clip_jax.save(clip_jax.load(tmp_path / "source"), tmp_path / "back", layout="open_clip")
    source = stored(tmp_path / "source" / WEIGHTS)
    expected = {key: value for key, value in source.items() if key not in mask}
    assert stored(tmp_path / "back" / WEIGHTS) == expected
    # A layout that wants counters, by another way, gets such as have counted nothing.
    clip_jax.save(clip_jax.load(tmp_path / "source"), tmp_path / "between")
    ours = replace(clip_jax.load(tmp_path / "between"), origin=Origin())
    clip_jax.save(ours, tmp_path / "new", layout="open_clip")
    new = stored(tmp_path / "new" / WEIGHTS)
    assert {key: value for key, value in new.items() if not key.endswith("num_batches_tracked")} == expected
    assert {value for key, value in new.items() if key.endswith("num_batches_tracked")} == {
        ("torch.int64", (), bytes(8))
    }


def test_a_resized_siglip_is_not_written_for_timm(tmp_path):
    """open_clip builds the tower by timm's name, for the size in that name."""
    write_open_clip(tmp_path / "source", "ViT-B-16-SigLIP2")
    clip = clip_jax.load(tmp_path / "source", image_size=48)
    with pytest.raises(UserError, match=r"timm has none .* 48 pixels"):
        clip_jax.save(clip, tmp_path / "back", layout="open_clip")
    assert not (tmp_path / "back").exists()


# Towers of the released widths; those of open_clip's own kind with two layers.
H = {"image_size": 224, "layers": 2, "width": 1280, "head_width": 80, "patch_size": 14}
SHORT = {"context_length": 77, "vocab_size": 1000, "layers": 2}
SIGLIP = {"init_logit_bias": -10, "custom_text": True}
LARGE = {
    "ViT-H-14": {"embed_dim": 1024, "vision_cfg": H, "text_cfg": {**SHORT, "width": 1024, "heads": 16}},
    "ViT-g-14": {
        "embed_dim": 1024,
        "vision_cfg": {**H, "width": 1408, "head_width": 88, "mlp_ratio": 4.3637},
        "text_cfg": {**SHORT, "width": 1024, "heads": 16},
    },
    "ViT-bigG-14": {
        "embed_dim": 1280,
        "vision_cfg": {**H, "width": 1664, "head_width": 104, "mlp_ratio": 4.9231},
        "text_cfg": {**SHORT, "width": 1280, "heads": 20},
    },
    "RN50": {
        "embed_dim": 1024,
        "vision_cfg": {"image_size": 224, "layers": [3, 4, 6, 3], "width": 64, "patch_size": None},
        "text_cfg": {**SHORT, "width": 512, "heads": 8},
    },
    "ViT-B-16-SigLIP": {
        **{"embed_dim": 768, **SIGLIP},
        "vision_cfg": {"image_size": 224, "timm_model_name": "vit_base_patch16_siglip_224", **TIMM},
        "text_cfg": {**SIGLIP_WORDS, "width": 768, "heads": 12, "proj_bias": True},
    },
    "ViT-SO400M-16-SigLIP-i18n-256": {
        **{"embed_dim": 1152, **SIGLIP},
        "vision_cfg": {"image_size": 256, "timm_model_name": "vit_so400m_patch16_siglip_256", **TIMM},
        "text_cfg": {**SIGLIP_WORDS, "width": 1152, "heads": 16, "mlp_ratio": 3.7362, "proj_type": "none"},
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
def test_towers_of_the_released_widths(tmp_path, jpegs, name):
    from PIL import Image

    model = write_open_clip(tmp_path / "source", name, config=LARGE[name])
    write_json(
        tmp_path / "source" / CONFIG,
        {"model_cfg": LARGE[name], "preprocess_cfg": SQUASH if "SigLIP" in name else OPENAI_PREPROCESS},
    )
    source = Source(name, tmp_path / "source", model, on_one_device(clip_jax.load(tmp_path / "source")))
    pixels, tokens = source.inputs()
    image, text = features(model, pixels, tokens)
    del model
    assert relative_error(source.clip.encode_image(pixels), image) <= 1e-5
    assert relative_error(source.clip.encode_text(tokens), text) <= 1e-5
    loaded, transform = import_open_clip().create_model_from_pretrained(f"local-dir:{source.folder}")
    with torch.no_grad():
        expected = loaded.eval().encode_image(torch.stack([transform(Image.open(path)) for path in jpegs]))
    assert relative_error(source.clip.encode_image(jpegs), expected) <= 1e-4
    del loaded
    clip_jax.save(replace(source.clip, origin=Origin()), tmp_path / "ours", layout="open_clip")
    again, _ = import_open_clip().create_model_from_pretrained(f"local-dir:{tmp_path / 'ours'}")
    for ours, theirs in zip(features(again.eval(), pixels, tokens), (image, text), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    del again
    convert(convert(source.folder, tmp_path / "between", "clip_jax"), tmp_path / "back", "open_clip")
    with safe_open(source.folder / WEIGHTS, "pt") as before, safe_open(tmp_path / "back" / WEIGHTS, "pt") as after:
        assert before.keys() == after.keys()
        for key in before.keys():  # noqa: SIM118 (it is no dict)
            assert before.get_tensor(key).dtype == after.get_tensor(key).dtype, key
            assert torch.equal(before.get_tensor(key), after.get_tensor(key)), key


def on_one_device(clip: Clip) -> Clip:
    """Or each of the eight would hold all parameters."""
    place = NamedSharding(make_mesh(MeshConfig(), jax.devices()[:1]), PartitionSpec())
    return replace(clip, params=jax.device_put(clip.params, place))
