"""The model that a run trains: a named architecture, its scale and bias as the loss begins, and what mesh it fits."""

from dataclasses import replace

from jax.sharding import Mesh

from clip_jax.config import (
    INITIAL_LOGIT_SCALE,
    SIGLIP_LOGIT_BIAS,
    SIGLIP_LOGIT_SCALE,
    ClipConfig,
    ResNetConfig,
    VisionConfig,
)
from clip_jax.errors import UserError
from clip_jax.presets import get_config
from clip_jax.sharding import batch_shards
from clip_jax.training.config import TrainConfig


def training_model(config: TrainConfig, source: ClipConfig | None = None) -> ClipConfig:
    """The architecture, its logit scale and bias as the loss wants them: any model can be trained with either loss.

    `source` is that of the model to begin with, where there is one; it is taken whole unless `init_only` says
    otherwise. The sigmoid loss needs a bias and begins where SigLIP does (section 3 of arXiv 2303.15343), the softmax
    loss has none and begins with the paper's temperature of 0.07. Raises UserError for an unknown name.
    """
    whole = source is not None and config.model.init_only is None
    model = source if whole and source is not None else get_config(config.model.name)
    if model.is_sigmoid == (config.loss.kind == "sigmoid"):
        return model
    if config.loss.kind == "sigmoid":
        return replace(model, initial_logit_scale=SIGLIP_LOGIT_SCALE, initial_logit_bias=SIGLIP_LOGIT_BIAS)
    return replace(model, initial_logit_scale=INITIAL_LOGIT_SCALE, initial_logit_bias=None)


def check_mesh(config: TrainConfig, model: ClipConfig, mesh: Mesh) -> None:
    """Raises UserError where the batch, its parts or the model's heads do not divide over the mesh.

    So it does for an attention that the mesh's devices cannot compute.
    """
    shards, parts = batch_shards(mesh), config.microbatches
    if config.batch_size % (shards * parts):
        among = f" in {parts} microbatches" if parts > 1 else ""
        raise UserError(
            f"config.batch_size {config.batch_size} does not divide over data x fsdp = {shards} devices{among}; "
            f"{-(-config.batch_size // (shards * parts)) * shards * parts} would"
        )
    if parts > 1 and isinstance(model.vision, ResNetConfig):
        raise UserError(
            f"config.microbatches is {parts}, but the batch norms of {config.model.name} take the statistics of a "
            "whole batch; use microbatches=1"
        )
    if config.model.patch_dropout and not isinstance(model.vision, VisionConfig):
        raise UserError(f"config.model.patch_dropout is for vision transformers, which {config.model.name} is not")
    tensor = mesh.shape["tensor"]
    stacks = {"text": model.text.transformer}
    if isinstance(model.vision, VisionConfig):
        stacks["vision"] = model.vision.transformer
    for tower, stack in stacks.items():
        if stack.heads % tensor:
            raise UserError(
                f"config.mesh.tensor {tensor} does not divide the {stack.heads} heads of the {tower} tower of "
                f"{config.model.name}; choose a divisor"
            )
    _check_attention(config, mesh)


def _check_attention(config: TrainConfig, mesh: Mesh) -> None:
    device = mesh.devices.flat[0]
    if config.model.attention == "cudnn" and (device.platform != "gpu" or config.model.dtype != "bfloat16"):
        raise UserError(
            f"config.model.attention cudnn is for bfloat16 on NVIDIA GPUs, not {config.model.dtype} on "
            f"{device.device_kind}; use xla"
        )
