"""Every fresh parameter's distribution against that of a fresh model by open_clip."""

from functools import lru_cache

import jax
import numpy as np
import pytest
from scipy.stats import ks_2samp
from support.open_clip_shim import import_open_clip
from support.torch_clip import params_from_open_clip

from clip_jax.clip import create
from clip_jax.config import ClipConfig, TextConfig, TransformerConfig, VisionConfig
from clip_jax.models.two_tower import Params, init_params

torch = pytest.importorskip("torch")

CONFIG = ClipConfig(
    embed_dim=160,
    vision=VisionConfig(96, 16, TransformerConfig(width=192, layers=3, heads=3, activation="gelu")),
    text=TextConfig(TransformerConfig(width=128, layers=5, heads=2, activation="gelu"), vocab_size=1000),
)


@lru_cache
def both() -> tuple[Params, Params]:
    open_clip = import_open_clip()
    vision, text = CONFIG.vision, CONFIG.text
    torch.manual_seed(0)
    model = open_clip.CLIP(
        CONFIG.embed_dim,
        open_clip.CLIPVisionCfg(
            image_size=vision.image_size,
            patch_size=vision.patch_size,
            width=vision.transformer.width,
            layers=vision.transformer.layers,
            head_width=vision.transformer.width // vision.transformer.heads,
        ),
        open_clip.CLIPTextCfg(
            context_length=text.context_length,
            vocab_size=text.vocab_size,
            width=text.transformer.width,
            layers=text.transformer.layers,
            heads=text.transformer.heads,
        ),
    )
    return init_params(CONFIG, jax.random.key(0)), params_from_open_clip(model.state_dict())


def paths() -> list[str]:
    shapes = jax.eval_shape(lambda: init_params(CONFIG, jax.random.key(0)))
    return [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in jax.tree.leaves_with_path(shapes)]


@pytest.mark.parametrize("path", paths())
def test_same_distribution_as_open_clip(path):
    ours, theirs = both()
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


def test_layers_are_drawn_apart():
    ours, _ = both()
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
