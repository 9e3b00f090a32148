"""The figures of classification: from scores [b, c] and the truth to one number, higher being better.

`truth` is the class of each image, [b], or where images have several labels, whether they have each, a bool [b, c].
Source: section 3.1 and appendix A of the paper for which dataset has which; scikit-learn for their definitions.
"""

from collections.abc import Callable
from typing import Literal, TypeAlias

import numpy as np
from jaxtyping import Bool, Float32, Int

from clip_jax.errors import UserError

Scores: TypeAlias = Float32[np.ndarray, "b c"]
Classes: TypeAlias = Int[np.ndarray, " b"]
Truth: TypeAlias = Int[np.ndarray, " b"] | Bool[np.ndarray, "b c"]
Metric: TypeAlias = Literal["accuracy", "mean_per_class", "map_11_point", "roc_auc", "mean_top1_top5"]


def is_multi_label(truth: Truth) -> bool:
    """Whether images have several labels."""
    return truth.ndim == 2


def rank_of_truth(scores: Scores, truth: Classes) -> Int[np.ndarray, " b"]:
    """How many classes score above the true one, 0 where it is the answer.

    Of equal scores the class that comes first counts as the higher.
    """
    rows = np.arange(len(truth))
    own = scores[rows, truth][:, None]
    before = np.arange(scores.shape[1])[None] < truth[:, None]
    return np.count_nonzero((scores > own) | ((scores == own) & before), axis=1)


def top(scores: Scores, truth: Classes, k: int = 1) -> float:
    """The share of images whose true class is among the `k` that score highest."""
    return float((rank_of_truth(scores, truth) < k).mean())


def mean_per_class(scores: Scores, truth: Classes) -> float:
    """The mean over the classes that have images of the share of these that are answered right."""
    right = rank_of_truth(scores, truth) == 0
    counts = np.bincount(truth, minlength=scores.shape[1])
    return float((np.bincount(truth, right, scores.shape[1])[counts > 0] / counts[counts > 0]).mean())


def mean_top1_top5(scores: Scores, truth: Classes) -> float:
    """The mean of top-1 and top-5, as Kinetics700 has it."""
    ranks = rank_of_truth(scores, truth)
    return float(((ranks < 1).mean() + (ranks < 5).mean()) / 2)


def average_precision(scores: Float32[np.ndarray, " b"], truth: Bool[np.ndarray, " b"]) -> float:
    """The mean of the precision at each image that has the label, images of equal score taken together."""
    precision, recall = _precision_and_recall(scores, truth)
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


def average_precision_11_point(scores: Float32[np.ndarray, " b"], truth: Bool[np.ndarray, " b"]) -> float:
    """The mean over the recalls 0, 0.1, ..., 1 of the best precision at that recall or above, as VOC2007 has it."""
    precision, recall = _precision_and_recall(scores, truth)
    # Recalls are fractions of whole numbers: at least a tenth of them, not of their rounded quotient.
    found = np.round(recall * truth.sum()).astype(np.int64)
    wanted = [10 * found >= tenth * int(truth.sum()) for tenth in range(11)]
    return float(np.mean([precision[enough].max(initial=0.0) for enough in wanted]))


def mean_average_precision(scores: Scores, truth: Bool[np.ndarray, "b c"]) -> float:
    """The mean of the average precision over the labels that an image has."""
    return _over_labels(average_precision, scores, truth)


def map_11_point(scores: Scores, truth: Bool[np.ndarray, "b c"]) -> float:
    """The mean of the 11-point average precision over the labels that an image has."""
    return _over_labels(average_precision_11_point, scores, truth)


def roc_auc(scores: Scores, truth: Classes) -> float:
    """Of two classes: the share of pairs, one image of each, in which that of class 1 leans more to it; ties are half.

    Raises UserError where there are not two classes with images.
    """
    if scores.shape[1] != 2 or len(np.unique(truth)) != 2:
        raise UserError(f"ROC AUC is of two classes, both with images; there are {scores.shape[1]} classes")
    leaning = scores[:, 1] - scores[:, 0]
    values, place = np.unique(leaning, return_inverse=True)
    negatives, positives = (np.bincount(place[truth == c], minlength=len(values)) for c in (0, 1))
    below = np.cumsum(negatives) - negatives
    return float((positives * (below + negatives / 2)).sum() / (positives.sum() * negatives.sum()))


def calibration_error(confidence: Float32[np.ndarray, " b"], right: Bool[np.ndarray, " b"], bins: int = 15) -> float:
    """Expected calibration error: how far the share of right answers lies from the confidence, over equal bins of it.

    Source: Guo et al. 2017, arXiv 1706.04599.
    """
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    gaps = np.bincount(place, right.astype(np.float64) - confidence, bins)
    return float(np.abs(gaps).sum() / len(right))


METRICS: dict[Metric, Callable[[Scores, Truth], float]] = {
    "accuracy": top,
    "mean_per_class": mean_per_class,
    "map_11_point": map_11_point,
    "roc_auc": roc_auc,
    "mean_top1_top5": mean_top1_top5,
}
"""The main figure of a dataset by its name."""


def chance(metric: str, classes: int) -> float | None:
    """What guessing reaches; None for mAP, where it depends on how frequent the labels are."""
    if metric in ("map_11_point", "mean_average_precision"):
        return None
    if metric == "roc_auc":
        return 0.5
    return (1 + min(5, classes)) / 2 / classes if metric == "mean_top1_top5" else 1 / classes


def _precision_and_recall(
    scores: Float32[np.ndarray, " b"], truth: Bool[np.ndarray, " b"]
) -> tuple[np.ndarray, np.ndarray]:
    """Both, where everything that scores at least as high as an image is taken for right, from the highest down."""
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.diff(scores[order], append=np.nan))  # the last of each run of equal scores
    found = np.cumsum(truth[order])[ends]
    return found / (ends + 1), found / max(int(truth.sum()), 1)


def _over_labels(figure: Callable[..., float], scores: Scores, truth: Bool[np.ndarray, "b c"]) -> float:
    present = np.flatnonzero(truth.any(axis=0))
    if not len(present):
        raise UserError("no image has any label; average precision needs one at least")
    return float(np.mean([figure(scores[:, label], truth[:, label]) for label in present]))
