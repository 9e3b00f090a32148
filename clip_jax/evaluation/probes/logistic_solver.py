"""The minimum of a logistic regression, by L-BFGS in coordinates in which the objective is nearly round."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float32, Int

from clip_jax.evaluation.probes.logistic_loss import Problem, class_curvature, mean_loss

ITERATIONS = 1000  # at most, as in appendix A.3 of the paper
ROUND = 50  # iterations in the same coordinates
STEP_SIZES = 20  # tried in one iteration
ROUNDING = 1e-6  # the least curvature: what is smaller cannot be told in float32


@jax.jit
def minimise(
    problem: Problem, strength: Float32[Array, ""], start: Float32[Array, "k1 c"], tolerance: Float32[Array, ""]
) -> tuple[Float32[Array, "k1 c"], Int[Array, ""], Float32[Array, ""]]:
    """The weights, intercepts as their last row; the iterations; and the share by which the objective is too large.

    L-BFGS goes along the principal axes, each divided by the root of the objective's curvature there. The curvature is
    then near 1 everywhere, so that half the squared gradient tells how far off the minimum is. It changes on the way:
    every ROUND iterations it is found anew, until where a round begins the share is at most the tolerance.
    """
    multi_label = problem.labels.ndim == 3
    vectors = 1 if multi_label or start.shape[1] > 2 else 2  # two mirrored vectors have half the penalty of one
    share = vectors * strength / problem.weights.sum()
    penalty = jnp.full_like(problem.variances, share).at[-1].set(0)
    solver = optax.scale_by_lbfgs()

    def go_round(carry):
        weights, past, _, _ = carry
        curvature = jnp.maximum(class_curvature(weights, problem), ROUNDING)
        scale = jax.lax.rsqrt(problem.variances[:, None] * curvature[None] + penalty[:, None])

        def weights_at(position: Any) -> Array:
            weights = problem.axes @ (position * scale)
            return weights if multi_label else weights - weights.mean(axis=1, keepdims=True)  # a softmax sees no mean

        def objective(position: Any) -> Array:
            weights = weights_at(position)
            return mean_loss(weights, problem) + share / 2 * jnp.square(weights[:-1]).sum()

        def iterate(carry):
            point, memory, count, _ = carry
            descent, memory = solver.update(point.gradient, memory, point.position)
            point, found = _step(jax.value_and_grad(objective), point, -jnp.asarray(descent))
            return point, memory, count + 1, ~found

        def goes_on(carry) -> Array:
            point, _, count, stuck = carry
            return (_excess(point) > tolerance) & (count < ROUND) & (past + count < ITERATIONS) & ~stuck

        position = problem.axes.T @ weights / scale
        first = Point(position, *jax.value_and_grad(objective)(position))
        begin = (first, solver.init(position), 0, False)
        last, _, count, stuck = jax.lax.while_loop(goes_on, iterate, begin)
        return weights_at(last.position), past + count, _excess(first), stuck & (count == 1)

    def needs_another(carry) -> Array:
        _, count, excess, stuck = carry
        return (excess > tolerance) & (count < ITERATIONS) & ~stuck

    begin = (start, 0, jnp.float32(jnp.inf), False)
    weights, count, excess, _ = jax.lax.while_loop(needs_another, go_round, begin)
    return weights, count, excess


class Point(NamedTuple):
    """Where the search is, and the objective and its gradient there."""

    position: Array
    value: Array
    gradient: Array


def _step(value_and_gradient: Any, point: Point, direction: Array) -> tuple[Point, Array]:
    """The point one step along `direction`, or less where that is too far beyond the minimum; and whether one is found.

    The objective is convex, and so one-dimensional slopes suffice: too far is where it rises nearly as steeply as it
    fell. Slopes, unlike small differences of the objective, are still right where float32 ends.
    """
    slope = jnp.vdot(point.gradient, direction)

    def is_too_far(there: Point) -> Array:
        return (jnp.vdot(there.gradient, direction) > -0.8 * slope) | (there.value > point.value * (1 + 1e-6))

    def shorten(carry):
        there, size, tries = carry
        beyond = jnp.vdot(there.gradient, direction)
        size = jnp.where(tries == 0, 1, size * jnp.clip(slope / (slope - beyond), 0.1, 0.5))
        position = point.position + size * direction
        return Point(position, *value_and_gradient(position)), size, tries + 1

    def is_to_shorten(carry) -> Array:
        there, _, tries = carry
        return (tries == 0) | is_too_far(there) & (tries < STEP_SIZES)

    begin = (point, jnp.float32(1), 0)
    there, _, _ = jax.lax.while_loop(is_to_shorten, shorten, begin)
    return there, ~is_too_far(there)


def _excess(point: Point) -> Float32[Array, ""]:
    """The share of the objective that lies above its minimum if its curvature is 1 everywhere."""
    return jnp.vdot(point.gradient, point.gradient) / 2 / point.value
