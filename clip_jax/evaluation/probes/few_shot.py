"""Few-shot probes: logistic regression on a few examples of each class.

Source: section 3.1.5 and figures 6 and 7 of the paper.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from clip_jax.errors import UserError
from clip_jax.evaluation.metrics import is_multi_label
from clip_jax.evaluation.probes.labelled_features import LabelledFeatures, check_alike, rank_within_class
from clip_jax.evaluation.probes.linear_probe import Figure
from clip_jax.evaluation.probes.logistic_regression import LogisticRegression
from clip_jax.evaluation.probes.principal_axes import principal_axes

SHOTS = (1, 2, 4, 8, 16)
SEEDS = (0, 1, 2, 3, 4)
STRENGTH = 10**0.5  # that of OpenAI's example, C = 0.316: a few examples leave nothing to search it on


@dataclass(frozen=True)
class FewShotResult:
    """The figure on the test data for each number of shots and each seed.

    `short_classes` are how many classes have fewer training examples than shots, and gave all of them.
    """

    shots: tuple[int, ...]
    seeds: tuple[int, ...]
    figures: Float64[np.ndarray, "shots seeds"]
    short_classes: tuple[int, ...]

    @property
    def mean(self) -> Float64[np.ndarray, " shots"]:
        """The mean over the draws, for each number of shots."""
        return self.figures.mean(axis=1)

    @property
    def standard_error(self) -> Float64[np.ndarray, " shots"]:
        """Of the mean, over the seeds; NaN where there is one seed only."""
        if len(self.seeds) < 2:
            return np.full(len(self.shots), np.nan)
        return self.figures.std(axis=1, ddof=1) / np.sqrt(len(self.seeds))


def few_shot(
    train: LabelledFeatures,
    test: LabelledFeatures,
    metric: Figure,
    shots: Sequence[int] = SHOTS,
    seeds: Sequence[int] = SEEDS,
    strength: float = STRENGTH,
) -> FewShotResult:
    """Fits a probe to `shots` examples of each class, drawn from `train` by a seed, and evaluates it on `test`.

    One seed's examples are in order: those of fewer shots are the first of those of more. `metric` takes scores [b, c]
    and the truth to a figure, higher being better. Raises UserError for a class without training examples, and for
    images with several labels.
    """
    _check(train, test, shots, seeds)
    counts = np.bincount(train.labels)
    axes = principal_axes(train.features)
    figures = np.empty((len(shots), len(seeds)))
    unfinished = 0
    for column, seed in enumerate(seeds):
        ranks = rank_within_class(train.labels, seed)
        drawn = ranks < max(shots)
        for row, count in enumerate(shots):
            probe = LogisticRegression(train.rows(drawn), axes, ranks[drawn] < count).fit(strength)
            figures[row, column] = metric(probe.scores(test.features), test.labels)
            unfinished += not probe.converged
    if unfinished:
        warnings.warn(
            f"of {figures.size} few-shot fits {unfinished} ended before their minimum; a strength above {strength:g} "
            "would help",
            stacklevel=2,
        )
    short = tuple(int((counts < count).sum()) for count in shots)
    return FewShotResult(tuple(shots), tuple(seeds), figures, short)


def _check(train: LabelledFeatures, test: LabelledFeatures, shots: Sequence[int], seeds: Sequence[int]) -> None:
    check_alike(train, test)
    if is_multi_label(train.labels):
        raise UserError("few-shot draws examples of each class; these images have several labels")
    if not shots or min(shots) < 1 or not seeds:
        raise UserError("few-shot needs numbers of shots of at least 1, and at least one seed")
    empty = np.flatnonzero(np.bincount(train.labels, minlength=train.classes) == 0)
    if len(empty):
        raise UserError(f"class {empty[0]} has no training examples; few-shot needs some of each class")
