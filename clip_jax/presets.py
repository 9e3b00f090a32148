"""The named architectures, under the names that open_clip's users know.

The plain names use the exact GELU, as open_clip does; `-quickgelu` is what OpenAI trained. The `tiny` family is
ours: small enough to train on a laptop's CPU.
"""

from dataclasses import replace

from clip_jax.config import (
    Activation,
    ClipConfig,
    PreprocessConfig,
    TextConfig,
    TransformerConfig,
    VisionConfig,
)
from clip_jax.errors import UserError
from clip_jax.schema import nearest


def _vit(
    image_size: int, patch_size: int, width: int, layers: int, text_width: int, embed_dim: int, activation: Activation
) -> ClipConfig:
    """A CLIP ViT of the paper (table 20): 64-wide heads in both towers, a 12-layer text tower."""
    return ClipConfig(
        embed_dim=embed_dim,
        vision=VisionConfig(
            image_size=image_size,
            patch_size=patch_size,
            transformer=TransformerConfig(width=width, layers=layers, heads=width // 64, activation=activation),
        ),
        text=TextConfig(TransformerConfig(width=text_width, layers=12, heads=text_width // 64, activation=activation)),
    )


def _tiny(activation: Activation) -> ClipConfig:
    """Patches of 16 on 48 pixels: nine tokens, which make it quick, and enough for shapes that fill the image."""
    return ClipConfig(
        embed_dim=128,
        vision=VisionConfig(48, 16, TransformerConfig(width=192, layers=2, heads=3, activation=activation)),
        text=TextConfig(TransformerConfig(width=128, layers=1, heads=2, activation=activation), context_length=32),
        preprocess=PreprocessConfig(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
    )


def _presets() -> dict[str, ClipConfig]:
    presets: dict[str, ClipConfig] = {}
    activations: tuple[tuple[str, Activation], ...] = (("", "gelu"), ("-quickgelu", "quick_gelu"))
    for suffix, activation in activations:
        presets[f"tiny{suffix}"] = _tiny(activation)
        presets[f"ViT-B-32{suffix}"] = _vit(224, 32, 768, 12, 512, 512, activation)
        presets[f"ViT-B-16{suffix}"] = _vit(224, 16, 768, 12, 512, 512, activation)
        large = presets[f"ViT-L-14{suffix}"] = _vit(224, 14, 1024, 24, 768, 768, activation)
        presets[f"ViT-L-14-336{suffix}"] = replace(large, vision=replace(large.vision, image_size=336))
    return presets


PRESETS = _presets()


def list_models() -> list[str]:
    """The names that `create` knows, sorted."""
    return sorted(PRESETS)


def get_config(name: str) -> ClipConfig:
    """The config of a named architecture. Raises UserError for an unknown name, naming the nearest."""
    if name not in PRESETS:
        raise UserError(f"unknown model '{name}'; {nearest(name, PRESETS)}")
    return PRESETS[name]
