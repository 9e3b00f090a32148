"""The linear probe against scikit-learn's logistic regression on the same features."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from clip_jax.evaluation.linear_probe import linear_probe


@pytest.mark.parametrize("strength", [0.1, 10.0])
def test_same_accuracy_as_scikit_learn(strength):
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(6, 20))
    truth = rng.integers(0, 6, 500)
    features = (centres[truth] + rng.normal(scale=1.6, size=(500, 20))).astype(np.float32)
    reference = LogisticRegression(C=strength, max_iter=1000, tol=1e-8).fit(features[:300], truth[:300])
    expected = reference.score(features[300:], truth[300:])
    assert 0.5 < expected < 0.95, "neither trivial nor hopeless"
    top1 = linear_probe(features[:300], truth[:300], features[300:], truth[300:], classes=6, strength=strength)
    assert top1 == pytest.approx(expected, abs=1 / 200 + 1e-9)  # at most one sample of 200 differs
