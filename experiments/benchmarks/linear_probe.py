"""Seconds of a linear probe with the paper's search for its strength, here and with scikit-learn, side by side.

    python experiments/benchmarks/linear_probe.py [--features 20000] [--width 512] [--classes 100] [--json FILE]

Both sides search on the same validation data, fit again to it and the training data together, and are evaluated on the
same test data; scikit-learn runs as in the paper, in float32, with its default tolerance and 1,000 iterations at most.
That tolerance ends its fits short of their minimum, so what the fits should find is scikit-learn's in float64 to a
tight one, with clip_jax's strength: of each last fit the objective and the norm of its gradient are told in float64,
with the share of the test answers that are other than at the minimum. The features are drawn on the spot: classes
overlap, a few labels are wrong, the variances along the principal axes fall as 1 / rank, and the mean is not zero, all
as in a CLIP model's. Compilation is counted.
"""

import argparse
import json
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import logsumexp
from sklearn.linear_model import LogisticRegression

from clip_jax.evaluation.metrics import top
from clip_jax.evaluation.probes.labelled_features import LabelledFeatures, joined
from clip_jax.evaluation.probes.linear_probe import GRID, best_place, linear_probe, search_grid

MEAN_SIZE = 0.4  # of a value of a feature, as before ViT-B/32's projection
WRONG_LABELS = 0.05


@dataclass(frozen=True)
class Fit:
    """Weights in float64, and the iterations that they took."""

    kernel: np.ndarray
    bias: np.ndarray
    iterations: int

    def answers(self, examples: LabelledFeatures) -> np.ndarray:
        return (examples.features @ self.kernel + self.bias).argmax(axis=1)

    def score(self, examples: LabelledFeatures) -> float:
        return float((self.answers(examples) == examples.labels).mean())


@dataclass(frozen=True)
class Found:
    """What a search found, and the last fit with that strength."""

    strength: float
    validation: float
    last: Fit


Side = Callable[[LabelledFeatures, LabelledFeatures, LabelledFeatures], Found]


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


def ours(train: LabelledFeatures, validation: LabelledFeatures, test: LabelledFeatures) -> Found:
    result = linear_probe(train, validation, test, top)
    last = Fit(result.probe.kernel.astype(np.float64), result.probe.bias.astype(np.float64), result.probe.iterations)
    return Found(result.strength, result.search.best.figure, last)


def theirs(train: LabelledFeatures, validation: LabelledFeatures, test: LabelledFeatures) -> Found:
    def figure_at(place: int) -> float:
        return scikit_learn(GRID[place], train).score(validation)

    figures = search_grid(figure_at)
    best = best_place(figures)
    last = scikit_learn(GRID[best], joined(train, validation))
    last.score(test)
    return Found(GRID[best], figures[best], last)


def scikit_learn(strength: float, examples: LabelledFeatures, **stopping: Any) -> Fit:
    model = LogisticRegression(C=1 / strength, **{"tol": 1e-4, "max_iter": 1000} | stopping)
    model.fit(examples.features, examples.labels)
    return Fit(
        np.asarray(model.coef_, np.float64).T, np.asarray(model.intercept_, np.float64), int(model.n_iter_.max())
    )


def minimum(strength: float, examples: LabelledFeatures) -> Fit:
    exact = replace(examples, features=examples.features.astype(np.float64))
    return scikit_learn(strength, exact, tol=1e-8, max_iter=20_000)


def objective(fit: Fit, strength: float, examples: LabelledFeatures) -> tuple[float, float]:
    """The mean objective of scikit-learn's documentation, and the norm of its gradient."""
    features, rows = examples.features.astype(np.float64), np.arange(len(examples))
    logits = features @ fit.kernel + fit.bias
    total = np.asarray(logsumexp(logits, axis=1))
    value = (total - logits[rows, examples.labels]).sum() + strength / 2 * np.square(fit.kernel).sum()
    errors = np.exp(logits - total[:, None])
    errors[rows, examples.labels] -= 1
    gradient = np.concatenate([features.T @ errors + strength * fit.kernel, errors.sum(axis=0)[None]])
    return float(value / len(rows)), float(np.linalg.norm(gradient) / len(rows))


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
    results: dict[str, dict[str, float]] = {}
    found: dict[str, Found] = {}
    print(f"{'':22}{'seconds':>9}{'lambda':>11}{'validation':>12}{'test':>8}{'ratio':>7}")
    for name, run in {"scikit-learn float32": theirs, "clip_jax": ours}.items():
        start = time.perf_counter()
        found[name] = one = run(train, validation, test)
        seconds = time.perf_counter() - start
        results[name] = row = {"seconds": seconds, "strength": one.strength, "validation": one.validation}
        row |= {"test": one.last.score(test), "ratio": results["scikit-learn float32"]["seconds"] / seconds}
        print(
            f"{name:22}{seconds:9.1f}{one.strength:11.4g}{one.validation:12.2%}{row['test']:8.2%}{row['ratio']:7.2f}",
            flush=True,
        )
    strength, both = found["clip_jax"].strength, joined(train, validation)
    exact = Found(strength, minimum(strength, train).score(validation), minimum(strength, both))
    print(
        f"\n{'last fit':22}{'iterations':>11}{'objective':>14}{'gradient':>10}{'validation':>12}{'test':>8}{'other':>8}"
    )
    for name, one in (found | {"scikit-learn float64": exact}).items():
        value, gradient = objective(one.last, one.strength, both)
        other = float((one.last.answers(test) != exact.last.answers(test)).mean())
        row = {"iterations": one.last.iterations, "objective": value, "gradient": gradient}
        row |= {"validation": one.validation, "test": one.last.score(test), "other answers": other}
        results[name] = results.get(name, {}) | row
        print(
            f"{name:22}{one.last.iterations:11}{value:14.9f}{gradient:10.1e}{one.validation:12.2%}"
            f"{row['test']:8.2%}{other:8.2%}"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
