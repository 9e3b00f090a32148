"""Labelled features: what is refused, and how they are divided."""

import numpy as np
import pytest

from clip_jax.errors import UserError
from clip_jax.evaluation.probes.labelled_features import (
    LabelledFeatures,
    check_alike,
    joined,
    rank_within_class,
    stratified_split,
)


def features(rows: int, width: int = 3) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(rows, width)).astype(np.float32)


@pytest.mark.usefixtures("untyped")
def test_what_no_probe_can_use_is_refused():
    with pytest.raises(UserError, match="there are 4 features, but 3 labels"):
        LabelledFeatures(features(4), np.array([0, 1, 0]), 2)
    with pytest.raises(UserError, match="there are no features"):
        LabelledFeatures(features(0), np.array([], int), 2)
    with pytest.raises(UserError, match="label 2 in row 1 is none of the classes, which are 0 to 1"):
        LabelledFeatures(features(3), np.array([0, 2, -1]), 2)
    with pytest.raises(UserError, match="label -1 in row 2"):
        LabelledFeatures(features(3), np.array([0, 1, -1]), 2)
    with pytest.raises(UserError, match="3 columns, but there are 2 classes"):
        LabelledFeatures(features(3), np.zeros((3, 3), bool), 2)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_features_that_are_not_finite_are_refused_with_their_row(bad):
    some = features(5)
    some[3, 1] = bad
    with pytest.raises(UserError, match="the features of row 3 are not finite"):
        LabelledFeatures(some, np.array([0, 1, 0, 1, 0]), 2)


def test_splits_of_different_models_or_datasets_are_refused():
    one = LabelledFeatures(features(2), np.array([0, 1]), 2)
    with pytest.raises(UserError, match="widths 3 and 4"):
        check_alike(one, LabelledFeatures(features(2, 4), np.array([0, 1]), 2))
    with pytest.raises(UserError, match="not of the same kind and number"):
        check_alike(one, LabelledFeatures(features(2), np.array([0, 1]), 3))
    with pytest.raises(UserError, match="not of the same kind and number"):
        joined(one, LabelledFeatures(features(2), np.eye(2, dtype=bool), 2))


def test_a_fifth_of_each_class_validates_and_nothing_is_lost():
    labels = np.repeat([0, 1, 2, 3], [50, 10, 3, 1])
    examples = LabelledFeatures(np.arange(64, dtype=np.float32)[:, None], labels, 5)
    train, validation = stratified_split(examples, seed=0)
    assert np.bincount(validation.labels, minlength=5).tolist() == [10, 2, 1, 0, 0]
    assert np.bincount(train.labels, minlength=5).tolist() == [40, 8, 2, 1, 0]
    both = np.concatenate([train.features, validation.features])[:, 0]
    assert sorted(both.tolist()) == list(range(64))
    assert (labels[validation.features[:, 0].astype(int)] == validation.labels).all()
    again, other = (stratified_split(examples, seed)[1].features for seed in (0, 1))
    assert np.array_equal(again, validation.features)
    assert not np.array_equal(other, validation.features)


def test_every_label_of_images_with_several_is_in_both_splits():
    labels = np.random.default_rng(0).random((400, 6)) < [0.6, 0.5, 0.3, 0.1, 0.05, 0.03]
    assert not labels.any(axis=1).all()  # some have none
    train, validation = stratified_split(LabelledFeatures(features(400), labels, 6), seed=0)
    assert train.labels.any(axis=0).all()
    assert validation.labels.any(axis=0).all()
    assert 76 <= len(validation) <= 84


def test_too_few_to_split():
    with pytest.raises(UserError, match="no class has the three examples"):
        stratified_split(LabelledFeatures(features(4), np.array([0, 0, 1, 1]), 2), seed=0)


def test_ranks_are_an_order_of_each_class():
    labels = np.random.default_rng(3).integers(0, 7, 200)
    ranks = rank_within_class(labels, seed=5)
    for label in range(7):
        own = ranks[labels == label]
        assert sorted(own.tolist()) == list(range(len(own)))
        assert own.tolist() != sorted(own.tolist())
    assert np.array_equal(ranks, rank_within_class(labels, seed=5))
    assert not np.array_equal(ranks, rank_within_class(labels, seed=6))
