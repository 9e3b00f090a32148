"""Probes as records: an embedded training set and test set in, what is to be printed, kept and shown out.

Probes are fitted to what the image tower has before its last projection. Source: appendix A.3 of the paper.
"""

import numpy as np

from clip_jax.errors import UserError
from clip_jax.evaluation.features import NO_LABEL, Features
from clip_jax.evaluation.few_shot import FewShotResult, few_shot
from clip_jax.evaluation.labelled_features import LabelledFeatures
from clip_jax.evaluation.linear_probe import linear_probe
from clip_jax.evaluation.metrics import METRICS, Metric
from clip_jax.evaluation.question import Question
from clip_jax.evaluation.record import Record, shown_bad
from clip_jax.evaluation.ridge import ridge
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
        "train_images": len(parts[0]),
        "validation_images": 0 if held is None else len(held),
        "zero_shot": _zero_shot(subject, question, test, metric) if zero_shot else None,
    }
    return _record(subject, "linear-probe", metric, {metric: found.figure}, test, len(parts[1]), details)


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
    found: FewShotResult = few_shot(labelled(train, test.class_names), own, METRICS[metric], shots, seeds)
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
    return _record(subject, "few-shot", metric, figures, test, len(own), details)


def ridge_figure(train: Features, test: Features) -> float:
    """The accuracy, or of several labels the 11-point mAP, of the closed-form probe, for the training loop."""
    metric: Metric = "accuracy" if test.several is None else "map_11_point"
    own = labelled(test, test.class_names)
    return METRICS[metric](ridge(labelled(train, test.class_names)).scores(own.features), own.labels)


def labelled(features: Features, class_names: tuple[str, ...]) -> LabelledFeatures:
    """The images that have labels, these being places in `class_names`. Raises UserError where the names are others."""
    if not class_names:
        raise UserError(NO_LABELS)
    if features.class_names == class_names:
        place = np.arange(len(class_names))
    elif set(features.class_names) == set(class_names) and len(set(class_names)) == len(class_names):
        place = np.array([class_names.index(name) for name in features.class_names])
    else:
        other = next(iter({*features.class_names} ^ {*class_names}), class_names[0])
        raise UserError(f"the splits of a dataset must have the same classes; '{other}' is in one of them only")
    if features.several is not None:
        marks = np.zeros_like(features.several)
        marks[:, place] = features.several
        return LabelledFeatures(features.pre_projection, marks, len(class_names))
    used = features.labels != NO_LABEL
    return LabelledFeatures(features.pre_projection[used], place[features.labels[used]], len(class_names))


def _zero_shot(subject: Subject, question: Question, test: Features, metric: Metric) -> float:
    return question.answer(subject.clip, test, subject.cache).figure(metric)


def _record(
    subject: Subject, task: str, metric: str, figures: dict[str, float], test: Features, images: int, details: dict
) -> Record:
    return Record(
        task=task,
        model=subject.model,
        dataset=subject.dataset,
        data=subject.data,
        metric=metric,
        figures=figures,
        images=images,
        chance=None if test.several is not None else 1 / len(test.class_names),
        left_out=len(test.bad) + len(test) - images,
        bad=shown_bad(test.bad),
        details={"classes": len(test.class_names), **details},
    )
