"""Archives like OpenAI's: TorchScript in a mix of types, whose shapes say nothing of heads and activation."""

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from support.checkpoints import channels_first, open_clip_model, random_pixels, random_tokens, stored
from support.closeness import relative_error
from support.open_clip_shim import import_open_clip

import clip_jax
from clip_jax import Clip, UserError
from clip_jax.config import (
    ClipConfig,
    PreprocessConfig,
    ResNetConfig,
    TextConfig,
    TokenizerConfig,
    TransformerConfig,
    VisionConfig,
)
from clip_jax.models.two_tower import init_params

torch = pytest.importorskip("torch")

WEIGHTS = "model.safetensors"
WORDS = {"context_length": 9, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 1}
MODELS = {
    "ViT": {
        "embed_dim": 24,
        "quick_gelu": True,
        "vision_cfg": {"image_size": 32, "patch_size": 8, "width": 192, "layers": 2},
        "text_cfg": WORDS,
    },
    "RN": {
        "embed_dim": 24,
        "quick_gelu": True,
        "vision_cfg": {"image_size": 64, "layers": [1, 2, 1, 1], "width": 8, "patch_size": None},
        "text_cfg": WORDS,
    },
}
SIZES = ("input_resolution", "context_length", "vocab_size")
names = pytest.mark.parametrize("name", MODELS)


def in_openai_types(name: str) -> Any:
    """The model with convolutions, linear layers and projections in float16, all else in float32."""
    model = open_clip_model(MODELS[name])
    import_open_clip().model.convert_weights_to_fp16(model)
    return model


def write_archive(path: Path, model: Any, sizes: bool = True) -> None:
    """TorchScript of the model, with OpenAI's three sizes among its tensors."""
    if sizes:
        for name in SIZES:
            vars(model).pop(name, None)
            model.register_buffer(name, torch.tensor(9))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated, but has made OpenAI's files
        torch.jit.save(torch.jit.script(model), path)


def assert_same_features(clip: Clip, model: Any) -> None:
    """The model's in float32, in which clip.load runs it on CPUs."""
    pixels, tokens = random_pixels(clip.config.vision.image_size), random_tokens(9, 49408, 49407)
    with torch.no_grad():
        model = model.float()
        image, text = model.encode_image(channels_first(pixels)), model.encode_text(torch.tensor(tokens).long())
    assert relative_error(clip.encode_image(pixels), image) <= 1e-5
    assert relative_error(clip.encode_text(tokens), text) <= 1e-5


@pytest.mark.parametrize("sizes", [True, False])
@names
def test_an_archive_needs_no_flags(tmp_path, name, sizes):
    """Not even where it lacks the sizes: then its code, which is only looked at, has no GELU but the quick one."""
    model = in_openai_types(name)
    write_archive(tmp_path / "model.pt", model, sizes)
    clip = clip_jax.load(tmp_path / "model.pt")
    assert clip.config.text.transformer.activation == "quick_gelu"
    assert clip.config.text.transformer.heads == 1
    assert clip.config.tokenizer == TokenizerConfig()
    vision = clip.config.vision
    if isinstance(vision, ResNetConfig):
        assert (vision.heads, vision.layers) == (4, (1, 2, 1, 1))
    else:
        assert (vision.transformer.heads, vision.transformer.activation) == (3, "quick_gelu")
    assert clip.config.preprocess == PreprocessConfig()
    assert_same_features(clip, model)


@names
@pytest.mark.parametrize("source", ["archive", "state dict"])
def test_what_is_written_is_what_openai_reads(tmp_path, name, source):
    """Bit by bit, and in the code that builds OpenAI's models from a state dict alone."""
    from safetensors.torch import load_file

    model = in_openai_types(name)
    tensors = {key: value.clone() for key, value in model.state_dict().items()}
    if source == "archive":
        write_archive(tmp_path / "model.pt", model)
    else:
        torch.save(tensors | {size: torch.tensor(9) for size in SIZES}, tmp_path / "model.pt")
    clip = clip_jax.load(tmp_path / "model.pt")
    clip_jax.save(clip, tmp_path / "back", layout="openai")
    written = load_file(tmp_path / "back" / WEIGHTS)
    assert written.keys() == tensors.keys()
    for key, value in tensors.items():
        assert written[key].dtype == value.dtype, key
        assert torch.equal(written[key], value), key
    built = import_open_clip().model.build_model_from_openai_state_dict(written, cast_dtype=None)
    assert_same_features(clip, built)
    again = clip_jax.load(tmp_path / "back")
    assert again.config == clip.config
    jax.tree.map(np.testing.assert_array_equal, again.params, clip.params)


@names
def test_another_librarys_torchscript_is_not_taken_for_openais(tmp_path, name):
    """open_clip scripts its models as well, most of which have another activation."""
    write_archive(tmp_path / "model.pt", open_clip_model({**MODELS[name], "quick_gelu": False}), sizes=False)
    with pytest.raises(UserError, match="give --activation, --vision-heads, --text-heads"):
        clip_jax.load(tmp_path / "model.pt")
    heads = 4 if name == "RN" else 3
    clip = clip_jax.load(tmp_path / "model.pt", activation="gelu", vision_heads=heads, text_heads=1)
    assert_same_features(clip, open_clip_model({**MODELS[name], "quick_gelu": False}))


@pytest.mark.parametrize("path", ["open_clip", "hf", "clip_jax"])
def test_openais_weights_in_other_layouts(tmp_path, path):
    """float16 stays float16 and float32 stays float32 on the way to another layout and back."""
    model = in_openai_types("ViT")
    write_archive(tmp_path / "model.pt", model)
    clip_jax.save(clip_jax.load(tmp_path / "model.pt"), tmp_path / "direct", layout="openai")
    clip_jax.save(clip_jax.load(tmp_path / "model.pt"), tmp_path / path, layout=path)
    clip_jax.save(clip_jax.load(tmp_path / path), tmp_path / "back", layout="openai")
    assert stored(tmp_path / "back" / WEIGHTS) == stored(tmp_path / "direct" / WEIGHTS)


def with_random_params(config: ClipConfig) -> Clip:
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: init_params(config, jax.random.key(0)))
    return Clip(config, jax.tree.map(lambda leaf: 0.1 * rng.standard_normal(leaf.shape, np.float32), shapes))


STACK = TransformerConfig(width=128, layers=1, heads=2)
PLAIN = ClipConfig(24, VisionConfig(32, 8, STACK), TextConfig(STACK, 9, 60))
RESNET = replace(PLAIN, vision=ResNetConfig(64, (1, 1, 1, 1), width=8, heads=4))


@pytest.mark.parametrize(
    ("config", "difference"),
    [
        (replace(PLAIN, vision=VisionConfig(32, 8, replace(STACK, heads=4))), "vision.transformer.heads 4 (there 2)"),
        (replace(RESNET, vision=replace(RESNET.vision, heads=8)), "vision.heads 8 (there 4)"),
        (
            replace(PLAIN, text=replace(PLAIN.text, transformer=replace(STACK, activation="gelu"))),
            "text.transformer.activation gelu (there quick_gelu)",
        ),
        (
            replace(PLAIN, vision=VisionConfig(32, 8, replace(STACK, norm_epsilon=1e-6))),
            "vision.transformer.norm_epsilon 1e-06 (there 1e-05)",
        ),
        (
            replace(PLAIN, vision=VisionConfig(32, 8, replace(STACK, mlp_ratio=2.0))),
            "vision.transformer.mlp_ratio 2.0 (there 4.0)",
        ),
        (
            replace(PLAIN, text=replace(PLAIN.text, transformer=replace(STACK, layer_scale=0.1))),
            "text.transformer.layer_scale 0.1 (there None)",
        ),
        (replace(PLAIN, vision=VisionConfig(32, 8, STACK, "mean")), "vision.pooling mean (there class_token)"),
        (replace(PLAIN, vision=VisionConfig(32, 8, STACK, norm_pre=False)), "vision.norm_pre False (there True)"),
        (replace(PLAIN, vision=VisionConfig(37, 8, STACK)), "vision.image_size 37 (there 32)"),
        (replace(PLAIN, text=replace(PLAIN.text, projection="bias")), "text.projection bias (there no_bias)"),
        (replace(PLAIN, text=replace(PLAIN.text, pooling="last")), "text.pooling last (there argmax)"),
        (replace(PLAIN, text=replace(PLAIN.text, causal=False)), "text.causal False (there True)"),
        (
            replace(PLAIN, text=replace(PLAIN.text, pooling="end_token", end_token_id=7)),
            "text.pooling end_token (there argmax), text.end_token_id 7 (there None)",
        ),
        (replace(PLAIN, initial_logit_bias=-10.0), "initial_logit_bias -10.0 (there None)"),
    ],
)
def test_models_that_openais_code_gets_wrong(tmp_path, config, difference):
    clip = with_random_params(config)
    with pytest.raises(UserError) as caught:
        clip_jax.save(clip, tmp_path / "model", layout="openai")
    assert str(caught.value) == (
        f"OpenAI's code would build something else than this model, which has {difference}; write the layout open_clip"
    )
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    "config",
    [
        PLAIN,
        RESNET,
        replace(PLAIN, text=replace(PLAIN.text, pooling="end_token", end_token_id=59)),
        replace(PLAIN, preprocess=PreprocessConfig(crop_offset="floor"), tokenizer=TokenizerConfig(pad_id=59)),
        replace(PLAIN, preprocess=PreprocessConfig(resize="squash")),  # of which that code knows nothing
    ],
    ids=["ViT", "RN", "end token", "from transformers", "own preprocessing"],
)
def test_models_that_openais_code_gets_right(tmp_path, config):
    tensors = write_openai(tmp_path / "model", config)
    model = import_open_clip().model.build_model_from_openai_state_dict(dict(tensors))
    built = model.state_dict()
    assert built.keys() == tensors.keys()
    for key, tensor in tensors.items():  # linear layers and projections become float16
        assert torch.equal(built[key], tensor.to(built[key].dtype)), key


def test_the_last_token_of_the_vocabulary_is_the_largest(tmp_path):
    """OpenAI's code pools at the largest id, which is what our config calls the end token."""
    config = replace(PLAIN, text=replace(PLAIN.text, pooling="end_token", end_token_id=59))
    tensors = write_openai(tmp_path / "model", config)
    model = import_open_clip().model.build_model_from_openai_state_dict(dict(tensors)).float()
    model.load_state_dict(tensors)
    tokens = random_tokens(9, 60, 59)
    with torch.no_grad():
        expected = model.encode_text(torch.tensor(tokens).long())
    assert relative_error(clip_jax.load(tmp_path / "model").encode_text(tokens), expected) <= 1e-5


def write_openai(folder: Path, config: ClipConfig) -> dict[str, Any]:
    from safetensors.torch import load_file

    clip_jax.save(with_random_params(config), folder, layout="openai")
    return load_file(folder / WEIGHTS)
