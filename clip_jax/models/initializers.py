"""PyTorch CLIP's initialisation, tower by tower.

Source: openai/CLIP `CLIP.initialize_parameters` and open_clip's `CLIP`: the text tower is scaled by its width and
depth, while the vision tower's blocks keep PyTorch's defaults for nn.Linear and nn.MultiheadAttention.
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
    up_bias: Initializer
    down_bias: Initializer


def vision_block(width: int, hidden: int) -> BlockInit:
    """PyTorch's defaults: Xavier uniform over the fused [3w, w] projection, nn.Linear's for the rest."""
    return BlockInit(
        qkv=initializers.xavier_uniform(),
        out=torch_linear,
        up=torch_linear,
        down=torch_linear,
        up_bias=torch_bias(width),
        down_bias=torch_bias(hidden),
    )


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
