"""FLOPs of an update in closed form: what the model needs, which is what MFU counts.

Computing activations again (remat, microbatches) is work but not progress, so it is left out, as in appendix B of
Chowdhery et al. 2022, arXiv 2204.02311. The backward pass costs two forward passes: a product for the inputs' gradient
and one for the weights'.
"""

import re
from typing import Literal

from clip_jax.config import ClipConfig, ResNetConfig, VisionConfig
from clip_jax.model_size import flops
from clip_jax.training.config import TrainConfig

BACKWARD = 2


def step_flops(config: TrainConfig, model: ClipConfig) -> float:
    """FLOPs of one update of a global batch: both towers and the logits, forward, and backward where it is needed."""
    towers = flops(model, kept_patches(model, config.model.patch_dropout))
    image, text = (1 if is_locked(config, model, tower) else 1 + BACKWARD for tower in ("visual", "text"))
    logits = (1 + BACKWARD) * 2 * config.batch_size * model.embed_dim  # an image's, against every text
    return float(config.batch_size * (image * towers.image + text * towers.text + logits))


def is_locked(config: TrainConfig, model: ClipConfig, tower: Literal["visual", "text"]) -> bool:
    """Whether a tower is not trained: whether its blocks' weights are not."""
    resnet = tower == "visual" and isinstance(model.vision, ResNetConfig)
    kernel = "stage_1/block_0/conv_2/kernel" if resnet else "transformer/block/mlp/up/kernel"
    return config.optimizer.frozen is not None and re.search(config.optimizer.frozen, f"{tower}/{kernel}") is not None


def kept_patches(model: ClipConfig, patch_dropout: float) -> int | None:
    """How many patches of an image are seen in training; none for towers without patches."""
    if not isinstance(model.vision, VisionConfig):
        return None
    return max(1, round((1 - patch_dropout) * model.vision.patches))


def mfu(config: TrainConfig, model: ClipConfig, images_per_second: float, devices: int, peak: float) -> float:
    """Model FLOPs utilisation: the share of the devices' peak that updates at this speed make use of."""
    return step_flops(config, model) / config.batch_size * images_per_second / (devices * peak)
