"""How far a figure may be off because other images could have been taken: bootstrap confidence intervals.

Source: Efron 1979, of whose intervals this is the one between percentiles.
"""

import numpy as np
from jaxtyping import Shaped

from clip_jax.evaluation.metrics import METRICS, Metric, Scores, Truth, rank_of_truth

DRAWS, SLOW_DRAWS = 1000, 200  # the latter of figures that sort the images anew in each draw
SHARE = 0.95


def interval(metric: Metric, scores: Scores, truth: Truth, seed: int = 0) -> tuple[float, float]:
    """Between which figures 95 % of those lie that images drawn with replacement give; a pure function of `seed`."""
    rng = np.random.default_rng(seed)
    if metric in ("map_11_point", "roc_auc"):
        figures = [_slow(metric, scores, truth, rng) for _ in range(SLOW_DRAWS)]
    else:
        ranks = rank_of_truth(scores, truth)
        figures = [_quick(metric, ranks, truth, rng.integers(0, len(truth), len(truth))) for _ in range(DRAWS)]
    low, high = np.quantile(figures, [(1 - SHARE) / 2, (1 + SHARE) / 2])
    return float(low), float(high)


def interval_of_ratio(
    parts: Shaped[np.ndarray, " b"], wholes: Shaped[np.ndarray, " b"], seed: int = 0
) -> tuple[float, float]:
    """As `interval`, of the sum of `parts` over that of `wholes`, each image having one of both."""
    rng = np.random.default_rng(seed)
    draws = (rng.integers(0, len(parts), len(parts)) for _ in range(DRAWS))
    ratios = [parts[rows].sum() / wholes[rows].sum() for rows in draws]
    low, high = np.quantile(ratios, [(1 - SHARE) / 2, (1 + SHARE) / 2])
    return float(low), float(high)


def _slow(metric: Metric, scores: Scores, truth: Truth, rng: np.random.Generator) -> float:
    """The figure of one draw, in which every class that had images has some."""
    while True:
        rows = rng.integers(0, len(truth), len(truth))
        if metric == "map_11_point" or len(np.unique(truth[rows])) == 2:
            return METRICS[metric](scores[rows], truth[rows])


def _quick(metric: Metric, ranks: np.ndarray, truth: np.ndarray, rows: np.ndarray) -> float:
    """The figure of one draw of `rows`, from the rank of each image's true class."""
    drawn = ranks[rows]
    if metric == "accuracy":
        return float((drawn < 1).mean())
    if metric == "mean_top1_top5":
        return float(((drawn < 1).mean() + (drawn < 5).mean()) / 2)
    counts = np.bincount(truth[rows])
    right = np.bincount(truth[rows], drawn < 1, len(counts))
    return float((right[counts > 0] / counts[counts > 0]).mean())
