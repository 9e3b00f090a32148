"""The least time that an update can take on a slice, by its arithmetic, its memory and its links, each alone.

These are estimates from the model's sizes, not measurements: what really happens lies above the largest of the three,
by the overheads that only a run shows. The compiler's own counts do not serve here, as they have the body of a loop
over layers once.
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from clip_jax.config import ClipConfig, ResNetConfig, TransformerConfig
from clip_jax.model_size import parameters
from clip_jax.tpu.topology import Topology
from clip_jax.training.config import TrainConfig
from clip_jax.training.step_flops import BACKWARD, is_locked, kept_patches, step_flops

FLOAT32, BFLOAT16 = 4, 2
# Reads and writes of a float32 value per parameter and update: parameters, gradients and both moments, each in and out.
OPTIMIZER_PASSES = 8
# Reads and writes of a value of the stream's width per token and layer, forward; a fused block touches its input and
# output, the norms, q, k, v, the attention's output, and the MLP's hidden layer (4 wide) before and after activation.
BLOCK_PASSES = 24.0
# The same of a bottleneck, per value of its output: the three convolutions' inputs and outputs (a quarter, a quarter
# and all of the channels), the outputs again for their statistics, and the sum with the shortcut.
BOTTLENECK_PASSES = 7.5


@dataclass(frozen=True)
class Roofline:
    """Seconds of an update by each limit, and what they come from; FLOPs are those of the whole slice."""

    flops: float
    compute: float
    memory: float
    links: float

    @property
    def seconds(self) -> float:
        """The least time of an update: the largest of the three."""
        return max(self.compute, self.memory, self.links)

    @property
    def limit(self) -> str:
        """Which of the three is the largest."""
        return max(("compute", "memory", "links"), key=lambda name: getattr(self, name))

    @property
    def most_mfu(self) -> float:
        """The utilisation that would be reached if the largest limit were all."""
        return self.compute / self.seconds

    def to_dict(self) -> dict[str, Any]:
        """As --json has it; times in seconds."""
        return asdict(self) | {"seconds": self.seconds, "limit": self.limit, "most_mfu": self.most_mfu}


def roofline(config: TrainConfig, model: ClipConfig, topology: Topology, mesh: dict[str, int]) -> Roofline:
    """The limits of one update. Links: gradients and parameters of data and fsdp axes, activations of the tensor axis
    and the loss's features; within a slice, as the links between slices are not published."""
    chip, devices = topology.chip, topology.devices
    per_device = chip.devices
    flops = step_flops(config, model)
    local = config.batch_size / (mesh["data"] * mesh["fsdp"])
    width = BFLOAT16 if config.model.dtype == "bfloat16" else FLOAT32
    again = (config.model.remat == "block") + (config.microbatches > 1)
    trained = gathered = memory = tensor = 0.0
    for tower in _towers(model, config.model.patch_dropout):
        locked = is_locked(config, model, tower.name)
        passes = 1 if locked else 1 + BACKWARD + again
        stream = tower.stream * width * local
        memory += stream * tower.passes * passes / mesh["tensor"]
        tensor += 4 * passes * _ring(mesh["tensor"]) * stream
        gathered += tower.parameters * passes
        trained += 0 if locked else tower.parameters
    split = mesh["fsdp"] * mesh["tensor"]
    memory += trained / split * FLOAT32 * OPTIMIZER_PASSES
    fsdp = _ring(mesh["fsdp"]) * gathered / mesh["tensor"] * FLOAT32  # for each pass, gradients scattered
    data = 2 * _ring(mesh["data"]) * trained / split * FLOAT32
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


@dataclass(frozen=True)
class _Tower:
    """A tower's parameters, the values of its residual stream per input over all tokens and layers, and `passes`.

    Passes are reads and writes of such a value, forward.
    """

    name: Literal["visual", "text"]
    parameters: int
    stream: float
    passes: float


def _towers(model: ClipConfig, patch_dropout: float) -> tuple[_Tower, _Tower]:
    vision, sizes = model.vision, parameters(model)
    if isinstance(vision, ResNetConfig):
        # Stages halve the sides and double the channels; the stem's side is a quarter of the image's.
        side, channels = vision.image_size // 4, 4 * vision.width
        stream = sum(
            blocks * (side / 2**stage) ** 2 * channels * 2**stage for stage, blocks in enumerate(vision.layers)
        )
        image = _Tower("visual", sizes.image, stream, BOTTLENECK_PASSES)
    else:
        tokens = (kept_patches(model, patch_dropout) or 0) + vision.class_token
        image = _Tower("visual", sizes.image, float(tokens * _layers(vision.transformer)), BLOCK_PASSES)
    text = float(model.text.context_length * _layers(model.text.transformer))
    return image, _Tower("text", sizes.text, text, BLOCK_PASSES)


def _layers(stack: TransformerConfig) -> int:
    return stack.width * stack.layers
