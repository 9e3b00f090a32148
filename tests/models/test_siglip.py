"""SigLIP's towers against transformers' SiglipModel in PyTorch, in float64."""

from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.closeness import relative_error
from support.torch_clip import params_from_transformers_siglip, transformers_siglip

from clip_jax.config import ClipConfig, ComputeConfig, TextConfig, TransformerConfig, VisionConfig
from clip_jax.losses import sigmoid_loss
from clip_jax.models.two_tower import Params, image_embedding, normalise, text_embedding

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")


def siglip(vision: TransformerConfig, text: TransformerConfig, image_size: int) -> ClipConfig:
    return ClipConfig(
        embed_dim=vision.width,
        vision=VisionConfig(
            image_size,
            6,
            vision,
            pooling="map",
            class_token=False,
            norm_pre=False,
            patch_bias=True,
            projection="none",
        ),
        text=TextConfig(
            text, context_length=9, vocab_size=60, pooling="last", end_token_id=None, causal=False, projection="bias"
        ),
        initial_logit_bias=-10.0,
    )


CONFIGS = {
    "whole_patches": siglip(
        TransformerConfig(width=36, layers=3, heads=3, mlp_ratio=3.5, activation="gelu_tanh", norm_epsilon=1e-6),
        TransformerConfig(width=24, layers=2, heads=4, activation="gelu_tanh", norm_epsilon=1e-6),
        image_size=24,
    ),
    # As So400m's 384 pixels in patches of 14; the last 5 rows and columns are seen by nobody.
    "remainder": siglip(
        TransformerConfig(width=32, layers=1, heads=4, activation="gelu_tanh", norm_epsilon=1e-3),
        TransformerConfig(width=40, layers=3, heads=5, mlp_ratio=2.3, activation="gelu_tanh", norm_epsilon=1e-3),
        image_size=23,
    ),
}
names = pytest.mark.parametrize("name", CONFIGS)


@lru_cache
def model_and_params(name: str) -> tuple[Any, Params]:
    """PyTorch's model, by now in float64, and its parameters in float32 as ours."""
    model = transformers_siglip(CONFIGS[name], seed=7)
    params = params_from_transformers_siglip({key: value.clone() for key, value in model.state_dict().items()})
    return model.double(), jax.tree.map(jnp.asarray, params)


def inputs(config: ClipConfig, batch: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Pixels, and token rows that are padded with 1, which is an end token as well, to different lengths."""
    rng = np.random.default_rng(8)
    size, context = config.vision.image_size, config.text.context_length
    tokens = rng.integers(2, config.text.vocab_size, (batch, context), np.int32)
    for row, length in enumerate(np.linspace(1, context, batch).astype(int)):
        tokens[row, length:] = 1
    return rng.standard_normal((batch, size, size, 3)).astype(np.float32), tokens


def torch_inputs(pixels: np.ndarray, tokens: np.ndarray) -> dict[str, Any]:
    return {"pixel_values": torch.tensor(pixels).double().permute(0, 3, 1, 2), "input_ids": torch.tensor(tokens).long()}


@pytest.mark.parametrize("layers", ["scan", "unroll"])
@names
def test_features_and_every_layer(name, layers):
    config, compute = CONFIGS[name], ComputeConfig(layers=layers)
    model, params = model_and_params(name)
    pixels, tokens = inputs(config)
    feed = torch_inputs(pixels, tokens)
    with torch.no_grad():
        vision = model.vision_model(pixel_values=feed["pixel_values"], output_hidden_states=True)
        text = model.text_model(input_ids=feed["input_ids"], output_hidden_states=True)
        last = model.text_model.final_layer_norm(text.hidden_states[-1])[:, -1]
    for embed, given, theirs, features in [
        (image_embedding, pixels, vision, vision.pooler_output),
        (text_embedding, tokens, text, last),
    ]:
        embedding, named = jax.jit(embed, static_argnums=(2, 3))(params, given, config, compute)
        assert embedding.dtype == jnp.float32
        assert relative_error(embedding, theirs.pooler_output) <= 2e-6
        assert relative_error(named["pre_projection"], features) <= 2e-6
        assert len(named["layers"]) == len(theirs.hidden_states) - 1
        for ours, layer in zip(named["layers"], theirs.hidden_states[1:], strict=True):
            assert relative_error(ours, layer) <= 2e-6


@pytest.mark.parametrize("remat", ["none", "block"])
@names
def test_loss_and_gradients(name, remat):
    config, compute = CONFIGS[name], ComputeConfig(layers="scan", remat=remat)
    model, params = model_and_params(name)
    pixels, tokens = inputs(config)
    theirs = model(**torch_inputs(pixels, tokens), return_loss=True)
    names = list(dict(model.named_parameters()))
    gradients = dict(zip(names, torch.autograd.grad(theirs.loss, list(model.parameters())), strict=True))

    def loss(params):
        image, _ = image_embedding(params, jnp.asarray(pixels), config, compute, train=True)
        text, _ = text_embedding(params, jnp.asarray(tokens), config, compute)
        return sigmoid_loss(normalise(image), normalise(text), jnp.exp(params["logit_scale"]), params["logit_bias"])

    value, ours = jax.jit(jax.value_and_grad(loss))(params)
    assert value == pytest.approx(theirs.loss.item(), rel=2e-6)
    errors = jax.tree.map(relative_error, ours, params_from_transformers_siglip(gradients))
    assert {path: error for path, error in jax.tree.leaves_with_path(errors) if error > 2e-5} == {}


@names
def test_bfloat16(name):
    """Each rounding errs by up to 2^-9 = 0.2% of a value; the whole towers were seen to err by up to 2% here."""
    config, compute = CONFIGS[name], ComputeConfig(dtype="bfloat16")
    model, params = model_and_params(name)
    pixels, tokens = inputs(config)
    with torch.no_grad():
        theirs = model(**torch_inputs(pixels, tokens))
    for embed, given, expected in [
        (image_embedding, pixels, theirs.vision_model_output.pooler_output),
        (text_embedding, tokens, theirs.text_model_output.pooler_output),
    ]:
        embedding, named = jax.jit(embed, static_argnums=(2, 3))(params, given, config, compute)
        assert {embedding.dtype, named["layers"].dtype, named["pre_projection"].dtype} == {jnp.dtype(jnp.bfloat16)}
        assert 1e-4 < relative_error(embedding, expected) < 0.03
