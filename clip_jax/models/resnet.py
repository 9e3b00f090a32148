"""CLIP's modified ResNet."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.nn import initializers
from jaxtyping import Array, Float

from clip_jax.config import ComputeConfig, ResNetConfig
from clip_jax.models.batch_norm import BatchNorm
from clip_jax.models.initializers import torch_linear
from clip_jax.models.pooling import AttentionPool
from clip_jax.models.transformer import rematerialise
from clip_jax.sharding import BATCH_AXES, constrain

EXPANSION = 4  # of a bottleneck's output over its width
STAGES = (1, 2, 3, 4)

FeatureMap = Float[Array, "b _ _ _"]  # [batch, rows, columns, channels], which differ from layer to layer


class ResNet(nnx.Module):
    """A stem of three convolutions, four stages of bottlenecks, attention pooling into the embedding.

    Every stride is an average pool before a convolution, never the convolution's. Source: section 2.4 of the paper;
    openai/CLIP `ModifiedResNet`.
    """

    def __init__(self, config: ResNetConfig, embed_dim: int, compute: ComputeConfig, rngs: nnx.Rngs):
        self.layers = config.layers
        self.compute = compute
        dtype = jnp.dtype(compute.dtype)
        self.stem = Stem(config.width, dtype, rngs)
        inputs = config.width
        for stage in STAGES:
            width = config.width * 2 ** (stage - 1)
            blocks = {}
            for index in range(config.layers[stage - 1]):
                stride = 2 if stage > 1 and index == 0 else 1
                blocks[f"block_{index}"] = Bottleneck(inputs, width, stride, dtype, rngs)
                inputs = EXPANSION * width
            setattr(self, f"stage_{stage}", nnx.Dict(blocks))
        self.attention_pool = AttentionPool(config, embed_dim, dtype, rngs)

    def __call__(
        self, pixels: Float[Array, "b size size 3"], train: bool = False
    ) -> tuple[Float[Array, "b k"], dict[str, Any]]:
        """Image embeddings (not normalised) and named intermediates.

        `layers`: {'stem': [b, h, w, c], 'stage_1': ..., 'stage_4': ...}, each one's output; `pre_projection` [b, d]:
        what attention pooling gathered before its output layer; in training also `statistics`: the new running
        ones, in a nested dict like the tower's parameters.
        """
        x, stem = self.stem(pixels.astype(self.compute.dtype), train)
        layers, statistics = {"stem": x}, {"stem": stem}
        for stage, blocks in zip(STAGES, self.layers, strict=True):
            name = f"stage_{stage}"
            statistics[name] = {}
            for block in (f"block_{index}" for index in range(blocks)):  # not sorted, where 10 precedes 2
                x, statistics[name][block] = self._run(getattr(self, name)[block], x, train)
            layers[name] = x
        embedding, gathered = self.attention_pool(x)
        named = {"layers": layers, "pre_projection": gathered}
        return embedding, named | {"statistics": statistics} if train else named

    def _run(self, block: "Bottleneck", x: FeatureMap, train: bool) -> tuple[FeatureMap, dict[str, Any]]:
        graph, params = nnx.split(block)
        run = rematerialise(lambda params, x: nnx.merge(graph, params)(x, train), self.compute.remat)
        return run(params, x)


class Stem(nnx.Module):
    """Three 3x3 convolutions, the first of stride 2, and an average pool: a quarter of each side."""

    def __init__(self, width: int, dtype: jnp.dtype, rngs: nnx.Rngs):
        half = width // 2
        self.conv_1 = _convolution(3, half, 3, dtype, rngs, stride=2)
        self.norm_1 = BatchNorm(half, rngs)
        self.conv_2 = _convolution(half, half, 3, dtype, rngs)
        self.norm_2 = BatchNorm(half, rngs)
        self.conv_3 = _convolution(half, width, 3, dtype, rngs)
        self.norm_3 = BatchNorm(width, rngs)

    def __call__(self, x: FeatureMap, train: bool) -> tuple[FeatureMap, dict[str, Any]]:
        x, norm_1 = self.norm_1(self.conv_1(x), train)
        x, norm_2 = self.norm_2(self.conv_2(jax.nn.relu(x)), train)
        x, norm_3 = self.norm_3(self.conv_3(jax.nn.relu(x)), train)
        x = constrain(_average(jax.nn.relu(x), 2), BATCH_AXES, None, None, None)
        return x, {"norm_1": norm_1, "norm_2": norm_2, "norm_3": norm_3}


class Bottleneck(nnx.Module):
    """x + a 1x1, a 3x3 and a widening 1x1 convolution of x; x is averaged and convolved to the output's shape."""

    def __init__(self, inputs: int, width: int, stride: int, dtype: jnp.dtype, rngs: nnx.Rngs):
        outputs = EXPANSION * width
        self.stride = stride
        self.conv_1 = _convolution(inputs, width, 1, dtype, rngs)
        self.norm_1 = BatchNorm(width, rngs)
        self.conv_2 = _convolution(width, width, 3, dtype, rngs)
        self.norm_2 = BatchNorm(width, rngs)
        self.conv_3 = _convolution(width, outputs, 1, dtype, rngs)
        self.norm_3 = BatchNorm(outputs, rngs, scale_init=initializers.zeros)
        reshapes = stride > 1 or inputs != outputs
        self.downsample = Downsample(inputs, outputs, stride, dtype, rngs) if reshapes else None

    def __call__(self, x: FeatureMap, train: bool) -> tuple[FeatureMap, dict[str, Any]]:
        y, norm_1 = self.norm_1(self.conv_1(x), train)
        y, norm_2 = self.norm_2(self.conv_2(jax.nn.relu(y)), train)
        y, norm_3 = self.norm_3(self.conv_3(_average(jax.nn.relu(y), self.stride)), train)
        statistics = {"norm_1": norm_1, "norm_2": norm_2, "norm_3": norm_3}
        if self.downsample is not None:
            x, statistics["downsample"] = self.downsample(x, train)
        return constrain(jax.nn.relu(x + y), BATCH_AXES, None, None, None), statistics


class Downsample(nnx.Module):
    """The shortcut where a block changes the shape."""

    def __init__(self, inputs: int, outputs: int, stride: int, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.stride = stride
        self.conv = _convolution(inputs, outputs, 1, dtype, rngs)
        self.norm = BatchNorm(outputs, rngs)

    def __call__(self, x: FeatureMap, train: bool) -> tuple[FeatureMap, dict[str, Any]]:
        x, norm = self.norm(self.conv(_average(x, self.stride)), train)
        return x, {"norm": norm}


def _convolution(inputs: int, outputs: int, size: int, dtype: jnp.dtype, rngs: nnx.Rngs, stride: int = 1) -> nnx.Conv:
    return nnx.Conv(
        inputs,
        outputs,
        (size, size),
        strides=stride,
        padding=size // 2,
        use_bias=False,
        dtype=dtype,
        kernel_init=torch_linear,
        rngs=rngs,
    )


def _average(x: FeatureMap, size: int) -> FeatureMap:
    """The mean of each `size` x `size` square; what fills no whole one is left out."""
    return nnx.avg_pool(x, (size, size), strides=(size, size)) if size > 1 else x
