"""CLIP's ResNet against open_clip's ModifiedResNet in PyTorch, in float64, as it serves and as it trains."""

import copy
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.closeness import relative_error
from support.open_clip_shim import import_open_clip
from support.torch_clip import params_from_open_clip, randomise

from clip_jax.config import ClipConfig, ComputeConfig, ResNetConfig, TextConfig, TransformerConfig
from clip_jax.models.two_tower import Params, image_embedding, init_params, with_statistics

torch = pytest.importorskip("torch")

TEXT = TextConfig(TransformerConfig(width=8, layers=1, heads=1), context_length=5, vocab_size=20)
# More than ten blocks in a stage, of which the tenth must not follow the first; 95 pixels fill no grid of 32 exactly.
CONFIGS = {
    "deep": ClipConfig(20, ResNetConfig(64, layers=(2, 1, 11, 1), width=4, heads=4), TEXT),
    "wide": ClipConfig(12, ResNetConfig(95, layers=(1, 2, 1, 2), width=10, heads=5), TEXT),
}
names = pytest.mark.parametrize("name", CONFIGS)


@lru_cache
def model_and_params(name: str) -> tuple[Any, Params]:
    """PyTorch's model, by now in float64, and its parameters and statistics in float32 as ours."""
    config = CONFIGS[name]
    vision, text = config.vision, config.text
    assert isinstance(vision, ResNetConfig)
    open_clip = import_open_clip()
    model = open_clip.CLIP(
        config.embed_dim,
        open_clip.CLIPVisionCfg(
            layers=vision.layers,  # pyright: ignore[reportArgumentType]
            width=vision.width,
            head_width=vision.pool_width // vision.heads,
            image_size=32 * vision.grid,
        ),
        open_clip.CLIPTextCfg(text.context_length, text.vocab_size, width=8, heads=1, layers=1),
    )
    settle(randomise(model, seed=3).visual, torch_images(pixels_of(config)).float())
    params = params_from_open_clip({key: value.clone() for key, value in model.state_dict().items()})
    return model.double(), jax.tree.map(jnp.asarray, params)


def settle(visual: Any, images: Any) -> None:
    """Puts statistics near those of the images and keeps attention from choosing one position for certain.

    Else features of many hundreds make attention so steep that PyTorch's own float32 errs by 3e-5.
    """
    norms = [module for module in visual.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    generator = torch.Generator().manual_seed(6)
    with torch.no_grad():
        visual.attnpool.q_proj.weight.mul_(0.01)
        visual.attnpool.q_proj.bias.mul_(0.01)
        for norm in norms:
            norm.momentum = 1.0
        visual.train()(images)
        for norm in norms:
            norm.momentum = 0.1
            noise = torch.randn(norm.running_mean.shape, generator=generator)
            norm.running_mean.add_(0.5 * noise * norm.running_var.sqrt())
            norm.running_var.mul_(0.5 + 1.5 * torch.rand(norm.running_var.shape, generator=generator))


def pixels_of(config: ClipConfig, batch: int = 6) -> np.ndarray:
    size = config.vision.image_size
    return np.random.default_rng(4).standard_normal((batch, size, size, 3)).astype(np.float32)


def torch_images(pixels: np.ndarray) -> Any:
    return torch.tensor(pixels).double().permute(0, 3, 1, 2)


def stages(visual: Any, images: Any) -> dict[str, Any]:
    """The output of the stem and of every stage, [b, h, w, c]."""
    x = visual.stem(images)
    outputs = {"stem": x}
    for number in (1, 2, 3, 4):
        x = outputs[f"stage_{number}"] = getattr(visual, f"layer{number}")(x)
    return {stage: output.permute(0, 2, 3, 1) for stage, output in outputs.items()}


def gathered(visual: Any, images: Any) -> Any:
    """What attention pooling gathers: its result, were the output layer the identity."""
    pool, width = visual.attnpool, visual.attnpool.c_proj.in_features
    kept = pool.c_proj
    pool.c_proj = torch.nn.Linear(width, width).double()
    torch.nn.init.eye_(pool.c_proj.weight)
    torch.nn.init.zeros_(pool.c_proj.bias)
    result = visual(images)
    pool.c_proj = kept
    return result


@names
def test_features_and_every_stage(name):
    config = CONFIGS[name]
    model, params = model_and_params(name)
    pixels = pixels_of(config)
    visual, images = model.visual.eval(), torch_images(pixels)
    with torch.no_grad():
        expected, expected_stages, expected_gathered = visual(images), stages(visual, images), gathered(visual, images)
    embedding, named = image_embedding(params, jnp.asarray(pixels), config, ComputeConfig())
    assert embedding.dtype == jnp.float32
    assert relative_error(embedding, expected) <= 2e-6
    assert relative_error(named["pre_projection"], expected_gathered) <= 2e-6
    assert named["layers"].keys() == expected_stages.keys()
    for stage, theirs in expected_stages.items():
        assert relative_error(named["layers"][stage], theirs) <= 2e-6
    assert "statistics" not in named


@lru_cache
def torch_training(name: str, train: bool, dtype: Any = torch.float64) -> tuple[Any, Params, Params]:
    """Features, the gradients of their product with some matrix, and the statistics afterwards."""
    model = copy.deepcopy(model_and_params(name)[0]).to(dtype)
    visual = model.visual.train(train)
    features = visual(torch_images(pixels_of(CONFIGS[name])).to(dtype))
    product = (features * torch.tensor(cotangent(features.shape), dtype=dtype)).sum()
    gradients = torch.autograd.grad(product, list(visual.parameters()))
    named = {f"visual.{key}": leaf for (key, _), leaf in zip(visual.named_parameters(), gradients, strict=True)}
    statistics = model.state_dict()
    zeros = {key: torch.zeros_like(value) for key, value in statistics.items()}
    return features.detach(), params_from_open_clip(zeros | named), params_from_open_clip(statistics)


def cotangent(shape) -> np.ndarray:
    return np.random.default_rng(5).standard_normal(tuple(shape))


def gradient_errors(gradients: Params, exact: Params) -> np.ndarray:
    """The relative error of each parameter's gradient; running statistics have none."""
    pairs = zip(jax.tree.leaves_with_path(gradients["visual"]), jax.tree.leaves(exact["visual"]), strict=True)
    return np.array([relative_error(one, other) for (path, one), other in pairs if not is_statistic(path)])


def is_statistic(path: tuple[Any, ...]) -> bool:
    return path[-1].key in ("mean", "variance")


def root_mean_square(values: np.ndarray) -> float:
    return float(np.sqrt((values**2).mean()))


@pytest.mark.parametrize(
    ("name", "train", "remat", "feature_error"),
    [("deep", True, "block", 1e-5), ("wide", False, "dots", 2e-6), ("wide", True, "none", 1e-5)],
)
def test_gradients_and_statistics(name, train, remat, feature_error):
    """Where a batch's own statistics are used, errors grow, PyTorch's float32 ones alike, as far as the CPU has it."""
    config = CONFIGS[name]
    _, params = model_and_params(name)
    features, expected, statistics = torch_training(name, train)

    def product(params, pixels):
        embedding, named = image_embedding(params, pixels, config, ComputeConfig(remat=remat), train=train)
        return (embedding * cotangent(embedding.shape).astype(np.float32)).sum(), (embedding, named)

    pixels = jnp.asarray(pixels_of(config))
    gradients, (embedding, named) = jax.jit(jax.grad(product, has_aux=True))(params, pixels)
    assert relative_error(embedding, features) <= feature_error
    ours, theirs = (
        gradient_errors(one, expected) for one in (gradients, torch_training(name, train, torch.float32)[1])
    )
    assert ours.max() <= max(3e-5, 1.5 * theirs.max())
    assert root_mean_square(ours) <= 1.2 * root_mean_square(theirs)
    after = with_statistics(params, named.get("statistics", {}))
    assert max(jax.tree.leaves(jax.tree.map(relative_error, after["visual"], statistics["visual"]))) <= 1e-6
    unlearnt = [leaf for path, leaf in jax.tree.leaves_with_path(gradients["visual"]) if is_statistic(path)]
    assert not any(leaf.any() for leaf in unlearnt)
    convolutions = [path for path, _ in jax.tree.leaves_with_path(params["visual"]) if "conv" in path[-2].key]
    assert len(unlearnt) == 2 * len(convolutions)


@pytest.mark.parametrize("train", [False, True])
def test_bfloat16(train):
    """Each rounding errs by up to 2^-9 = 0.2% of a value; the whole tower was seen to err by up to 3% here."""
    config = CONFIGS["wide"]
    _, params = model_and_params("wide")
    features, _, statistics = torch_training("wide", train)
    pixels = jnp.asarray(pixels_of(config))
    half = ComputeConfig(dtype="bfloat16")
    embedding, named = jax.jit(lambda p, x: image_embedding(p, x, config, half, train=train))(params, pixels)
    dtypes = {embedding.dtype, named["pre_projection"].dtype, *(layer.dtype for layer in named["layers"].values())}
    assert dtypes == {jnp.dtype(jnp.bfloat16)}
    assert 1e-4 < relative_error(embedding, features) < 0.05
    after = with_statistics(params, named.get("statistics", {}))
    assert {leaf.dtype for leaf in jax.tree.leaves(after)} == {jnp.dtype(jnp.float32)}
    errors = jax.tree.map(relative_error, after["visual"], statistics["visual"])
    assert max(jax.tree.leaves(errors)) < 0.02


def test_parameters_of_rn50():
    """Every parameter and statistic of open_clip's RN50 has its place, and the counts are the same."""
    open_clip = import_open_clip()
    config = ClipConfig(1024, ResNetConfig(224, (3, 4, 6, 3)), TextConfig(TransformerConfig(512, 12, 8)))
    with torch.device("meta"):
        model = open_clip.CLIP(**open_clip.get_model_config("RN50"))
    sizes = [leaf.numel() for name, leaf in model.state_dict().items() if not name.endswith("num_batches_tracked")]
    shapes = jax.tree.leaves(jax.eval_shape(lambda: init_params(config, jax.random.key(0))))
    assert sum(leaf.size for leaf in shapes) == sum(sizes)
