"""The mean cross entropy of a linear classifier, its gradient and its curvature, in blocks that bound the memory."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float32, Int


class Problem(NamedTuple):
    """What is minimised: centred features and labels in g blocks of r examples, which the weights count or leave out.

    `axes` are the features' principal axes, with the intercept as one more, and `variances` those along them.
    """

    features: Float32[Array, "g k r"]
    labels: Int[Array, "g r"] | Bool[Array, "g c r"]
    weights: Float32[Array, "g r"]
    axes: Float32[Array, "k1 k1"]
    variances: Float32[Array, " k1"]


@jax.custom_vjp
def mean_loss(weights: Float32[Array, "k1 c"], problem: Problem) -> Float32[Array, ""]:
    """The mean cross entropy. Its gradient is found along with it, block by block, so that no logits are kept."""
    return _mean_loss_and_gradient(weights, problem)[0]


def _mean_loss_and_gradient(weights: Array, problem: Problem) -> tuple[Array, Array]:
    def losses(weights: Array, features: Array, labels: Array, counted: Array) -> Array:
        return _cross_entropy(_logits(weights, features), labels) @ counted

    def add_block(total, block):
        return jax.tree.map(jnp.add, total, jax.value_and_grad(losses)(weights, *block)), None

    nothing = (jnp.float32(0), jnp.zeros_like(weights))
    total, _ = jax.lax.scan(add_block, nothing, (problem.features, problem.labels, problem.weights))
    return jax.tree.map(lambda sums: sums / problem.weights.sum(), total)


mean_loss.defvjp(_mean_loss_and_gradient, lambda gradient, cotangent: (cotangent * gradient, None))


def class_curvature(weights: Array, problem: Problem) -> Float32[Array, " c"]:
    """The mean over the examples of p (1 - p), the second derivative of the loss by the logit of each class."""

    def add_block(total, block):
        features, labels, counted = block
        logits = _logits(weights, features)
        p = jax.nn.sigmoid(logits) if labels.ndim == 2 else jax.nn.softmax(logits, axis=0)
        return total + (p * (1 - p)) @ counted, None

    nothing = jnp.zeros(weights.shape[1])
    total, _ = jax.lax.scan(add_block, nothing, (problem.features, problem.labels, problem.weights))
    return total / problem.weights.sum()


def _logits(weights: Float32[Array, "k1 c"], features: Float32[Array, "k r"]) -> Float32[Array, "c r"]:
    return weights[:-1].T @ features + weights[-1][:, None]


def _cross_entropy(logits: Float32[Array, "c r"], labels: Array) -> Float32[Array, " r"]:
    """Written so that what a nearly certain answer still lacks is not rounded away, in the gradient neither."""
    if labels.ndim == 2:
        return jax.nn.softplus(jnp.where(labels, -logits, logits)).sum(axis=0)
    own = labels[None] == jnp.arange(len(logits))[:, None]
    others = jax.nn.logsumexp(jnp.where(own, -jnp.inf, logits), axis=0)
    return jax.nn.softplus(others - jnp.where(own, logits, 0).sum(axis=0))
