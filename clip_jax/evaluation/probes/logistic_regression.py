"""Logistic regression with L2 on the weights and a free intercept, fitted by L-BFGS on the default device.

The objective is that of scikit-learn's LogisticRegression with C = 1 / strength: the sum of the cross entropies, plus
strength / 2 times the squared weights. As there, two classes share one weight vector, and classes that have no examples
take no part; several labels an image are a regression for each.
"""

import math
import warnings
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int

from clip_jax.errors import UserError
from clip_jax.evaluation.metrics import Truth, is_multi_label
from clip_jax.evaluation.probes.labelled_features import LabelledFeatures
from clip_jax.evaluation.probes.logistic_loss import Problem
from clip_jax.evaluation.probes.logistic_solver import minimise
from clip_jax.evaluation.probes.principal_axes import PrincipalAxes, principal_axes

LOGITS_AT_ONCE = 2**20  # bounds the memory; more are not faster
ROUNDING = 1e-6  # of the largest variance: less cannot be told in float32
TOLERANCE = 1e-8  # the estimated share by which the objective may exceed its minimum
NEVER = -1e30  # the bias of a class without examples, finite so that it can be reckoned with


@dataclass(frozen=True)
class Probe:
    """A linear classifier of features of width k, how many iterations it took, and whether they reached the minimum."""

    kernel: Float32[np.ndarray, "k c"]
    bias: Float32[np.ndarray, " c"]
    iterations: int
    converged: bool

    def scores(self, features: Float[np.ndarray, "b k"]) -> Float32[np.ndarray, "b c"]:
        """The logits of a softmax over the classes, or, of several labels an image, of a sigmoid for each."""
        return features.astype(np.float32) @ self.kernel + self.bias


class LogisticRegression:
    """Labelled features on the device, ready to be fitted with any strength.

    Fits to examples of the same shape are one compiled program: where several choices of examples are compared, give
    their union, and those that are `counted` of it. `axes` may be those of similar features; they change how fast a
    fit is, not what it finds. Raises UserError where all examples have one class, or all or none a label.
    """

    def __init__(
        self,
        examples: LabelledFeatures,
        axes: PrincipalAxes | None = None,
        counted: Bool[np.ndarray, " b"] | None = None,
    ) -> None:
        self._examples, self._axes = examples, axes or principal_axes(examples.features)
        counted = np.ones(len(examples), bool) if counted is None else counted
        self._present, labels = _present_classes(examples.labels, counted)
        width = examples.features.shape[1]
        blocks = math.ceil(len(examples) * len(self._present) / LOGITS_AT_ONCE)
        variances = np.maximum(self._axes.variances, ROUNDING * self._axes.variances[-1])
        axes_and_intercept = np.eye(width + 1, dtype=np.float32)
        axes_and_intercept[:width, :width] = self._axes.directions
        self._problem = Problem(
            features=_in_blocks(self._axes.centred(examples.features), blocks),
            labels=_in_blocks(labels, blocks),
            weights=_in_blocks(counted.astype(np.float32), blocks),
            axes=jnp.asarray(axes_and_intercept),
            variances=jnp.asarray(np.append(variances, 1), jnp.float32),
        )
        self._best_bias = _best_bias(labels[counted])

    def fit(self, strength: float, start: Probe | None = None, tolerance: float = TOLERANCE) -> Probe:
        """The minimum for one strength, sought from `start`, or else from weights of 0. Raises UserError."""
        if not (math.isfinite(strength) and strength > 0):
            raise UserError(f"the strength of the regularisation is {strength}; it must be a positive number")
        width, classes = self._examples.features.shape[1], self._examples.classes
        kernel, bias = np.zeros((width, len(self._present)), np.float32), self._best_bias
        if start is not None:
            kernel = start.kernel[:, self._present]
            bias = start.bias[self._present] + self._axes.mean @ kernel
        with jax.default_matmul_precision("highest"):
            begin = np.concatenate([kernel, bias[None]])
            weights, iterations, excess = minimise(self._problem, strength, begin, tolerance)
        weights = np.asarray(weights)
        kernel, bias = np.zeros((width, classes), np.float32), np.full(classes, NEVER, np.float32)
        kernel[:, self._present] = weights[:-1]
        bias[self._present] = weights[-1] - self._axes.mean @ weights[:-1]
        return Probe(kernel, bias, int(iterations), bool(excess <= tolerance))


def fit(examples: LabelledFeatures, strength: float, start: Probe | None = None) -> Probe:
    """One fit, with a warning where it did not reach the minimum. Raises UserError as LogisticRegression does."""
    probe = LogisticRegression(examples).fit(strength, start)
    if not probe.converged:
        warnings.warn(
            f"the fit with strength {strength:g} ended after {probe.iterations} iterations before its minimum; "
            "more regularisation, or features of similar sizes, would help",
            stacklevel=2,
        )
    return probe


def _present_classes(labels: Truth, counted: Bool[np.ndarray, " b"]) -> tuple[Int[np.ndarray, " p"], np.ndarray]:
    """The classes of counted examples, and the labels among these. Raises UserError where nothing can be learnt."""
    own = labels[counted]
    if is_multi_label(labels):
        constant = np.flatnonzero(own.all(axis=0) | ~own.any(axis=0))
        if len(constant):
            raise UserError(f"all or none of the training examples have label {constant[0]}; a probe needs both")
        return np.arange(labels.shape[1]), labels
    present = np.unique(own)
    if len(present) < 2:
        raise UserError(f"all training examples are of class {present[0]}; a probe needs two classes at least")
    return present, np.minimum(np.searchsorted(present, labels), len(present) - 1).astype(np.int32)


def _best_bias(labels: np.ndarray) -> Float32[np.ndarray, " p"]:
    """The intercepts of the minimum where all other weights are 0."""
    if is_multi_label(labels):
        frequency = labels.mean(axis=0)
        return np.log(frequency / (1 - frequency)).astype(np.float32)
    return np.log(np.bincount(labels) / len(labels)).astype(np.float32)


def _in_blocks(rows: np.ndarray, blocks: int) -> Array:
    """Rows [b, ...] as [blocks, ..., rows of a block] on the device, with zeros where the last block is not full."""
    size = math.ceil(len(rows) / blocks)
    filled = np.pad(rows, [(0, blocks * size - len(rows))] + [(0, 0)] * (rows.ndim - 1))
    return jnp.asarray(np.moveaxis(filled.reshape(blocks, size, *rows.shape[1:]), 1, -1))
