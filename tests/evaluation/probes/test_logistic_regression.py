"""Logistic regression against scikit-learn's, in float64 and by Newton's method, which ends at the minimum."""

import re
from typing import Any

import numpy as np
import pytest
from scipy.special import logsumexp
from sklearn.linear_model import LogisticRegression as Reference
from support.digits import digits
from threadpoolctl import threadpool_limits

from clip_jax.errors import UserError
from clip_jax.evaluation.probes import logistic_regression, logistic_solver
from clip_jax.evaluation.probes.labelled_features import LabelledFeatures
from clip_jax.evaluation.probes.logistic_regression import LogisticRegression, Probe, fit


def clusters(rows: int, width: int, classes: int, seed: int = 0) -> LabelledFeatures:
    """Classes that overlap, with sizes, offsets and frequencies that differ from axis to axis and class to class."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(classes, rows, p=np.arange(1, classes + 1) / np.arange(1, classes + 1).sum())
    features = (rng.normal(size=(classes, width))[labels] + 1.5 * rng.normal(size=(rows, width))) * np.logspace(
        -1, 1, width
    )
    mixed = features @ np.linalg.qr(rng.normal(size=(width, width)))[0] + 3 * rng.normal(size=width)
    return LabelledFeatures(mixed.astype(np.float32), labels, classes)


def reference(features: np.ndarray, labels: np.ndarray, strength: float) -> Reference:
    model = Reference(C=1 / strength, solver="newton-cholesky", tol=1e-10, max_iter=100)
    with threadpool_limits(1):  # which small matrices are faster with, and much so on a busy machine
        return model.fit(features.astype(np.float64), labels)


def assert_near(found: np.ndarray, expected: np.ndarray, tolerance: float = 2e-3) -> None:
    """The distance is a small part of how much the expected values vary."""
    assert found.shape == expected.shape
    distance = np.linalg.norm(found - expected) / np.linalg.norm(expected - expected.mean())
    assert distance < tolerance


def balanced(scores: Any) -> np.ndarray:
    """With a mean of 0 over the classes: a softmax does not see it, and nothing says what it should be."""
    return scores - scores.mean(axis=-1, keepdims=True)


def mean_objective(kernel: Any, bias: Any, examples: LabelledFeatures, strength: float) -> float:
    """In float64, as scikit-learn's documentation has it."""
    logits = examples.features.astype(np.float64) @ kernel + bias
    entropies = logsumexp(logits, axis=1) - logits[np.arange(len(examples)), examples.labels]
    return float((entropies.sum() + strength / 2 * np.square(kernel).sum()) / len(examples))


def assert_at_the_minimum(probe: Probe, expected: Reference, examples: LabelledFeatures, strength: float) -> None:
    assert probe.converged
    least = mean_objective(expected.coef_.T, expected.intercept_, examples, strength)
    assert mean_objective(probe.kernel.astype(np.float64), probe.bias, examples, strength) < least * (1 + 5e-6)


@pytest.mark.parametrize("strength", [0.01, 1.0, 100.0, 1e6])
def test_same_weights_as_scikit_learn(strength):
    examples = clusters(500, 20, 6)
    expected = reference(examples.features, examples.labels, strength)
    probe = fit(examples, strength)
    assert_at_the_minimum(probe, expected, examples, strength)
    assert_near(probe.kernel, expected.coef_.T)
    assert_near(balanced(probe.bias), balanced(expected.intercept_))
    assert_near(balanced(probe.scores(examples.features)), balanced(expected.decision_function(examples.features)))


@pytest.mark.parametrize("strength", [1e-4, 1e-2, 10.0])
def test_same_scores_of_digits(strength):
    """Pixels that are always 0 are axes without variance, and at the lower strengths all training digits are right."""
    features, labels = digits()
    examples = LabelledFeatures(features[:1200], labels[:1200], 10)
    expected = reference(examples.features, examples.labels, strength)
    probe = fit(examples, strength)
    assert_at_the_minimum(probe, expected, examples, strength)
    scores = probe.scores(features[1200:])
    assert_near(balanced(scores), balanced(expected.decision_function(features[1200:])))
    assert (scores.argmax(axis=1) == expected.predict(features[1200:])).all()


def test_two_classes_have_one_vector_of_weights():
    examples = clusters(300, 10, 2)
    expected = reference(examples.features, examples.labels, 30.0)
    probe = fit(examples, 30.0)
    assert_near(probe.kernel[:, 1] - probe.kernel[:, 0], expected.coef_[0])
    scores = probe.scores(examples.features)
    assert_near(scores[:, 1] - scores[:, 0], expected.decision_function(examples.features))


def test_several_labels_are_a_regression_for_each():
    examples = clusters(400, 12, 5)
    labels = np.random.default_rng(1).random((400, 5)) < 0.1
    labels[np.arange(400), examples.labels] = True
    probe = fit(LabelledFeatures(examples.features, labels, 5), 3.0)
    for label in range(5):
        expected = reference(examples.features, labels[:, label], 3.0)
        assert_near(probe.kernel[:, label], expected.coef_[0])
        assert probe.bias[label] == pytest.approx(np.ravel(expected.intercept_)[0], abs=2e-3)


def test_a_class_without_examples_takes_no_part():
    examples = clusters(500, 20, 6)
    present = [0, 2, 3, 4, 7, 8]
    labels = np.array(present)[examples.labels]
    expected = reference(examples.features, labels, 1.0)
    probe = fit(LabelledFeatures(examples.features, labels, 10), 1.0)
    assert_near(probe.kernel[:, present], expected.coef_.T)
    scores = probe.scores(examples.features)
    assert (scores.argmax(axis=1) == expected.predict(examples.features)).all()
    assert np.isfinite(scores).all()


def test_where_a_fit_starts_does_not_matter():
    regression = LogisticRegression(clusters(500, 20, 6))
    direct, strong = regression.fit(0.1), regression.fit(1000.0)
    onwards = regression.fit(0.1, start=strong)
    assert_near(onwards.kernel, direct.kernel)
    assert regression.fit(0.1, start=onwards).iterations == 0


def test_blocks_change_nothing(monkeypatch):
    examples = clusters(500, 20, 6)
    whole = fit(examples, 1.0)
    monkeypatch.setattr(
        logistic_regression, "LOGITS_AT_ONCE", 6 * 72
    )  # seven blocks of 72, the last with 4 rows of nothing
    assert_near(fit(examples, 1.0).kernel, whole.kernel, 1e-4)


def test_examples_that_are_not_counted_change_nothing():
    examples = clusters(500, 20, 6)
    counted = np.arange(500) % 3 == 0
    expected = reference(examples.features[counted], examples.labels[counted], 1.0)
    assert_near(LogisticRegression(examples, counted=counted).fit(1.0).kernel, expected.coef_.T)


def test_a_fit_that_did_not_end_says_so(monkeypatch):
    monkeypatch.setattr(logistic_solver, "ITERATIONS", 3)
    with pytest.warns(UserWarning, match=re.escape("strength 0.001 ended after 3 iterations before its minimum")):
        probe = fit(clusters(301, 20, 6), 1e-3)  # the number is compiled in, so this shape must be new
    assert not probe.converged


def test_what_cannot_be_learnt_is_refused():
    examples = clusters(50, 4, 3)
    with pytest.raises(UserError, match="all training examples are of class 2"):
        fit(LabelledFeatures(examples.features, np.full(50, 2), 3), 1.0)
    labels = np.eye(3, dtype=bool)[examples.labels]
    labels[:, 1] = False
    with pytest.raises(UserError, match="all or none of the training examples have label 1"):
        fit(LabelledFeatures(examples.features, labels, 3), 1.0)


@pytest.mark.parametrize("strength", [0.0, -1.0, np.inf, np.nan])
def test_a_strength_that_is_none_is_refused(strength):
    with pytest.raises(UserError, match="must be a positive number"):
        fit(clusters(50, 4, 3), strength)
