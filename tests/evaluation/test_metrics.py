"""Figures against scikit-learn's on the same scores, ties included, and against answers counted by hand."""

import numpy as np
import pytest
from sklearn.metrics import (
    average_precision_score,
    precision_recall_curve,
    recall_score,
    roc_auc_score,
    top_k_accuracy_score,
)

from clip_jax.errors import UserError
from clip_jax.evaluation import metrics


def some(rng: np.random.Generator, classes: int, decimals: int = 7) -> np.ndarray:
    return np.round(rng.normal(size=(500, classes)), decimals).astype(np.float32)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_one_label(rng):
    scores, truth = some(rng, 12), rng.choice(12, 500, p=np.arange(12) / 66)  # the first class has no images
    for k in (1, 5):
        expected = top_k_accuracy_score(truth, scores, k=k, labels=range(12))
        assert metrics.top(scores, truth, k) == pytest.approx(expected, abs=1e-12)
    expected = recall_score(truth, scores.argmax(axis=1), labels=np.unique(truth), average="macro")
    assert metrics.mean_per_class(scores, truth) == pytest.approx(expected, abs=1e-12)
    both = metrics.top(scores, truth, 1), metrics.top(scores, truth, 5)
    assert metrics.mean_top1_top5(scores, truth) == pytest.approx(sum(both) / 2, abs=1e-12)


def test_of_equal_scores_the_first_class_is_the_answer(rng):
    scores, truth = some(rng, 4, 0), rng.integers(0, 4, 500)
    assert metrics.top(scores, truth) == (scores.argmax(axis=1) == truth).mean()
    ranking = np.argsort(-scores, axis=1, kind="stable")
    assert metrics.top(scores, truth, 2) == (ranking[:, :2] == truth[:, None]).any(axis=1).mean()


@pytest.mark.parametrize("decimals", [7, 1])
def test_several_labels(rng, decimals):
    scores, truth = some(rng, 6, decimals), rng.random((500, 6)) < [0.3, 0.02, 0.5, 0, 0.9, 0.1]
    present = [0, 1, 2, 4, 5]
    expected = [average_precision_score(truth[:, label], scores[:, label]) for label in present]
    assert metrics.mean_average_precision(scores, truth) == pytest.approx(np.mean(expected), abs=1e-12)
    expected = [eleven_points(truth[:, label], scores[:, label]) for label in present]
    assert metrics.map_11_point(scores, truth) == pytest.approx(np.mean(expected), abs=1e-12)


def eleven_points(truth: np.ndarray, scores: np.ndarray) -> float:
    precision, recall, _ = precision_recall_curve(truth, scores)
    precision, recall = precision[:-1], recall[:-1]  # without the point that no image stands for
    return float(np.mean([precision[recall >= tenth - 1e-9].max() for tenth in np.linspace(0, 1, 11)]))


def test_eleven_points_by_hand():
    truth = np.array([True, False, True, False, False, True])
    # In order of score: precision 1 at recall 1/3, 2/3 at 2/3, 1/2 at 1. Recalls 0 to 0.3, 0.4 to 0.6, 0.7 to 1.
    scores = np.array([6, 5, 4, 3, 2, 1], np.float32)
    assert metrics.average_precision_11_point(scores, truth) == pytest.approx((4 * 1 + 3 * 2 / 3 + 4 / 2) / 11)


@pytest.mark.parametrize("decimals", [7, 1])
def test_two_classes(rng, decimals):
    scores, truth = some(rng, 2, decimals), rng.integers(0, 2, 500)
    expected = roc_auc_score(truth, scores[:, 1] - scores[:, 0])
    assert metrics.roc_auc(scores, truth) == pytest.approx(expected, abs=1e-12)


def test_roc_auc_needs_two_classes(rng):
    with pytest.raises(UserError, match="there are 3 classes"):
        metrics.roc_auc(some(rng, 3), rng.integers(0, 3, 500))
    with pytest.raises(UserError, match="both with images"):
        metrics.roc_auc(some(rng, 2), np.zeros(500, int))


def test_no_labels_at_all(rng):
    with pytest.raises(UserError, match="no image has any label"):
        metrics.map_11_point(some(rng, 3), np.zeros((500, 3), bool))


def test_calibration_by_hand():
    confidence = np.array([0.95, 0.85, 0.9, 0.25], np.float32)
    right = np.array([True, False, True, False])
    # Of ten bins: (0.9, 1] holds 0.95 and none else; (0.8, 0.9] 0.85 and 0.9, half of them right; (0.2, 0.3] 0.25.
    expected = (abs(1 - 0.95) + abs(1 - 1.75) + 0.25) / 4
    assert metrics.calibration_error(confidence, right, bins=10) == pytest.approx(expected, abs=1e-6)


def test_a_calibrated_forecast_has_little_error(rng):
    confidence = rng.random(200_000).astype(np.float32)
    right = rng.random(200_000) < confidence
    assert metrics.calibration_error(confidence, right) < 0.01
    assert metrics.calibration_error(confidence, rng.random(200_000) < confidence**2) > 0.1


def test_chance():
    assert metrics.chance("accuracy", 20) == metrics.chance("mean_per_class", 20) == 0.05
    assert metrics.chance("mean_top1_top5", 20) == pytest.approx((1 / 20 + 5 / 20) / 2)
    assert metrics.chance("mean_top1_top5", 3) == pytest.approx((1 / 3 + 1) / 2)
    assert (metrics.chance("roc_auc", 2), metrics.chance("map_11_point", 20)) == (0.5, None)
