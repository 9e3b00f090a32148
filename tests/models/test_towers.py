"""Both towers against transformers' CLIPModel in PyTorch, in float64 where the question is who is right."""

from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from support.closeness import relative_error
from support.torch_clip import params_from_transformers, transformers_clip

from clip_jax.clip import Clip
from clip_jax.config import ClipConfig, ComputeConfig, TextConfig, TransformerConfig, VisionConfig
from clip_jax.losses import softmax_loss
from clip_jax.models.transformer import layer_norm
from clip_jax.models.two_tower import Params, init_params, normalise
from clip_jax.presets import get_config

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

# Heads that are not 64 wide, MLPs that are not four times as wide, epsilons that are not the default.
CONFIGS = {
    "quick_gelu": ClipConfig(
        embed_dim=20,
        vision=VisionConfig(24, 6, TransformerConfig(width=36, layers=3, heads=3, mlp_ratio=3.5)),
        text=TextConfig(TransformerConfig(width=40, layers=2, heads=5), context_length=11, vocab_size=600),
    ),
    "gelu": ClipConfig(
        embed_dim=28,
        vision=VisionConfig(20, 10, TransformerConfig(width=32, layers=2, heads=8, activation="gelu")),
        text=TextConfig(
            TransformerConfig(width=24, layers=4, heads=3, mlp_ratio=4.3637, activation="gelu", norm_epsilon=1e-3),
            context_length=9,
            vocab_size=530,
        ),
    ),
    "gelu_tanh": ClipConfig(
        embed_dim=12,
        vision=VisionConfig(
            16, 4, TransformerConfig(width=24, layers=1, heads=2, activation="gelu_tanh", norm_epsilon=1e-2)
        ),
        text=TextConfig(
            TransformerConfig(width=16, layers=2, heads=1, activation="gelu_tanh", norm_epsilon=1e-2),
            context_length=7,
            vocab_size=514,
        ),
    ),
}
names = pytest.mark.parametrize("name", CONFIGS)


@lru_cache
def model_and_params(name: str) -> tuple[Any, Params]:
    """PyTorch's model, by now in float64, and its parameters in float32 as ours."""
    model = transformers_clip(CONFIGS[name], seed=1)
    params = params_from_transformers({key: value.clone() for key, value in model.state_dict().items()})
    return model.double(), params


def inputs(config: ClipConfig, batch: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Pixels, and token rows that end at different places, one of them with the last of its tokens."""
    rng = np.random.default_rng(2)
    size, context, end = config.vision.image_size, config.text.context_length, config.text.vocab_size - 1
    tokens = rng.integers(1, end - 1, (batch, context), np.int32)
    for row, length in enumerate(np.linspace(1, context - 1, batch).astype(int)):
        tokens[row, length] = end
        tokens[row, length + 1 :] = 0
    return rng.standard_normal((batch, size, size, 3)).astype(np.float32), tokens


def torch_inputs(pixels: np.ndarray, tokens: np.ndarray) -> dict[str, Any]:
    return {"pixel_values": torch.tensor(pixels).permute(0, 3, 1, 2), "input_ids": torch.tensor(tokens).long()}


@names
def test_features_and_every_layer(name):
    config = CONFIGS[name]
    model, params = model_and_params(name)
    clip = Clip(config, params)
    pixels, tokens = inputs(config)
    feed = torch_inputs(pixels, tokens)
    with torch.no_grad():
        vision = model.vision_model(pixel_values=feed["pixel_values"].double(), output_hidden_states=True)
        text = model.text_model(input_ids=feed["input_ids"], output_hidden_states=True)
        projected = {
            "visual": model.visual_projection(vision.pooler_output),
            "text": model.text_projection(text.pooler_output),
        }
    for tower, apply, given, theirs in [
        ("visual", clip.apply_image, pixels, vision),
        ("text", clip.apply_text, tokens, text),
    ]:
        embedding, named = jax.jit(apply, static_argnames="intermediates")(params, given, intermediates=True)
        assert embedding.dtype == jnp.float32
        assert relative_error(embedding, projected[tower]) <= 2e-6
        assert relative_error(named["pre_projection"], theirs.pooler_output) <= 2e-6
        assert len(named["layers"]) == len(theirs.hidden_states) - 1
        for ours, layer in zip(named["layers"], theirs.hidden_states[1:], strict=True):
            assert relative_error(ours, layer) <= 2e-6


@names
def test_similarity_is_transformers_logits(name):
    config = CONFIGS[name]
    model, params = model_and_params(name)
    clip = Clip(config, params)
    texts = ["a dog", "two cats and a very long story about all of their friends", "3"]
    pixels, _ = inputs(config)
    feed = torch_inputs(pixels, clip.tokenize(texts))
    with torch.no_grad():
        expected = model(input_ids=feed["input_ids"], pixel_values=feed["pixel_values"].double()).logits_per_image
    assert relative_error(clip.similarity(pixels, texts), expected) <= 2e-6


@lru_cache
def torch_gradients(name: str) -> Params:
    """The gradients of CLIP's loss by PyTorch's autograd, in float64."""
    model, _ = model_and_params(name)
    feed = torch_inputs(*inputs(CONFIGS[name]))
    logits = model(input_ids=feed["input_ids"], pixel_values=feed["pixel_values"].double()).logits_per_image
    targets = torch.arange(len(logits))
    loss = torch.nn.functional.cross_entropy(logits, targets) + torch.nn.functional.cross_entropy(logits.T, targets)
    gradients = torch.autograd.grad(loss / 2, list(model.parameters()))
    return params_from_transformers(dict(zip(dict(model.named_parameters()), gradients, strict=True)))


@pytest.mark.parametrize(
    ("name", "layers", "remat"),
    [("quick_gelu", layers, remat) for layers in ("scan", "unroll") for remat in ("none", "block", "dots")]
    + [("gelu", "unroll", "none"), ("gelu_tanh", "scan", "none")],
)
def test_features_and_gradients_however_layers_run(name, layers, remat):
    config = CONFIGS[name]
    model, params = model_and_params(name)
    clip = Clip(config, params, ComputeConfig(layers=layers, remat=remat))
    feed = torch_inputs(*inputs(config))
    pixels, tokens = map(jnp.asarray, inputs(config))

    def loss(params):
        image, text = clip.apply_image(params, pixels), clip.apply_text(params, tokens)
        return softmax_loss(normalise(image), normalise(text), jnp.exp(params["logit_scale"])), (image, text)

    gradients, (image, text) = jax.jit(jax.grad(loss, has_aux=True))(params)
    with torch.no_grad():
        theirs = model(input_ids=feed["input_ids"], pixel_values=feed["pixel_values"].double())
    assert relative_error(normalise(image), theirs.image_embeds) <= 2e-6
    assert relative_error(normalise(text), theirs.text_embeds) <= 2e-6
    errors = jax.tree.map(relative_error, gradients, torch_gradients(name))
    assert {path: error for path, error in jax.tree.leaves_with_path(errors) if error > 2e-5} == {}


@pytest.mark.parametrize("layers", ["scan", "unroll"])
@names
def test_bfloat16(name, layers):
    """Each rounding errs by up to 2^-9 = 0.2% of a value; the whole towers were seen to err by up to 1.5% here."""
    _, params = model_and_params(name)
    compute = ComputeConfig(dtype="bfloat16", layers=layers)
    pixels, tokens = inputs(CONFIGS[name])
    exact, rounded = Clip(CONFIGS[name], params), Clip(CONFIGS[name], params, compute)
    for method, given in [("encode_image", pixels), ("encode_text", tokens)]:
        error = relative_error(getattr(rounded, method)(given), getattr(exact, method)(given))
        assert 1e-4 < error < 0.03
    embedding, named = rounded.apply_image(params, jnp.asarray(pixels), intermediates=True)
    assert {embedding.dtype, named["layers"].dtype, named["pre_projection"].dtype} == {jnp.dtype(jnp.bfloat16)}


def test_cudnn_is_asked_for_attention():
    """No accelerator is here, and only cuDNN's attention misses it."""
    _, params = model_and_params("quick_gelu")
    clip = Clip(CONFIGS["quick_gelu"], params, ComputeConfig("bfloat16", attention="cudnn"))
    with pytest.raises(RuntimeError, match="cuDNN is not detected"):
        clip.encode_text(inputs(CONFIGS["quick_gelu"])[1])


def test_layer_norm_of_values_far_from_zero():
    """Where the mean of squares less the square of the mean would have lost three of seven digits."""
    values = (300 + np.random.default_rng(4).standard_normal((6, 64))).astype(np.float32)
    exact = torch.nn.functional.layer_norm(torch.tensor(values).double(), (64,), eps=1e-5)
    ours = layer_norm(64, 1e-5, jnp.dtype("float32"), nnx.Rngs(0))(jnp.asarray(values))
    assert relative_error(ours, exact) <= 1e-4


@pytest.mark.slow
def test_shapes_of_vit_b_32():
    config = get_config("ViT-B-32-quickgelu")
    model = transformers_clip(config, seed=3)
    params = params_from_transformers(model.state_dict())
    shapes = jax.eval_shape(lambda: init_params(config, jax.random.key(0)))
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, shapes)
    clip = Clip(config, params)
    pixels, _ = inputs(config, batch=2)
    tokens = clip.tokenize(["a photo of a dog", "two cats"])
    with torch.no_grad():
        theirs = model(**torch_inputs(pixels, tokens))
    assert relative_error(clip.encode_image(pixels, normalize=True), theirs.image_embeds) <= 1e-5
    assert relative_error(clip.encode_text(tokens, normalize=True), theirs.text_embeds) <= 1e-5
