"""The least time that an update can take on a slice, by its arithmetic, its memory and its links, each alone.

These are estimates from the model's sizes, not measurements: what really happens lies above the largest of the three,
by the overheads that only a run shows. The compiler's own counts do not serve here, as they have the body of a loop
over layers once.
"""

from dataclasses import asdict, dataclass
from typing import Any

from clip_jax.config import ClipConfig, ResNetConfig, TransformerConfig
from clip_jax.model_size import parameters
from clip_jax.tpu.topology import Topology
from clip_jax.training.config import TrainConfig
from clip_jax.training.step_flops import BACKWARD, kept_patches, step_flops

FLOAT32, BFLOAT16 = 4, 2
# Reads and writes of a float32 value per parameter and update: parameters, gradients and both moments, each in and out.
OPTIMIZER_PASSES = 8
# Reads and writes of a value of the stream's width per token and layer, forward; a fused block touches its input and
# output, the norms, q, k, v, the attention's output, and the MLP's hidden layer (4 wide) before and after activation.
BLOCK_PASSES = 24


@dataclass(frozen=True)
class Roofline:
    """Seconds of an update by each limit, and what they come from; FLOPs are those of the whole slice."""

    flops: float
    compute: float
    memory: float
    links: float

    @property
    def seconds(self) -> float:
        return max(self.compute, self.memory, self.links)

    @property
    def limit(self) -> str:
        return max(("compute", "memory", "links"), key=lambda name: getattr(self, name))

    @property
    def most_mfu(self) -> float:
        """The utilisation that would be reached if the largest limit were all."""
        return self.compute / self.seconds

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"seconds": self.seconds, "limit": self.limit, "most_mfu": self.most_mfu}


def roofline(config: TrainConfig, model: ClipConfig, topology: Topology, mesh: dict[str, int]) -> Roofline:
    """The limits of one update. Links: gradients and parameters of data and fsdp axes, activations of the tensor axis
    and the loss's features; within a slice, as the links between slices are not published."""
    chip, devices = topology.chip, topology.devices
    per_device = chip.devices
    flops = step_flops(config, model)
    local = config.batch_size / (mesh["data"] * mesh["fsdp"])
    size = parameters(model).total
    held = size / (mesh["fsdp"] * mesh["tensor"])

    width = BFLOAT16 if config.model.dtype == "bfloat16" else FLOAT32
    passes = 1 + BACKWARD + (config.model.remat == "block") + (config.microbatches > 1)
    streams = _stream(model, config.model.patch_dropout) * width * local
    memory = held * FLOAT32 * OPTIMIZER_PASSES + streams * BLOCK_PASSES * passes / mesh["tensor"]

    sharded = size / mesh["tensor"] * FLOAT32
    fsdp = _ring(mesh["fsdp"]) * sharded * passes  # gathered for each pass, gradients scattered
    data = 2 * _ring(mesh["data"]) * held * FLOAT32
    tensor = 4 * passes * _ring(mesh["tensor"]) * streams
    features = model.embed_dim * (BFLOAT16 if config.loss.dtype == "bfloat16" else FLOAT32) * config.batch_size * 4
    return Roofline(
        flops,
        compute=flops * per_device / (devices * chip.flops),
        memory=memory * per_device / chip.memory_bandwidth,
        links=(fsdp + data + tensor + (features if devices > 1 else 0)) * per_device / chip.link_bandwidth,
    )


def _ring(axis: int) -> float:
    """The share of an array that a device sends to gather or scatter it over an axis."""
    return (axis - 1) / axis


def _stream(model: ClipConfig, patch_dropout: float) -> float:
    """Values of the residual stream per pair, over all tokens and layers of both towers."""
    text = model.text.context_length * _layers(model.text.transformer)
    vision = model.vision
    if isinstance(vision, ResNetConfig):
        # Stages halve the sides and double the channels; the stem's side is a quarter of the image's.
        side, channels = vision.image_size // 4, 4 * vision.width
        image = sum(blocks * (side / 2**stage) ** 2 * channels * 2**stage for stage, blocks in enumerate(vision.layers))
    else:
        image = ((kept_patches(model, patch_dropout) or 0) + vision.class_token) * _layers(vision.transformer)
    return float(image + text)


def _layers(stack: TransformerConfig) -> int:
    return stack.width * stack.layers
