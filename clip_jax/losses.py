"""The contrastive losses: textbook references on whole arrays, and the same values over a sharded batch.

Features are L2-normalised by the caller; `scale` is the multiplier itself, already exponentiated. Everything is
computed in float32 with full-precision products, whatever the features' type.
"""

from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float

from clip_jax.errors import UserError
from clip_jax.ring_loss import ring_loss
from clip_jax.schema import nearest
from clip_jax.sharding import BATCH_AXES, batch_shards

Kind = Literal["softmax", "sigmoid"]
Method = Literal["gather", "ring"]


def softmax_loss(
    image: Float[Array, "b d"], text: Float[Array, "b d"], scale: Float[Array, ""] | float
) -> Float[Array, ""]:
    """Mean of the image-to-text and text-to-image cross entropies over all pairs.

    Source: figure 3 of Radford et al. 2021, arXiv 2103.00020.
    """
    logits = _logits(image, text, scale)
    to_text = jnp.diagonal(jax.nn.log_softmax(logits, axis=1))
    to_image = jnp.diagonal(jax.nn.log_softmax(logits, axis=0))
    return -(to_text.mean() + to_image.mean()) / 2


def sigmoid_loss(
    image: Float[Array, "b d"],
    text: Float[Array, "b d"],
    scale: Float[Array, ""] | float,
    bias: Float[Array, ""] | float,
) -> Float[Array, ""]:
    """Binary cross entropy summed over all b x b pairs and divided by b; matching pairs are the positives.

    Source: algorithm 1 of Zhai et al. 2023, arXiv 2303.15343.
    """
    logits = _logits(image, text, scale) + bias
    signs = 2 * jnp.eye(len(image)) - 1
    return -jax.nn.log_sigmoid(signs * logits).sum(axis=1).mean()


def contrastive_loss(
    image: Float[Array, "b d"],
    text: Float[Array, "b d"],
    scale: Float[Array, ""] | float,
    bias: Float[Array, ""] | float | None = None,
    *,
    kind: Kind = "softmax",
    method: Method = "gather",
    mesh: Mesh | None = None,
) -> Float[Array, ""]:
    """The loss of a global batch sharded over the mesh's batch axes; equal to the textbook losses above.

    `gather`: every device collects all features and scores its own rows of both directions against them, which is
    simplest and fastest while local batch x global batch logits fit. `ring`: texts travel from device to device and
    logits are computed in tiles, so that memory is linear in the local batch and the number of devices does not matter.

    `mesh=None` is one device. bfloat16 features are scored in float32; in the ring they travel as they are.
    Raises UserError for an unknown kind or method, a sigmoid loss without bias, or a batch that the mesh does not
    divide.
    """
    for name, value, valid in (("kind", kind, get_args(Kind)), ("method", method, get_args(Method))):
        if value not in valid:
            raise UserError(f"unknown loss {name} '{value}'; {nearest(str(value), valid)}")
    if kind == "sigmoid" and bias is None:
        raise UserError("the sigmoid loss needs a bias; pass bias, or use kind='softmax'")
    if mesh is not None and len(image) % batch_shards(mesh):
        raise UserError(f"a batch of {len(image)} does not divide over data x fsdp = {batch_shards(mesh)} devices")
    scale = jnp.asarray(scale, jnp.float32)
    if method == "ring":
        return ring_loss(image, text, scale, jnp.asarray(bias, jnp.float32) if kind == "sigmoid" else None, mesh)
    bias = jnp.asarray(0.0 if bias is None else bias, jnp.float32)
    if mesh is None:
        return softmax_loss(image, text, scale) if kind == "softmax" else sigmoid_loss(image, text, scale, bias)
    # Cast once and before they are collected, so that their gradients are summed in float32 too.
    image, text = image.astype(jnp.float32), text.astype(jnp.float32)
    local_loss = {"softmax": _local_softmax, "sigmoid": _local_sigmoid}[kind]
    return jax.shard_map(local_loss, mesh=mesh, in_specs=(P(BATCH_AXES), P(BATCH_AXES), P(), P()), out_specs=P())(
        image, text, scale, bias
    )


def _local_softmax(image, text, scale, bias):
    """One device's rows of both directions against all columns; the mean over devices is the global mean."""
    del bias
    all_image, all_text = _gather(image), _gather(text)
    own = _own_pairs(len(image), len(all_image))
    to_text = jnp.where(own, jax.nn.log_softmax(_logits(image, all_text, scale), axis=1), 0.0)
    to_image = jnp.where(own, jax.nn.log_softmax(_logits(text, all_image, scale), axis=1), 0.0)
    return jax.lax.pmean(-(to_text.sum() + to_image.sum()) / (2 * len(image)), BATCH_AXES)


def _local_sigmoid(image, text, scale, bias):
    """One device's images against all texts."""
    logits = _logits(image, _gather(text), scale) + bias
    signed = jnp.where(_own_pairs(*logits.shape), logits, -logits)
    return jax.lax.pmean(-jax.nn.log_sigmoid(signed).sum() / len(image), BATCH_AXES)


def _own_pairs(local, whole):
    """A mask [local, whole]: where one of the device's rows meets the column of its own pair."""
    first = local * jax.lax.axis_index(BATCH_AXES)
    return first + jnp.arange(local)[:, None] == jnp.arange(whole)[None, :]


def _gather(features):
    return jax.lax.all_gather(features, BATCH_AXES, tiled=True)


def _logits(image, text, scale):
    product = jnp.einsum(
        "id,jd->ij", image.astype(jnp.float32), text.astype(jnp.float32), precision=jax.lax.Precision.HIGHEST
    )
    return scale * product
