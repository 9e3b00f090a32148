"""FLOPs of an update against XLA's own count, and what utilisation makes of them."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import pytest

from clip_jax.config import ComputeConfig, VisionConfig
from clip_jax.losses import softmax_loss
from clip_jax.models.two_tower import image_embedding, init_params, normalise, text_embedding
from clip_jax.presets import get_config
from clip_jax.training.chips import CHIPS, chip_of, peak_flops
from clip_jax.training.config import DataConfig, ModelConfig, OptimizerConfig, TrainConfig
from clip_jax.training.step_flops import mfu, step_flops


@pytest.mark.parametrize("name", ["ViT-B-32-quickgelu", "ViT-B-16-SigLIP"])
def test_xla_counts_the_same(name):
    """Unrolled, as XLA counts the body of a loop once. It also counts norms and softmax, and no gradient by pixels."""
    model = get_config(name)
    if name == "ViT-B-32-quickgelu":  # two layers of each tower are enough, and compile sooner
        assert isinstance(model.vision, VisionConfig)
        vision = replace(model.vision, transformer=replace(model.vision.transformer, layers=2))
        model = replace(model, vision=vision)
    compute = ComputeConfig(layers="unroll")

    def loss(params, pixels, tokens):
        image, _ = image_embedding(params, pixels, model, compute, train=True)
        text, _ = text_embedding(params, tokens, model, compute)
        return softmax_loss(normalise(image), normalise(text), 10.0)

    size, batch = model.vision.image_size, 4
    params = jax.eval_shape(lambda: init_params(model, jax.random.key(0)))
    pixels = jax.ShapeDtypeStruct((batch, size, size, 3), jnp.float32)
    tokens = jax.ShapeDtypeStruct((batch, model.text.context_length), jnp.int32)
    analysis = jax.jit(jax.grad(loss)).lower(params, pixels, tokens).cost_analysis()
    assert analysis is not None
    counted = analysis["flops"]
    config = TrainConfig(data=DataConfig(""), batch_size=batch)
    assert step_flops(config, model) == pytest.approx(counted, rel=0.04)


def test_utilisation():
    model = get_config("ViT-L-14-quickgelu")
    # 175.33 GFLOPs forward as open_clip publishes them, thrice; 256 chips at half their peak.
    config = TrainConfig(data=DataConfig(""), batch_size=32)
    speed = 0.5 * 256 * 197e12 / (3 * 175.33e9)
    assert mfu(config, model, speed, 256, 197e12) == pytest.approx(0.5, rel=1e-3)


def test_what_need_not_be_computed_does_not_count():
    """LiT's locked tower goes forward only, and FLIP's sees half of the patches."""
    model, batch = get_config("ViT-B-16-quickgelu"), 2
    config = TrainConfig(data=DataConfig(""), batch_size=batch)
    logits = 3 * 2 * batch * 512
    locked = replace(config, optimizer=OptimizerConfig(frozen="^visual/"))
    assert step_flops(locked, model) == pytest.approx(batch * (35.13e9 + 3 * 5.96e9 + logits), rel=1e-3)
    dropped = replace(config, model=ModelConfig(patch_dropout=0.5))
    seen, whole = 99 / 197, 35.13e9  # tokens; attention's own products, 2 x 2 x 197**2 x 768 x 12, shrink twice
    attention = 4 * 197**2 * 768 * 12
    expected = (whole - attention) * seen + attention * seen**2
    assert step_flops(dropped, model) == pytest.approx(batch * 3 * (expected + 5.96e9 + logits / 3), rel=2e-3)


@pytest.mark.parametrize(
    ("kind", "name"),
    [("TPU v4", "v4"), ("TPU v5 lite", "v5e"), ("TPU v5", "v5p"), ("TPU v5p", "v5p"), ("TPU v6 lite", "v6e")],
)
def test_devices_by_their_names(kind, name):
    assert chip_of(kind) is CHIPS[name]


def test_peaks():
    assert peak_flops("NVIDIA H200") == 989e12
    assert peak_flops("TPU7x") == 2307e12 / 2  # a device is half a chip
    assert peak_flops("cpu") is None
