"""Zero-shot classification: class names in words are the classifier.

Source: section 3.1 of the paper; prompts are ensembled in embedding space (3.1.4).
"""

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, Int

from clip_jax.clip import Clip
from clip_jax.data.table import BadSample, Table
from clip_jax.errors import UserError
from clip_jax.evaluation import metrics
from clip_jax.evaluation.bootstrap import interval
from clip_jax.evaluation.features import NO_LABEL, Features, embed_classes, embed_table
from clip_jax.evaluation.metrics import METRICS, Metric
from clip_jax.inputs.prompts import check_labels
from clip_jax.processes import is_first

ROWS_AT_ONCE = 4096
NO_CLASS = -1


@dataclass(frozen=True)
class ZeroShotResult:
    """What a model answered: of each image its true class, or whether it has each, and its score with every class.

    Scores are cosine similarities, and what `logit_scale` and `logit_bias` make of them the model's logits, which are
    each class's own where it is a sigmoid model. `bad` are images that could not be asked about, and that no figure
    counts.
    """

    class_names: tuple[str, ...]
    truth: Int[np.ndarray, " b"] | Bool[np.ndarray, "b c"]
    scores: Float32[np.ndarray, "b c"]
    logit_scale: float = 100.0
    logit_bias: float = 0.0
    is_sigmoid: bool = False
    bad: tuple[BadSample, ...] = ()

    def __len__(self) -> int:
        return len(self.truth)

    @cached_property
    def ranking(self) -> Int[np.ndarray, "b top"]:
        """The classes of each image from the most likely on, five at most; of equal ones the first comes first."""
        wanted = min(5, self.scores.shape[1])
        rows = [_best(self.scores[start : start + ROWS_AT_ONCE], wanted) for start in range(0, len(self), ROWS_AT_ONCE)]
        return np.concatenate(rows)

    @cached_property
    def confidence(self) -> Float32[np.ndarray, " b"]:
        """The probability of each image's answer: among the classes or, of a sigmoid model, its own."""
        parts = [self.scores[start : start + ROWS_AT_ONCE] for start in range(0, len(self), ROWS_AT_ONCE)]
        return np.concatenate([self._confidence(part) for part in parts])

    def _confidence(self, scores: Float32[np.ndarray, "b c"]) -> Float32[np.ndarray, " b"]:
        best = scores.max(axis=1)
        if self.is_sigmoid:
            return np.float32(1) / (1 + np.exp(-(self.logit_scale * best + self.logit_bias)))
        return 1 / np.exp(self.logit_scale * (scores - best[:, None])).sum(axis=1)

    def top(self, k: int) -> float:
        """The share of images whose true class is among the k most likely; where they have several, any of them."""
        if metrics.is_multi_label(self.truth):
            return float(np.take_along_axis(self.truth, self.ranking[:, :k], axis=1).any(axis=1).mean())
        return float((self.ranking[:, :k] == self.truth[:, None]).any(axis=1).mean())

    @property
    def chance(self) -> float:
        """The top-1 that guessing reaches."""
        if metrics.is_multi_label(self.truth):
            return float(self.truth.mean())
        return 1 / len(self.class_names)

    def per_class(self) -> dict[str, float]:
        """Of each class that has images the top-1 or, where images have several, the average precision."""
        if metrics.is_multi_label(self.truth):
            return {
                self.class_names[c]: metrics.average_precision(self.scores[:, c], self.truth[:, c])
                for c in np.flatnonzero(self.truth.any(axis=0))
            }
        correct = self.ranking[:, 0] == self.truth
        present = np.unique(self.truth)
        return {self.class_names[c]: float(correct[self.truth == c].mean()) for c in present}

    @property
    def mean_per_class(self) -> float:
        """The mean of the classes' top-1, whatever their sizes."""
        return metrics.mean_per_class(self.scores, self.truth)

    def figure(self, metric: Metric) -> float:
        """The main figure of a dataset whose metric that is. Raises UserError where it does not fit the labels."""
        if metrics.is_multi_label(self.truth) != (metric == "map_11_point"):
            labels = "several labels" if metrics.is_multi_label(self.truth) else "one label"
            raise UserError(f"{metric} does not fit images with {labels}")
        return METRICS[metric](self.scores, self.truth)

    def interval(self, metric: Metric, seed: int = 0) -> tuple[float, float]:
        """Where 95 % of the figures of resampled images lie."""
        return interval(metric, self.scores, self.truth, seed)

    def metrics(self) -> dict[str, float]:
        """The figures by name.

        Of one label an image: top1, mean_per_class, calibration_error, top5 where there are more than five classes,
        roc_auc where there are two. Of several: mean_average_precision, map_11_point, and top1, for which any will do.
        """
        if metrics.is_multi_label(self.truth):
            return {
                "mean_average_precision": metrics.mean_average_precision(self.scores, self.truth),
                "map_11_point": metrics.map_11_point(self.scores, self.truth),
                "top1": self.top(1),
            }
        right = self.ranking[:, 0] == self.truth
        figures = {"top1": float(right.mean()), "mean_per_class": self.mean_per_class}
        if len(self.class_names) > 5:
            figures["top5"] = self.top(5)
        if len(self.class_names) == 2 and len(np.unique(self.truth)) == 2:
            figures["roc_auc"] = metrics.roc_auc(self.scores, self.truth)
        return figures | {"calibration_error": metrics.calibration_error(self.confidence, right)}


def zero_shot(
    clip: Clip,
    table: Table,
    labels: Sequence[str] = (),
    templates: str | Sequence[str] | None = None,
    batch_size: int = 64,
    cache: Path | None = None,
    spec: str = "",
) -> ZeroShotResult:
    """Classifies every image of a labelled table among `labels`, by default the table's own class names.

    `labels` may name further classes, in any order, but must hold every class of the table. Raises UserError where
    it does not, and as `embed_table` does, whose `cache` and `spec` are.
    """
    match_labels(table.class_names, labels)  # before the long work
    return classify_features(clip, embed_table(clip, table, batch_size, cache, spec), labels, templates, cache)


def classify_features(
    clip: Clip,
    features: Features,
    labels: Sequence[str] = (),
    templates: str | Sequence[str] | None = None,
    cache: Path | None = None,
) -> ZeroShotResult:
    """As `zero_shot`, for a table that is embedded already: one embedding serves many choices of labels and prompts."""
    names, class_of = match_labels(features.class_names, labels)
    return score(clip, features, embed_classes(clip, names, templates, cache), names, class_of)


def score(
    clip: Clip,
    features: Features,
    classifier: Float32[np.ndarray, "c k"],
    names: Sequence[str],
    class_of: Int[np.ndarray, " labels"],
) -> ZeroShotResult:
    """The result of features against a classifier's normalised class embeddings.

    `class_of` has the class of each label of the table, or NO_CLASS. Images without a label or class are put to the bad
    ones. Raises UserError where a label is out of range, or no image has one.
    """
    used, bad = _usable(features, class_of)
    if features.several is None:
        truth = class_of[features.labels[used]]
    else:
        truth = np.zeros((len(features), len(names)), bool)
        known = np.flatnonzero(class_of[: features.several.shape[1]] != NO_CLASS)
        truth[:, class_of[known]] = features.several[:, known]
    return ZeroShotResult(
        _distinct(names),
        truth,
        features.embeddings[used] @ classifier.T,
        float(clip.logit_scale),
        float(clip.logit_bias),
        clip.config.is_sigmoid,
        (*features.bad, *bad),
    )


def _usable(features: Features, class_of: Int[np.ndarray, " labels"]) -> tuple[Bool[np.ndarray, " b"], list[BadSample]]:
    """Which images have a label that has a class, and the others as bad samples. Raises UserError where none has."""
    most = int(features.labels.max()) if features.several is None else features.several.shape[1] - 1
    if most >= len(class_of):
        raise UserError(f"the data has a label {most}, but only the classes 0 to {len(class_of) - 1} are named")
    if features.several is not None:
        return np.ones(len(features), bool), []
    if most == NO_LABEL:
        raise UserError(NO_LABELS)
    classes = np.where(features.labels == NO_LABEL, NO_CLASS, class_of[features.labels])
    bad = [
        BadSample(
            features.keys[i],
            "bad label",
            "it has no label, and classification needs one for every image"
            if features.labels[i] == NO_LABEL
            else f"its label {features.labels[i]} is none of the classes",
        )
        for i in np.flatnonzero(classes == NO_CLASS)
    ]
    if bad and is_first():
        told = f"of {len(features):,} images {len(bad):,} cannot be used, the first is {bad[0].key}: {bad[0].reason}"
        warnings.warn(f"{told}; they are left out of the evaluation", stacklevel=4)
    return classes != NO_CLASS, bad


NO_LABELS = "this data has no labels; a folder per class has, and tars with .cls and classnames.txt"


def match_labels(class_names: Sequence[str], labels: Sequence[str] = ()) -> tuple[list[str], Int[np.ndarray, " c"]]:
    """The labels to choose from, and for each class of the data its place among them. Raises UserError.

    Without `labels` the data's own names are taken in their order, of which two may be the same, as in ImageNet.
    """
    if not class_names:
        raise UserError(NO_LABELS)
    if not labels:
        return list(class_names), np.arange(len(class_names))
    names = check_labels(labels)
    place = {label: index for index, label in enumerate(names)}
    missing = [name for name in class_names if name not in place]
    if missing:
        raise UserError(f"the labels lack '{missing[0]}', a class of the data; add it ({len(missing)} are missing)")
    return names, np.array([place[name] for name in class_names])


def _distinct(names: Sequence[str]) -> tuple[str, ...]:
    """The names, those that several classes have with the class's number behind, as ImageNet's two missiles."""
    times = Counter(names)
    return tuple(name if times[name] == 1 else f"{name} (class {number})" for number, name in enumerate(names))


def _best(scores: Float32[np.ndarray, "b c"], wanted: int) -> Int[np.ndarray, "b top"]:
    """The classes of the highest scores, highest first."""
    if scores.shape[1] > 4 * wanted:  # sorting all would take far longer
        least = -np.partition(-scores, wanted - 1, axis=1)[:, wanted - 1]
        candidates = scores >= least[:, None]
        if (candidates.sum(axis=1) == wanted).all():  # nobody ties with the last
            found = np.nonzero(candidates)[1].reshape(-1, wanted)
            order = np.argsort(-np.take_along_axis(scores, found, axis=1), axis=1, kind="stable")
            return np.take_along_axis(found, order, axis=1)
    return np.argsort(-scores, axis=1, kind="stable")[:, :wanted]
