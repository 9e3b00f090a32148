"""FLOPs of an update in closed form: what the model needs, which is what MFU counts.

Computing activations again (remat, microbatches) is work but not progress, so it is left out, as in appendix B of
Chowdhery et al. 2022, arXiv 2204.02311. The backward pass costs two forward passes: a product for the inputs' gradient
and one for the weights'.
"""

from clip_jax.config import ClipConfig
from clip_jax.model_size import flops

BACKWARD = 2


def step_flops(model: ClipConfig, batch_size: int) -> float:
    """FLOPs of one update of a global batch: both towers and the logits, forward and backward."""
    towers = flops(model)
    logits = 2 * batch_size * model.embed_dim  # an image's, against every text
    return float((1 + BACKWARD) * batch_size * (towers.image + towers.text + logits))


def mfu(model: ClipConfig, images_per_second: float, batch_size: int, devices: int, peak: float) -> float:
    """Model FLOPs utilisation: the share of the devices' peak that updates at this speed make use of."""
    return step_flops(model, batch_size) / batch_size * images_per_second / (devices * peak)
