"""The linear probe and its search for the strength against scikit-learn's logistic regression on the same features."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression as Reference
from sklearn.metrics import average_precision_score
from support.digits import digits
from threadpoolctl import threadpool_limits

import clip_jax.evaluation.probes.logistic_solver
from clip_jax.errors import UserError
from clip_jax.evaluation.metrics import mean_average_precision, top
from clip_jax.evaluation.probes.labelled_features import LabelledFeatures, joined
from clip_jax.evaluation.probes.linear_probe import GRID, best_place, linear_probe, search_grid, search_strength


def splits() -> list[LabelledFeatures]:
    """Training, validation and test data."""
    features, labels = digits()
    parts = np.split(np.arange(len(labels)), [400, 900])
    return [LabelledFeatures(features[rows], labels[rows], 10) for rows in parts]


def reference(strength: float, *examples: LabelledFeatures) -> Reference:
    """Newton's method, in float64: it ends at the minimum."""
    model = Reference(C=1 / strength, solver="newton-cholesky", tol=1e-10, max_iter=200)
    features = np.concatenate([some.features for some in examples]).astype(np.float64)
    with threadpool_limits(1):
        return model.fit(features, np.concatenate([some.labels for some in examples]))


def test_the_grid_is_the_paper_s():
    assert len(GRID) == 97
    np.testing.assert_allclose(GRID, np.logspace(-6, 6, 97), rtol=1e-12)
    assert min(abs(np.log10(np.array(GRID) * 0.316))) < 1e-3  # OpenAI's C


@pytest.mark.parametrize(
    ("peak", "order"),
    [
        (37, [40, 24, 44, 36, 38, 34, 39, 37]),  # 36 and 38 are equally near: the stronger goes on
        (96, [88, 92, 94, 95]),
        (3, [8, 4, 6, 2, 5, 3]),
    ],
)
def test_the_search_halves_its_steps_around_the_best(peak, order):
    figures = search_grid(lambda place: -float(abs(place - peak)))
    assert list(figures) == [96, 80, 64, 48, 32, 16, 0, *order]
    assert best_place(figures) == peak


def test_of_equal_figures_the_strongest_wins():
    assert best_place(search_grid(lambda place: 0.5)) == 96


def test_same_strength_and_accuracy_as_scikit_learn():
    train, validation, test = splits()
    result = linear_probe(train, validation, test, top)

    figures = search_grid(
        lambda place: float(reference(GRID[place], train).score(validation.features, validation.labels))
    )
    assert result.strength == GRID[best_place(figures)]
    assert 1e-3 < result.strength < 1e5, "the best is within the range"
    assert [trial.strength for trial in result.search.trials] == [GRID[place] for place in sorted(figures)]
    found = [trial.figure for trial in result.search.trials]
    np.testing.assert_allclose(found, [figures[place] for place in sorted(figures)], atol=1 / len(validation) + 1e-9)

    expected = reference(result.strength, train, validation)
    assert result.figure == expected.score(test.features, test.labels)
    assert (result.scores.argmax(axis=1) == expected.predict(test.features)).all()
    assert 0.85 < result.figure < 0.99


def test_without_validation_data_a_part_of_the_training_data_is_taken():
    train, _, test = splits()
    result = linear_probe(train, None, test, top, seed=1)
    assert result.search.probe.kernel.shape == (64, 10)
    expected = reference(result.strength, train)  # the last fit is to all of it
    assert result.figure == expected.score(test.features, test.labels)
    assert linear_probe(train, None, test, top, seed=1).search.trials == result.search.trials
    assert linear_probe(train, None, test, top, seed=2).search.trials != result.search.trials


def test_several_labels():
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(16, 3))
    train, validation, test = (several_labels(rng, rows, directions) for rows in (200, 100, 400))
    result = linear_probe(train, validation, test, mean_average_precision)
    assert 1e-6 < result.strength < 1e6
    both = joined(train, validation)
    scores = [
        Reference(C=1 / result.strength, solver="newton-cholesky", tol=1e-10)
        .fit(both.features.astype(np.float64), both.labels[:, label])
        .decision_function(test.features)
        for label in range(3)
    ]
    expected = average_precision_score(test.labels, np.stack(scores, axis=1))
    assert result.figure == pytest.approx(expected, abs=1e-4)


def several_labels(rng: np.random.Generator, rows: int, directions: np.ndarray) -> LabelledFeatures:
    features = rng.normal(size=(rows, len(directions))).astype(np.float32)
    noise = 2 * rng.normal(size=(rows, directions.shape[1]))
    return LabelledFeatures(features, features @ directions + noise > [0, 2, 4], 3)


def test_one_device_gives_the_same():
    """These tests run on eight."""
    code = """
import json, sys, jax
sys.path[:0] = sys.argv[1:]
from test_linear_probe import search_strength, splits, top
train, validation, _ = splits()
search = search_strength(train, validation, top)
print(json.dumps([jax.device_count(), search.best.strength, [trial.figure for trial in search.trials]]))
"""
    flags = os.environ["XLA_FLAGS"].replace("device_count=8", "device_count=1")
    here = Path(__file__).parent
    command = [sys.executable, "-c", code, str(here), str(here.parents[1])]
    done = subprocess.run(command, env=os.environ | {"XLA_FLAGS": flags}, capture_output=True, text=True, check=True)
    train, validation, _ = splits()
    search = search_strength(train, validation, top)
    assert jax.device_count() == 8
    assert json.loads(done.stdout) == [1, search.best.strength, [trial.figure for trial in search.trials]]


def test_splits_that_do_not_go_together_are_refused():
    train, validation, test = splits()
    narrow = LabelledFeatures(test.features[:, :60], test.labels, 10)
    with pytest.raises(UserError, match="widths 64 and 60"):
        linear_probe(train, validation, narrow, top)
    with pytest.raises(UserError, match="not of the same kind and number"):
        linear_probe(train, LabelledFeatures(validation.features, validation.labels, 11), test, top)


def test_a_best_fit_that_did_not_end_is_told(monkeypatch):
    monkeypatch.setattr(clip_jax.evaluation.probes.logistic_solver, "ITERATIONS", 2)
    train, validation, _ = splits()
    with pytest.warns(UserWarning, match=r"the best strength, [\w.-]+, ended after 2 iterations before its minimum"):
        search = search_strength(train.rows(np.arange(399)), validation, top)  # the number is compiled in: a new shape
    assert {trial.converged for trial in search.trials} == {True, False}
