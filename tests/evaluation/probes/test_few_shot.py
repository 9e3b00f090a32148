"""Few-shot probes against scikit-learn's logistic regression on the same examples."""

import numpy as np
import pytest
from scipy.stats import sem
from sklearn.linear_model import LogisticRegression as Reference
from support.digits import digits
from threadpoolctl import threadpool_limits

from clip_jax.errors import UserError
from clip_jax.evaluation.metrics import top
from clip_jax.evaluation.probes.few_shot import few_shot
from clip_jax.evaluation.probes.labelled_features import LabelledFeatures, rank_within_class

STRENGTH = 50.0
SHOTS, SEEDS = (1, 2, 16), (0, 7)


@pytest.fixture(scope="module")
def splits() -> tuple[LabelledFeatures, LabelledFeatures]:
    """Class 3 has five training examples only."""
    features, labels = digits()
    train = np.flatnonzero((labels != 3) | (np.cumsum(labels == 3) <= 5))[:800]
    rest = np.setdiff1d(np.arange(len(labels)), train)
    return LabelledFeatures(features[train], labels[train], 10), LabelledFeatures(features[rest], labels[rest], 10)


@pytest.fixture(scope="module")
def result(splits):
    train, test = splits
    return few_shot(train, test, top, SHOTS, SEEDS, STRENGTH)


def test_same_accuracy_as_scikit_learn(splits, result):
    train, test = splits
    expected = np.empty((len(SHOTS), len(SEEDS)))
    for row, shots in enumerate(SHOTS):
        for column, seed in enumerate(SEEDS):
            drawn = rank_within_class(train.labels, seed) < shots
            assert (np.bincount(train.labels[drawn]) == np.where(np.arange(10) == 3, min(shots, 5), shots)).all()
            model = Reference(C=1 / STRENGTH, solver="newton-cholesky", tol=1e-10)
            with threadpool_limits(1):
                model.fit(train.features[drawn].astype(np.float64), train.labels[drawn])
            expected[row, column] = model.score(test.features, test.labels)
    np.testing.assert_allclose(result.figures, expected, atol=1.5 / len(test))
    assert 0.3 < expected.min() < expected.max() < 0.99


def test_mean_and_standard_error(result):
    np.testing.assert_allclose(result.mean, np.mean(result.figures, axis=1))
    np.testing.assert_allclose(result.standard_error, sem(result.figures, axis=1))
    assert (np.diff(result.mean) > 0).all()
    assert (result.standard_error > 0).all()


def test_classes_with_fewer_examples_than_shots_are_told(result):
    assert (result.shots, result.seeds) == (SHOTS, SEEDS)
    assert result.short_classes == (0, 0, 1)


def test_one_seed_has_no_error(splits):
    train, test = splits
    alone = few_shot(train, test, top, (1, 16), (7,), STRENGTH)
    assert np.isnan(alone.standard_error).all()


def test_a_seed_draws_the_same_whatever_the_others_are(splits, result):
    train, test = splits
    alone = few_shot(train, test, top, (1, 16), (7,), STRENGTH)
    np.testing.assert_array_equal(alone.figures[:, 0], result.figures[[0, 2], 1])


def test_what_cannot_be_drawn_is_refused(splits):
    train, test = splits
    more = [LabelledFeatures(split.features, split.labels, 11) for split in splits]
    with pytest.raises(UserError, match="class 10 has no training examples"):
        few_shot(more[0], more[1], top)
    several = [LabelledFeatures(split.features, np.eye(10, dtype=bool)[split.labels], 10) for split in splits]
    with pytest.raises(UserError, match="several labels"):
        few_shot(several[0], several[1], top)
    with pytest.raises(UserError, match="at least 1, and at least one seed"):
        few_shot(train, test, top, shots=(0, 1))
    with pytest.raises(UserError, match="at least one seed"):
        few_shot(train, test, top, seeds=())
