"""Both towers and the temperature: the whole model on one screen, as pure functions of a parameter dict."""

from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from clip_jax.config import ClipConfig, ComputeConfig, ResNetConfig
from clip_jax.models.resnet import ResNet
from clip_jax.models.text import TextTransformer
from clip_jax.models.vision import VisionTransformer

Params = dict[str, Any]
"""A nested dict of arrays: {'visual': ..., 'text': ..., 'logit_scale': scalar}, logit_scale being the logarithm.

Sigmoid models have a scalar 'logit_bias' besides. The running statistics of batch norms, `mean` and `variance`, lie
among the parameters, but have no gradients.
"""


class TwoTower(nnx.Module):
    """CLIP: an image tower and a text tower into one space, the logarithm of the logit scale, maybe a logit bias."""

    def __init__(self, config: ClipConfig, compute: ComputeConfig, rngs: nnx.Rngs):
        if isinstance(config.vision, ResNetConfig):
            self.visual = ResNet(config.vision, config.embed_dim, compute, rngs)
        else:
            self.visual = VisionTransformer(config.vision, config.embed_dim, compute, rngs)
        self.text = TextTransformer(config.text, config.embed_dim, compute, rngs)
        self.logit_scale = nnx.Param(jnp.float32(config.initial_logit_scale))
        if config.initial_logit_bias is not None:
            self.logit_bias = nnx.Param(jnp.float32(config.initial_logit_bias))


def init_params(config: ClipConfig, key: jax.Array) -> Params:
    """Randomly initialised float32 parameters; pure, so it can run under jit with out_shardings, or eval_shape."""
    return nnx.to_pure_dict(nnx.state(TwoTower(config, ComputeConfig(), nnx.Rngs(params=key)), nnx.Param))


@lru_cache(maxsize=64)
def _graph(config: ClipConfig, compute: ComputeConfig) -> nnx.GraphDef:
    abstract = nnx.eval_shape(lambda: TwoTower(config, compute, nnx.Rngs(0)))
    return nnx.split(abstract, nnx.Param, ...)[0]


def _merge(params: Params, config: ClipConfig, compute: ComputeConfig) -> TwoTower:
    return nnx.merge(_graph(config, compute), params)


def image_embedding(
    params: Params,
    pixels: Float[Array, "b size size 3"],
    config: ClipConfig,
    compute: ComputeConfig,
    *,
    train: bool = False,
    kept: Int[Array, "b kept"] | None = None,
) -> tuple[Float[Array, "b k"], dict[str, Any]]:
    """Image embeddings (not normalised) in the compute dtype, and the tower's named intermediates.

    With `train`, batch norms use the statistics of the whole batch, and the intermediates of a ResNet have
    `statistics`: the new running ones, for `with_statistics`. `kept` are the numbers of the patches that a vision
    transformer is to see, all where none are given.
    """
    visual = _merge(params, config, compute).visual
    return visual(pixels, train) if isinstance(visual, ResNet) else visual(pixels, kept)


def with_statistics(params: Params, statistics: dict[str, Any]) -> Params:
    """The parameters with the image tower's running statistics replaced; `statistics` is nested as they are."""

    def replaced(old: Params, new: dict[str, Any]) -> Params:
        return old | {name: replaced(old[name], leaf) if isinstance(leaf, dict) else leaf for name, leaf in new.items()}

    return params | {"visual": replaced(params["visual"], statistics)}


def text_embedding(
    params: Params, tokens: Int[Array, "b n"], config: ClipConfig, compute: ComputeConfig
) -> tuple[Float[Array, "b k"], dict[str, Array]]:
    """Text embeddings (not normalised) in the compute dtype, and the tower's named intermediates."""
    return _merge(params, config, compute).text(tokens)


def normalise(features: Float[Array, "*b k"]) -> Float[Array, "*b k"]:
    """Features divided by their L2 norm, in float32."""
    features = features.astype(jnp.float32)
    return features / jnp.linalg.norm(features, axis=-1, keepdims=True)
