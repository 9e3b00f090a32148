"""The ridge probe against scikit-learn's RidgeClassifier, its choice of the strength against leaving examples out."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge, RidgeClassifier
from support.digits import digits

from clip_jax.errors import UserError
from clip_jax.evaluation.metrics import top
from clip_jax.evaluation.probes.labelled_features import LabelledFeatures
from clip_jax.evaluation.probes.ridge import SHARES, ridge


@pytest.fixture(scope="module")
def splits() -> tuple[LabelledFeatures, LabelledFeatures]:
    features, labels = digits()
    return LabelledFeatures(features[:1000], labels[:1000], 10), LabelledFeatures(features[1000:], labels[1000:], 10)


@pytest.mark.parametrize("strength", [1.0, 1e3, 1e5])
def test_same_as_ridge_classifier(splits, strength):
    train, test = splits
    expected = RidgeClassifier(alpha=strength).fit(train.features.astype(np.float64), train.labels)
    probe = ridge(train, [strength])
    scores = probe.scores(test.features)
    np.testing.assert_allclose(2 * scores - 1, expected.decision_function(test.features), atol=1e-3)
    assert top(scores, test.labels) == expected.score(test.features, test.labels)
    assert probe.strength == strength


def test_two_classes(splits):
    train = splits[0].rows(splits[0].labels < 2)
    train = LabelledFeatures(train.features, train.labels, 2)
    expected = RidgeClassifier(alpha=10.0).fit(train.features.astype(np.float64), train.labels)
    scores = ridge(train, [10.0]).scores(train.features)
    np.testing.assert_allclose(scores[:, 1] - scores[:, 0], expected.decision_function(train.features), atol=1e-3)


def test_several_labels(splits):
    train = splits[0]
    labels = np.random.default_rng(0).random((1000, 4)) < 0.3
    expected = Ridge(alpha=10.0).fit(train.features.astype(np.float64), labels.astype(np.float64))
    scores = ridge(LabelledFeatures(train.features, labels, 4), [10.0]).scores(train.features)
    np.testing.assert_allclose(scores, expected.predict(train.features), atol=1e-3)


def test_the_strength_is_that_which_predicts_left_out_examples_best():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(40, 12)).astype(np.float32) * np.logspace(-1, 1, 12, dtype=np.float32) + 3
    labels = (features[:, 5:8] - 3 + rng.normal(size=(40, 3))).argmax(axis=1)
    targets = np.eye(3)[labels]
    strengths = [0.01, 0.1, 1.0, 10.0, 100.0, 1000.0]

    def left_out_error(strength: float) -> float:
        total = 0.0
        for row in range(40):
            others = np.arange(40) != row
            model = Ridge(alpha=strength).fit(features[others].astype(np.float64), targets[others])
            total += np.square(model.predict(features[row : row + 1]) - targets[row]).sum()
        return total

    errors = [left_out_error(strength) for strength in strengths]
    best = int(np.argmin(errors))
    assert 0 < best < len(strengths) - 1, errors
    assert ridge(LabelledFeatures(features, labels, 3), strengths).strength == strengths[best]


def test_strengths_follow_the_features_size(splits):
    train, test = splits
    probe = ridge(train)
    large = ridge(LabelledFeatures(train.features * 64, train.labels, 10))
    assert large.strength == pytest.approx(64**2 * probe.strength, rel=1e-5)
    np.testing.assert_allclose(large.scores(test.features * 64), probe.scores(test.features), atol=1e-4)
    squares = np.square(train.features - train.features.mean(axis=0)).sum() / 64
    assert probe.strength / squares == pytest.approx(
        min(SHARES, key=lambda s: abs(s - probe.strength / squares)), rel=1e-3
    )
    assert top(probe.scores(test.features), test.labels) > 0.85


def test_more_axes_than_examples(splits):
    train, test = splits
    few = train.rows(np.arange(40))
    expected = RidgeClassifier(alpha=100.0).fit(few.features.astype(np.float64), few.labels)
    scores = ridge(few, [100.0]).scores(test.features)
    np.testing.assert_allclose(2 * scores - 1, expected.decision_function(test.features), atol=2e-3)
    assert np.isfinite(ridge(few).scores(test.features)).all()


def test_what_cannot_be_fitted_is_refused(splits):
    train = splits[0]
    with pytest.raises(UserError, match="all training examples are of class 4"):
        ridge(LabelledFeatures(train.features, np.full(1000, 4), 10))
    with pytest.raises(UserError, match="must be positive numbers"):
        ridge(train, [1.0, 0.0])
