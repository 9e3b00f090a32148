"""What else open_clip's own towers can be, against them in float64: CLIPA's, layer scale, poolings, projections."""

from dataclasses import replace
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.closeness import relative_error
from support.open_clip_shim import import_open_clip
from support.torch_clip import params_from_open_clip, randomise

from clip_jax.config import ClipConfig, ComputeConfig, TextConfig, TransformerConfig, VisionConfig
from clip_jax.models.two_tower import Params, image_embedding, init_params, text_embedding

torch = pytest.importorskip("torch")

IMAGE = TransformerConfig(width=24, layers=2, heads=3, activation="gelu")
WORDS = TransformerConfig(width=20, layers=3, heads=5, activation="gelu")
VISION = VisionConfig(22, 5, IMAGE)
TEXT = TextConfig(WORDS, context_length=8, vocab_size=50)

# Our towers, and what is said of the same in open_clip's vision and text configs.
CASES: dict[str, tuple[VisionConfig, TextConfig, dict[str, Any], dict[str, Any]]] = {
    "clipa": (
        replace(VISION, pooling="mean", norm_pre=False),
        replace(TEXT, pooling="last", causal=False),
        {"no_ln_pre": True, "pool_type": "avg", "final_ln_after_pool": True},
        {"pool_type": "last", "no_causal_mask": True},
    ),
    "layer_scale": (
        replace(VISION, transformer=replace(IMAGE, layer_scale=0.1)),
        replace(TEXT, transformer=replace(WORDS, layer_scale=0.3), projection="bias"),
        {"ls_init_value": 0.1},
        {"ls_init_value": 0.3, "proj_bias": True},
    ),
    "end_token": (
        VISION,
        replace(TEXT, pooling="end_token", end_token_id=17, projection="none"),
        {},
        {"pool_type": "eos", "eos_id": 17, "proj_type": "none"},
    ),
}
names = pytest.mark.parametrize("name", CASES)


@lru_cache
def model_params_and_config(name: str) -> tuple[Any, Params, ClipConfig]:
    """PyTorch's model, by now in float64, its parameters in float32 as ours, and our config."""
    vision, text, their_vision, their_text = CASES[name]
    open_clip = import_open_clip()
    model = open_clip.CLIP(
        20,
        open_clip.CLIPVisionCfg(image_size=22, patch_size=5, width=24, layers=2, head_width=8, **their_vision),
        open_clip.CLIPTextCfg(context_length=8, vocab_size=50, width=20, layers=3, heads=5, **their_text),
    )
    randomise(model.eval(), seed=9)
    params = params_from_open_clip({key: value.clone() for key, value in model.state_dict().items()})
    return model.double(), jax.tree.map(jnp.asarray, params), ClipConfig(20, vision, text)


def inputs() -> tuple[np.ndarray, np.ndarray]:
    """Pixels; tokens with the end token nowhere, once at the start, once within, twice, and last."""
    rng = np.random.default_rng(10)
    tokens = rng.integers(18, 50, (5, 8), np.int32)
    for row, places in enumerate([[], [0], [3], [2, 5], [7]]):
        tokens[row, places] = 17
    return rng.standard_normal((5, 22, 22, 3)).astype(np.float32), tokens


@names
def test_features_and_gradients(name):
    model, params, config = model_params_and_config(name)
    pixels, tokens = inputs()
    image = model.encode_image(torch.tensor(pixels).double().permute(0, 3, 1, 2))
    text = model.encode_text(torch.tensor(tokens).long())
    sides = np.random.default_rng(11).standard_normal((2, *image.shape))
    total = (image * torch.tensor(sides[0])).sum() + (text * torch.tensor(sides[1])).sum()
    parameters = {key: leaf for key, leaf in model.named_parameters() if key != "logit_scale"}
    gradients = dict(zip(parameters, torch.autograd.grad(total, list(parameters.values())), strict=True))

    def products(params, pixels, tokens):
        ours, _ = image_embedding(params, pixels, config, ComputeConfig())
        words, _ = text_embedding(params, tokens, config, ComputeConfig())
        return (ours * jnp.float32(sides[0])).sum() + (words * jnp.float32(sides[1])).sum(), (ours, words)

    grads, (ours, words) = jax.jit(jax.grad(products, has_aux=True))(params, pixels, tokens)
    assert relative_error(ours, image.detach()) <= 2e-6
    assert relative_error(words, text.detach()) <= 2e-6
    expected = params_from_open_clip(gradients | {"logit_scale": torch.ones(())})
    for (path, leaf), theirs in zip(jax.tree.leaves_with_path(grads), jax.tree.leaves(expected), strict=True):
        if path[-1].key != "logit_scale":
            assert relative_error(leaf, theirs) <= 2e-5, path


@names
def test_parameters_have_the_same_shapes(name):
    _, params, config = model_params_and_config(name)
    shapes = jax.eval_shape(lambda: init_params(config, jax.random.key(0)))
    assert jax.tree.map(jnp.shape, shapes) == jax.tree.map(jnp.shape, params)
