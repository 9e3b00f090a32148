"""Parameters and FLOPs in closed form, against open_clip's published profile, torch's counter and our own models."""

import jax
import pytest
from support.open_clip_shim import import_open_clip

from clip_jax.config import ClipConfig, ResNetConfig, TextConfig, TransformerConfig, VisionConfig
from clip_jax.model_size import Size, flops, parameters
from clip_jax.models.two_tower import init_params
from clip_jax.presets import PRESETS, get_config
from clip_jax.weights.tree import flatten

# Image and text parameters in millions, image and text GFLOPs: from docs/model_profile.csv of
# https://github.com/mlfoundations/open_clip (commit 3b37473b, MIT licence), which fvcore counted.
PUBLISHED = {
    "RN50": (38.32, 63.69, 12.22, 5.96),
    "RN101-quickgelu": (56.26, 63.43, 19.54, 5.96),
    "RN50x4": (87.14, 91.16, 42.56, 9.27),
    "RN50x16": (167.33, 123.65, 149.39, 13.3),
    "RN50x64": (420.38, 202.88, 529.11, 23.55),
    "ViT-S-32-alt": (22.59, 20.63, 2.29, 1.27),
    "ViT-M-16-alt": (38.53, 40.44, 15.98, 3.38),
    "ViT-B-32": (87.85, 63.43, 8.82, 5.96),
    "ViT-B-16-quickgelu": (86.19, 63.43, 35.13, 5.96),
    "ViT-B-16-plus-240": (117.21, 91.16, 54.76, 9.27),
    "ViT-L-14": (303.97, 123.65, 162.03, 13.3),
    "ViT-L-14-336": (304.29, 123.65, 381.92, 13.3),
    "ViT-L-16-320": (304.3, 123.65, 258.63, 13.3),
    "ViT-H-14": (632.08, 354.03, 334.59, 47.09),
    "ViT-g-14": (1012.65, 354.03, 534.06, 47.09),
    "ViT-bigG-14": (1844.91, 694.66, 967.5, 97.86),
    "ViT-e-14": (3807.72, 773.37, 1981.35, 110.1),
    "ViT-L-14-CLIPA": (303.96, 110.25, 162.03, 5.47),
    "ViT-bigG-14-CLIPA-336": (1845.44, 672.32, 2231.15, 40.44),
    "ViT-B-16-SigLIP": (92.88, 110.27, 35.42, 11.02),
    "ViT-B-16-SigLIP-i18n-256": (92.93, 277.7, 46.82, 11.02),
    "ViT-L-16-SigLIP-384": (316.28, 336.19, 383.85, 39.06),
    "ViT-SO400M-14-SigLIP": (427.68, 449.68, 220.35, 13.19),
    "ViT-SO400M-14-SigLIP-384": (428.23, 449.73, 670.35, 53.13),
}
VISION = VisionConfig(8, 8, TransformerConfig(16, 1, 1))  # the tower that a test is not about
TEXT = TextConfig(TransformerConfig(16, 1, 1), 4, 10)
STATISTICS = ("mean", "variance")  # of batch norms: kept with the parameters, but not trained


@pytest.mark.parametrize("name", PUBLISHED)
def test_equal_what_open_clip_published(name):
    config = get_config(name)
    size, work = parameters(config), flops(config)
    image_work = work.image + (0 if isinstance(config.vision, VisionConfig) else unused_queries(config))
    ours = (size.image / 1e6, size.text / 1e6, image_work / 1e9, work.text / 1e9)
    assert ours == pytest.approx(PUBLISHED[name], abs=0.0051)
    assert size.total == size.image + size.text + (2 if "SigLIP" in name else 1)


def unused_queries(config: ClipConfig) -> int:
    """What open_clip's attention pooling computes for every position but the first, and throws away."""
    assert isinstance(config.vision, ResNetConfig)
    width, tokens = config.vision.pool_width, config.vision.grid**2 + 1
    return (tokens - 1) * 2 * (width * width + 2 * width * tokens + width * config.embed_dim)


@pytest.mark.parametrize(("pooling", "theirs"), [("class_token", "tok"), ("mean", "avg")])
def test_vision_transformer_as_torch_counts(pooling, theirs):
    """43 pixels leave three over at the edge of a grid of 5 x 5 patches."""
    import_open_clip()
    import torch
    from open_clip.transformer import VisionTransformer

    tower = VisionTransformer(43, 8, width=48, layers=2, heads=3, mlp_ratio=3.5, output_dim=20, pool_type=theirs)
    config = ClipConfig(20, VisionConfig(43, 8, TransformerConfig(48, 2, 3, 3.5), pooling), TEXT)
    assert flops(config).image == torch_flops(tower, torch.zeros(1, 3, 43, 43))
    assert parameters(config).image == count(tower)


def test_siglip_as_torch_counts():
    import torch
    from timm.models.vision_transformer import VisionTransformer

    theirs = VisionTransformer(
        **{"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3, "mlp_ratio": 2.5},
        **{"num_classes": 0, "class_token": False, "global_pool": "map"},
    )
    stack = TransformerConfig(48, 2, 3, 2.5)
    vision = VisionConfig(32, 8, stack, "map", False, norm_pre=False, patch_bias=True, projection="none")
    config = ClipConfig(48, vision, TEXT)
    assert flops(config).image == torch_flops(theirs, torch.zeros(1, 3, 32, 32))
    assert parameters(config).image == count(theirs)


@pytest.mark.parametrize("projection", ["none", "no_bias", "bias"])
def test_text_transformer_as_torch_counts(projection):
    import_open_clip()
    import torch
    from open_clip.transformer import TextTransformer

    theirs = TextTransformer(
        **{"context_length": 9, "vocab_size": 100, "width": 32, "layers": 3, "heads": 4, "output_dim": 32},
        **{"proj_type": "none" if projection == "none" else "linear", "proj_bias": projection == "bias"},
    )
    config = ClipConfig(32, VISION, TextConfig(TransformerConfig(32, 3, 4), 9, 100, projection=projection))
    assert flops(config).text == torch_flops(theirs, torch.zeros(1, 9, dtype=torch.long))
    assert parameters(config).text == count(theirs)


def test_resnet_as_torch_counts():
    """Attention pooling with one query, as OpenAI's code and ours have it."""
    import_open_clip()
    import torch
    from open_clip.modified_resnet import ModifiedResNet

    theirs = ModifiedResNet([1, 2, 1, 3], output_dim=20, heads=4, image_size=96, width=8)
    config = ClipConfig(20, ResNetConfig(96, (1, 2, 1, 3), 8, heads=4), TEXT)
    assert parameters(config).image == count(theirs)
    whole = torch_flops(theirs, torch.zeros(1, 3, 96, 96))
    assert whole == flops(config).image + unused_queries(config)


@pytest.mark.parametrize("name", ["tiny", "RN50", "ViT-M-16-alt", "ViT-L-14-CLIPA", "ViT-SO400M-16-SigLIP-i18n-256"])
def test_parameters_are_those_of_the_model(name):
    assert parameters(get_config(name)) == counted(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", PRESETS)
def test_parameters_are_those_of_every_model(name):
    assert parameters(get_config(name)) == counted(name)


def counted(name: str) -> Size:
    shapes = flatten(jax.eval_shape(lambda: init_params(get_config(name), jax.random.key(0))))
    trained = {path: leaf.size for path, leaf in shapes.items() if path.split("/")[-1] not in STATISTICS}
    image = sum(size for path, size in trained.items() if path.startswith("visual/"))
    text = sum(size for path, size in trained.items() if path.startswith("text/"))
    return Size(image, text, sum(trained.values()))


def torch_flops(module, inputs) -> int:
    """Products and convolutions of one forward pass; fused attention is taken apart, so that it counts as well."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        module(inputs)
    return counter.get_total_flops()


def count(module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
