"""The references' initialisation, tower by tower.

Source: openai/CLIP `CLIP.initialize_parameters` and open_clip's `CLIP`: the text tower is scaled by its width and
depth, while the vision tower's blocks keep PyTorch's defaults for nn.Linear and nn.MultiheadAttention. SigLIP's
vision tower is timm's `VisionTransformer`.
"""

from dataclasses import dataclass

from jax.nn import initializers
from jax.nn.initializers import Initializer

# nn.Linear and nn.Conv2d: kaiming_uniform(a=sqrt(5)), uniform in +-1/sqrt(fan_in), of variance 1/(3 fan_in).
torch_linear = initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def torch_bias(fan_in: int) -> Initializer:
    """nn.Linear's bias: uniform in +-1/sqrt(fan_in)."""
    bound = fan_in**-0.5

    def init(key, shape, dtype=None, out_sharding=None):
        del out_sharding
        return initializers.uniform(2 * bound)(key, shape, dtype) - bound

    return init


@dataclass(frozen=True)
class BlockInit:
    """Initialisers of a block's kernels and of the biases that do not start at zero."""

    qkv: Initializer
    out: Initializer
    up: Initializer
    down: Initializer
    up_bias: Initializer = initializers.zeros
    down_bias: Initializer = initializers.zeros


@dataclass(frozen=True)
class VisionInit:
    """Initialisers of a vision transformer: its blocks and what stands before and behind them."""

    block: BlockInit
    class_embedding: Initializer
    positional_embedding: Initializer
    projection: Initializer
    projection_bias: Initializer


def clip_vision(width: int, hidden: int) -> VisionInit:
    """CLIP's: normals of w^-1/2 around blocks of PyTorch's defaults, with Xavier uniform over the fused [3w, w]."""
    block = BlockInit(
        qkv=initializers.xavier_uniform(),
        out=torch_linear,
        up=torch_linear,
        down=torch_linear,
        up_bias=torch_bias(width),
        down_bias=torch_bias(hidden),
    )
    scaled = initializers.normal(width**-0.5)
    return VisionInit(block, scaled, scaled, projection=scaled, projection_bias=initializers.zeros)


def siglip_vision(width: int) -> VisionInit:
    """SigLIP's: normals of 0.02 and biases of zero, with a projection that open_clip adds as an nn.Linear."""
    normal = initializers.normal(0.02)
    return VisionInit(
        BlockInit(normal, normal, normal, normal),
        class_embedding=initializers.normal(1e-6),
        positional_embedding=normal,
        projection=torch_linear,
        projection_bias=torch_bias(width),
    )


def siglip_probe(width: int) -> Initializer:
    """SigLIP's for the query of attention pooling: a normal of w^-1/2, cut off at two of its deviations."""
    return initializers.truncated_normal(width**-0.5)


def text_block(width: int, hidden: int, layers: int) -> BlockInit:
    """Normals of CLIP's own: w^-1/2 into attention, (2w)^-1/2 into the MLP, w^-1/2 (2L)^-1/2 onto the residual."""
    onto_residual = initializers.normal(width**-0.5 * (2 * layers) ** -0.5)
    return BlockInit(
        qkv=initializers.normal(width**-0.5),
        out=onto_residual,
        up=initializers.normal((2 * width) ** -0.5),
        down=onto_residual,
        up_bias=torch_bias(width),
        down_bias=torch_bias(hidden),
    )
