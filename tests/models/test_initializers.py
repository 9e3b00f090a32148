"""Every fresh parameter's distribution against that of a fresh model by open_clip or timm."""

from dataclasses import replace
from functools import lru_cache

import jax
import numpy as np
import pytest
from scipy.stats import ks_2samp
from support.open_clip_shim import import_open_clip
from support.torch_clip import params_from_open_clip, vision_params_from_timm

from clip_jax.clip import create
from clip_jax.config import (
    SIGLIP_LOGIT_BIAS,
    SIGLIP_LOGIT_SCALE,
    ClipConfig,
    ResNetConfig,
    TextConfig,
    TransformerConfig,
    VisionConfig,
)
from clip_jax.models.two_tower import Params, init_params

torch = pytest.importorskip("torch")

WORDS = TransformerConfig(width=128, layers=5, heads=2, activation="gelu")
TEXT = TextConfig(WORDS, vocab_size=1000)
PATCHES = TransformerConfig(width=192, layers=3, heads=3, activation="gelu")
CONFIGS = {
    "clip": ClipConfig(160, VisionConfig(96, 16, PATCHES), TEXT),
    "layer_scale": ClipConfig(
        160,
        VisionConfig(96, 16, replace(PATCHES, layer_scale=0.1)),
        replace(TEXT, transformer=replace(WORDS, layer_scale=1e-4), projection="bias"),
        initial_logit_scale=SIGLIP_LOGIT_SCALE,
        initial_logit_bias=SIGLIP_LOGIT_BIAS,
    ),
    "resnet": ClipConfig(96, ResNetConfig(96, layers=(2, 1, 1, 1), width=16, heads=8), TEXT),
    "siglip": ClipConfig(
        192,
        VisionConfig(
            100,
            16,
            replace(PATCHES, activation="gelu_tanh", norm_epsilon=1e-6),
            pooling="map",
            class_token=False,
            norm_pre=False,
            patch_bias=True,
            projection="none",
        ),
        TEXT,
    ),
}


@lru_cache
def both(name: str) -> tuple[Params, Params]:
    config = CONFIGS[name]
    torch.manual_seed(0)
    ours = jax.jit(lambda: init_params(config, jax.random.key(0)))()
    return ours, siglip_params(config) if name == "siglip" else open_clip_params(config)


def open_clip_params(config: ClipConfig) -> Params:
    open_clip = import_open_clip()
    vision, text = config.vision, config.text
    if isinstance(vision, ResNetConfig):
        tower = {"layers": vision.layers, "width": vision.width, "head_width": vision.pool_width // vision.heads}
    else:
        stack = vision.transformer
        tower = {"patch_size": vision.patch_size, "width": stack.width, "layers": stack.layers}
        tower |= {"head_width": stack.width // stack.heads, "ls_init_value": stack.layer_scale}
    model = open_clip.CLIP(
        config.embed_dim,
        open_clip.CLIPVisionCfg(image_size=vision.image_size, **tower),
        open_clip.CLIPTextCfg(
            context_length=text.context_length,
            vocab_size=text.vocab_size,
            width=text.transformer.width,
            layers=text.transformer.layers,
            heads=text.transformer.heads,
            ls_init_value=text.transformer.layer_scale,  # pyright: ignore[reportArgumentType]
            proj_bias=text.projection == "bias",
        ),
        init_logit_scale=config.initial_logit_scale,
        init_logit_bias=config.initial_logit_bias,
    )
    return params_from_open_clip(model.state_dict())


def siglip_params(config: ClipConfig) -> Params:
    """The image tower by timm, what else there is by open_clip, as open_clip puts SigLIP together."""
    from timm.models.vision_transformer import VisionTransformer

    vision = config.vision
    assert isinstance(vision, VisionConfig)
    tower = VisionTransformer(
        img_size=vision.image_size,
        patch_size=vision.patch_size,
        embed_dim=vision.transformer.width,
        depth=vision.transformer.layers,
        num_heads=vision.transformer.heads,
        class_token=False,
        global_pool="map",
        num_classes=0,
        act_layer="gelu_tanh",
    )
    rest = open_clip_params(replace(config, vision=CONFIGS["clip"].vision))
    return rest | {"visual": vision_params_from_timm(tower.state_dict())}


def paths() -> list[tuple[str, str]]:
    def of(config: ClipConfig) -> list[str]:
        shapes = jax.eval_shape(lambda: init_params(config, jax.random.key(0)))
        return [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in jax.tree.leaves_with_path(shapes)]

    known = set(of(CONFIGS["clip"]))
    return [("clip", path) for path in sorted(known)] + [
        (name, path)
        for name, config in CONFIGS.items()
        if name != "clip"
        for path in of(config)
        if path.startswith("visual/") or path not in known
    ]


@pytest.mark.parametrize(("name", "path"), paths())
def test_same_distribution(name, path):
    ours, theirs = both(name)
    for key in path.split("/"):
        ours, theirs = ours[key], theirs[key]
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.shape == theirs.shape
    assert ours.dtype == theirs.dtype == np.float32
    if np.ptp(theirs) == 0:
        np.testing.assert_array_equal(ours, theirs)
        return
    # A sample's deviation scatters by at most 1/sqrt(2n) of itself; both samples do.
    assert abs(ours.std() / theirs.std() - 1) < 5 * ours.size**-0.5
    assert abs(ours.mean() - theirs.mean()) < 5 * theirs.std() * (2 / ours.size) ** 0.5
    # Uniform or normal: the largest of a uniform sample is at its bound, 1.73 deviations.
    _, chance = ks_2samp(ours.ravel(), theirs.ravel())
    assert float(chance) > 1e-4  # pyright: ignore[reportArgumentType]
    if np.abs(theirs).max() < 1.8 * theirs.std():
        assert np.abs(ours).max() == pytest.approx(np.abs(theirs).max(), rel=20 / ours.size)


@pytest.mark.parametrize("name", CONFIGS)
def test_same_parameters(name):
    ours, theirs = both(name)
    assert jax.tree.map(np.shape, ours) == jax.tree.map(np.shape, theirs)


def test_layers_are_drawn_apart():
    ours, _ = both("clip")
    for stack in (ours["visual"]["transformer"]["block"], ours["text"]["transformer"]["block"]):
        for kernel in (stack["attention"]["qkv"]["kernel"], stack["mlp"]["up"]["bias"]):
            assert len({np.asarray(layer).tobytes() for layer in kernel}) == len(kernel)
            spread = np.asarray(kernel).reshape(len(kernel), -1).std(axis=1)
            np.testing.assert_allclose(spread, spread.mean(), rtol=5 * kernel[0].size ** -0.5)


def test_seed_decides_all():
    same, again, other = create("tiny", seed=3), create("tiny", seed=3), create("tiny", seed=4)
    jax.tree.map(np.testing.assert_array_equal, same.params, again.params)
    ours, others = (np.ravel(clip.params["visual"]["projection"]) for clip in (same, other))
    assert np.abs(np.corrcoef(ours, others)[0, 1]) < 0.05
