"""Seconds of a linear probe with the paper's search for its strength, here and with scikit-learn, side by side.

    python experiments/benchmarks/linear_probe.py [--features 20000] [--width 512] [--classes 100] [--json FILE]

Both sides search on the same validation data, fit again to it and the training data together, and are evaluated on the
same test data; scikit-learn runs as in the paper, with its default tolerance and 1,000 iterations at most, once in
float32 and once in float64. That tolerance ends its fits short of their minimum, so its last fit is also run to a tight
one, for its accuracy alone. The features are drawn on the spot: classes overlap, a few labels are wrong, the variances
along the principal axes fall as 1 / rank, and the mean is not zero, all as in a CLIP model's. Compilation is counted.
"""

import argparse
import json
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression

from clip_jax.evaluation.metrics import top
from clip_jax.evaluation.probes.labelled_features import LabelledFeatures, joined
from clip_jax.evaluation.probes.linear_probe import GRID, best_place, linear_probe, search_grid

MEAN_SIZE = 0.4  # of a value of a feature, as before ViT-B/32's projection
WRONG_LABELS = 0.05
Row = dict[str, float]
Side = Callable[[LabelledFeatures, LabelledFeatures, LabelledFeatures], Row]


def draw(count: int, width: int, classes: int, spread: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Features [count, width] and labels; the classes' centres are `spread` as far apart as examples of one class."""
    rng = np.random.default_rng(seed)
    sizes = np.sqrt(1 / np.arange(1, width + 1))
    sizes /= np.sqrt(np.square(sizes).mean())
    rotation = np.linalg.qr(rng.normal(size=(width, width)))[0]
    labels = rng.integers(0, classes, count)
    centres = spread * rng.normal(size=(classes, width)) * sizes
    features = (centres[labels] + rng.normal(size=(count, width)) * sizes) @ rotation + rng.normal(size=width)
    wrong = rng.random(count) < WRONG_LABELS
    labels[wrong] = rng.integers(0, classes, wrong.sum())
    return (MEAN_SIZE * features).astype(np.float32), labels


def ours(train: LabelledFeatures, validation: LabelledFeatures, test: LabelledFeatures) -> Row:
    result = linear_probe(train, validation, test, top)
    return {"strength": result.strength, "validation": result.search.best.figure, "test": result.figure}


def scikit_learn(dtype: type) -> Side:
    def run(train: LabelledFeatures, validation: LabelledFeatures, test: LabelledFeatures) -> Row:
        train, validation, test = (
            replace(split, features=split.features.astype(dtype)) for split in (train, validation, test)
        )

        def figure_at(place: int) -> float:
            return score(fit(GRID[place], train), validation)

        figures = search_grid(figure_at)
        best = best_place(figures)
        last = fit(GRID[best], joined(train, validation))
        return {"strength": GRID[best], "validation": figures[best], "test": score(last, test)}

    return run


def fit(
    strength: float, examples: LabelledFeatures, tolerance: float = 1e-4, iterations: int = 1000
) -> LogisticRegression:
    model = LogisticRegression(C=1 / strength, tol=tolerance, max_iter=iterations)
    return model.fit(examples.features, examples.labels)


def score(model: LogisticRegression, examples: LabelledFeatures) -> float:
    return float(model.score(examples.features, examples.labels))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--features", type=int, default=20_000, help="to train on; a quarter more validate")
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--spread", type=float, default=0.2, help="of the classes: more is easier")
    parser.add_argument("--json", type=Path, help="where to write the results")
    arguments = parser.parse_args()

    warnings.simplefilter("ignore")  # scikit-learn's of fits that end at 1,000 iterations
    sizes = [arguments.features, arguments.features // 4, arguments.features // 2]
    features, labels = draw(sum(sizes), arguments.width, arguments.classes, arguments.spread, seed=0)
    bounds = np.cumsum(sizes)[:-1]
    splits = [
        LabelledFeatures(some, of, arguments.classes)
        for some, of in zip(np.split(features, bounds), np.split(labels, bounds), strict=True)
    ]
    train, validation, test = splits
    results: dict[str, Row] = {}
    print(f"{'':22}{'seconds':>9}{'lambda':>11}{'validation':>12}{'test':>8}{'ratio':>7}")
    sides: dict[str, Side] = {"clip_jax": ours, "scikit-learn float32": scikit_learn(np.float32)}
    sides |= {"scikit-learn float64": scikit_learn(np.float64)}
    for name, run in sides.items():
        start = time.perf_counter()
        row = run(train, validation, test)
        results[name] = row = {"seconds": time.perf_counter() - start} | row
        ratio = row["seconds"] / results["clip_jax"]["seconds"]
        print(
            f"{name:22}{row['seconds']:9.1f}{row['strength']:11.4g}{row['validation']:12.2%}{row['test']:8.2%}"
            f"{ratio:7.2f}",
            flush=True,
        )
    both = joined(train, validation)
    both = replace(both, features=both.features.astype(np.float64))
    tight = score(fit(results["clip_jax"]["strength"], both, tolerance=1e-8, iterations=10_000), test)
    results["clip_jax"]["scikit-learn's test at the minimum"] = tight
    print(f"scikit-learn's last fit with clip_jax's lambda, run to its minimum: {tight:.2%}")
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
