"""Features with labels, which probes are trained and tested on, and how they are divided."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from clip_jax.errors import UserError
from clip_jax.evaluation.metrics import Truth, is_multi_label

VALIDATION_SHARE = 0.2  # of the training examples, where a dataset has no validation split; the paper names none


@dataclass(frozen=True)
class LabelledFeatures:
    """Images' features, and the class of each among `classes`; of several labels an image, which it has (multi-hot).

    Raises UserError where there are none, where features are not finite or labels none of the classes, and where there
    are more of one than of the other.
    """

    features: Float[np.ndarray, "b k"]
    labels: Truth
    classes: int

    def __post_init__(self) -> None:
        if len(self.features) != len(self.labels):
            raise UserError(f"there are {len(self.features)} features, but {len(self.labels)} labels; each needs one")
        if not len(self):
            raise UserError("there are no features; a probe needs some in every split")
        finite = np.isfinite(self.features).all(axis=1)
        if not finite.all():
            raise UserError(f"the features of row {np.argmin(finite)} are not finite; leave out what has no features")
        if is_multi_label(self.labels):
            if self.labels.shape[1] != self.classes:
                raise UserError(f"the labels have {self.labels.shape[1]} columns, but there are {self.classes} classes")
        elif not 0 <= self.labels.min() <= self.labels.max() < self.classes:
            row = np.argmax((self.labels < 0) | (self.labels >= self.classes))
            raise UserError(
                f"label {self.labels[row]} in row {row} is none of the classes, which are 0 to {self.classes - 1}"
            )

    def __len__(self) -> int:
        return len(self.features)

    def rows(self, chosen: Int[np.ndarray, " m"] | Bool[np.ndarray, " b"]) -> "LabelledFeatures":
        """Those rows alone, by number or by mask; the classes stay."""
        return LabelledFeatures(self.features[chosen], self.labels[chosen], self.classes)


def check_alike(one: LabelledFeatures, other: LabelledFeatures) -> None:
    """Raises UserError for splits that cannot be of one dataset and one model."""
    if one.features.shape[1] != other.features.shape[1]:
        raise UserError(
            f"the features of two splits have widths {one.features.shape[1]} and {other.features.shape[1]}; "
            "they must come from one model"
        )
    if one.classes != other.classes or is_multi_label(one.labels) != is_multi_label(other.labels):
        raise UserError("the labels of two splits are not of the same kind and number; they must come from one dataset")


def joined(one: LabelledFeatures, other: LabelledFeatures) -> LabelledFeatures:
    """Both, one after the other. Raises UserError as `check_alike` does."""
    check_alike(one, other)
    features = np.concatenate([one.features, other.features])
    return LabelledFeatures(features, np.concatenate([one.labels, other.labels]), one.classes)


def stratified_split(examples: LabelledFeatures, seed: int) -> tuple[LabelledFeatures, LabelledFeatures]:
    """Training and validation examples, the latter VALIDATION_SHARE of each class, drawn by `seed`.

    A class keeps at least one training example. Of several labels the rarest decides. Raises UserError where no class
    has enough examples to give one away.
    """
    strata = _strata(examples)
    counts = np.unique(strata, return_inverse=True, return_counts=True)
    given = np.minimum(np.rint(VALIDATION_SHARE * counts[2]), counts[2] - 1)
    validation = rank_within_class(strata, seed) < given[counts[1]]
    if not validation.any():
        raise UserError("no class has the three examples that a validation split needs; give validation data")
    return examples.rows(~validation), examples.rows(validation)


def rank_within_class(labels: Int[np.ndarray, " b"], seed: int) -> Int[np.ndarray, " b"]:
    """Each example's place, from 0, in an order of its class drawn by `seed`."""
    order = np.random.default_rng(seed).permutation(len(labels))
    by_class = order[np.argsort(labels[order], kind="stable")]
    _, starts, counts = np.unique(labels[by_class], return_index=True, return_counts=True)
    ranks = np.empty(len(labels), np.int64)
    ranks[by_class] = np.arange(len(labels)) - np.repeat(starts, counts)
    return ranks


def _strata(examples: LabelledFeatures) -> Int[np.ndarray, " b"]:
    labels = examples.labels
    if not is_multi_label(labels):
        return labels
    rarity = np.where(labels, labels.sum(axis=0), len(labels) + 1)
    return np.where(labels.any(axis=1), rarity.argmin(axis=1), examples.classes)
