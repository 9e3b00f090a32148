"""Probes as records: an embedded training set and test set in, what is to be printed, kept and shown out.

Probes are fitted to what the image tower has before its last projection. Source: appendix A.3 of the paper.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from clip_jax.data.table import BadSample
from clip_jax.errors import UserError
from clip_jax.evaluation.bootstrap import interval
from clip_jax.evaluation.features import NO_LABEL, Features
from clip_jax.evaluation.metrics import METRICS, Metric, chance
from clip_jax.evaluation.probes.few_shot import few_shot
from clip_jax.evaluation.probes.labelled_features import LabelledFeatures
from clip_jax.evaluation.probes.linear_probe import linear_probe
from clip_jax.evaluation.probes.ridge import ridge
from clip_jax.evaluation.question import Question
from clip_jax.evaluation.record import Record, shown_bad
from clip_jax.evaluation.tasks import Subject
from clip_jax.evaluation.zero_shot import NO_LABELS


def linear_probe_record(
    subject: Subject,
    question: Question,
    train: Features,
    validation: Features | None,
    test: Features,
    seed: int = 0,
    zero_shot: bool = True,
) -> Record:
    """A linear probe with its strength searched for on `validation`, or on a share of `train` drawn by `seed`.

    `question` is that of the test data, and zero-shot classification by it is told beside. Raises UserError where the
    splits name other classes.
    """
    metric = question.metric_of(test)
    parts = [labelled(part, test.class_names) for part in (train, test)]
    held = None if validation is None else labelled(validation, test.class_names)
    found = linear_probe(parts[0], held, parts[1], METRICS[metric], seed)
    details = {
        "search": [[trial.strength, trial.figure] for trial in found.search.trials],
        "strength": found.strength,
        "train_images": found.fitted_to - found.chosen_on,
        "validation_images": found.chosen_on,
        "zero_shot": _zero_shot(subject, question, test, metric) if zero_shot else None,
    }
    splits = {"train": train, "test": test} | ({} if validation is None else {"validation": validation})
    made = _record(subject, "linear-probe", metric, {metric: found.figure}, splits, len(parts[1]), details)
    return replace(made, interval=interval(metric, found.scores, parts[1].labels))


def few_shot_record(
    subject: Subject,
    question: Question,
    train: Features,
    test: Features,
    shots: tuple[int, ...],
    seeds: tuple[int, ...],
    zero_shot: bool = True,
) -> Record:
    """Probes of a few images of each class; the main figure is the mean at the most shots. Raises as above."""
    metric = question.metric_of(test)
    own = labelled(test, test.class_names)
    examples = labelled(train, test.class_names)
    _check_every_class(examples, test.class_names)
    found = few_shot(examples, own, METRICS[metric], shots, seeds)
    figures = {metric: float(found.mean[-1])}
    figures |= {f"shots_{count}": float(mean) for count, mean in zip(shots, found.mean, strict=True)}
    error = [None if np.isnan(one) else float(one) for one in found.standard_error]
    details = {
        "shots": list(shots),
        "mean": found.mean.tolist(),
        "error": error,
        "seeds": len(seeds),
        "short_classes": list(found.short_classes),
        "zero_shot": _zero_shot(subject, question, test, metric) if zero_shot else None,
    }
    return _record(subject, "few-shot", metric, figures, {"train": train, "test": test}, len(own), details)


def ridge_figure(train: Features, test: Features) -> float:
    """The accuracy, or of several labels the 11-point mAP, of the closed-form probe, for the training loop."""
    metric: Metric = "accuracy" if test.several is None else "map_11_point"
    own = labelled(test, test.class_names)
    return METRICS[metric](ridge(labelled(train, test.class_names)).scores(own.features), own.labels)


def labelled(features: Features, class_names: tuple[str, ...]) -> LabelledFeatures:
    """The images that have labels, these being places in `class_names`. Raises UserError where the names are others."""
    check_same_classes(features.class_names, class_names)
    same = features.class_names == class_names
    place = np.arange(len(class_names)) if same else np.array([class_names.index(one) for one in features.class_names])
    if features.several is not None:
        marks = np.zeros((len(features), len(class_names)), bool)
        marks[:, place] = features.several[:, : len(place)]
        return LabelledFeatures(features.pre_projection, marks, len(class_names))
    used = features.labels != NO_LABEL
    if not used.any() or features.labels.max() >= len(place):
        raise UserError(f"labels must be classes 0 to {len(place) - 1}; the largest is {features.labels.max()}")
    return LabelledFeatures(features.pre_projection[used], place[features.labels[used]], len(class_names))


def check_same_classes(one: tuple[str, ...], other: tuple[str, ...]) -> None:
    """Raises UserError where two splits of a dataset do not name the same classes, in whatever order."""
    if not one or not other:
        raise UserError(NO_LABELS)
    if one != other and (set(one) != set(other) or len(set(one)) < len(one) or len(one) != len(other)):
        name = next(iter(sorted({*one} ^ {*other})), one[0])
        raise UserError(f"the splits of a dataset must have the same classes; '{name}' is in one of them only")


def left_out(splits: Mapping[str, Features]) -> list[BadSample]:
    """The images of all splits that could not be used, their keys beginning with the split's name."""
    found = [replace(bad, key=f"{name}: {bad.key}") for name, split in splits.items() for bad in split.bad]
    for name, split in splits.items():
        unlabelled = np.flatnonzero(split.labels == NO_LABEL) if split.several is None else []
        found += [BadSample(f"{name}: {split.keys[i]}", "bad label", "it has no label") for i in unlabelled]
    return found


def _check_every_class(train: LabelledFeatures, class_names: tuple[str, ...]) -> None:
    """Raises UserError, with its name, for a class of which there is nothing to draw from."""
    if train.labels.ndim == 1:
        empty = np.flatnonzero(np.bincount(train.labels, minlength=len(class_names)) == 0)
        if len(empty):
            raise UserError(f"the class '{class_names[empty[0]]}' has no training images; few-shot needs some of each")


def _zero_shot(subject: Subject, question: Question, test: Features, metric: Metric) -> float:
    return question.answer(subject.clip, test, subject.cache).figure(metric)


def _record(
    subject: Subject,
    task: str,
    metric: str,
    figures: dict[str, float],
    splits: dict[str, Features],
    images: int,
    details: dict[str, Any],
) -> Record:
    bad, test = left_out(splits), splits["test"]
    return Record(
        task=task,
        model=subject.model,
        dataset=subject.dataset,
        data=subject.data,
        metric=metric,
        figures=figures,
        images=images,
        chance=chance(metric, len(test.class_names)),
        remarks=subject.remarks(len(test) + len(test.bad)),
        left_out=len(bad),
        bad=shown_bad(bad),
        details={"classes": len(test.class_names), **details},
    )
