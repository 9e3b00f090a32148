"""Robustness: accuracy on images that came about another way, held against that on the images of the base dataset.

Source: section 3.3 of the paper; effective robustness is that of Taori et al. 2020, arXiv 2007.00644.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int

from clip_jax.data.table import Table
from clip_jax.errors import UserError
from clip_jax.evaluation.benchmarks import Benchmark, get_benchmark, list_benchmarks
from clip_jax.evaluation.features import NO_LABEL, Features
from clip_jax.evaluation.question import IMAGENET, Question, ask
from clip_jax.evaluation.record import Record, shown_bad
from clip_jax.evaluation.tasks import Subject
from clip_jax.evaluation.zero_shot import NO_CLASS

COLUMNS = ("name", "base", "shifts")


@dataclass(frozen=True)
class Shift:
    """Another dataset of some of the base's classes, embedded, with its question."""

    features: Features
    question: Question
    benchmark: Benchmark | None = None


@dataclass(frozen=True)
class Baseline:
    """A model trained the usual way: its accuracy on the base dataset and its mean over the shifts, from 0 to 1."""

    name: str
    base: float
    shifts: float


def ask_shift(
    name: str, table: Table, base: Question, templates: Sequence[str] = ()
) -> tuple[Question, Benchmark | None]:
    """What a shift asks, and the benchmark that it is, where its name is that of one in the group `shifts`.

    A benchmark has its own classes and, unless `templates` are given, its own templates; another shift has those of the
    base. Raises UserError as `ask` does.
    """
    benchmark = get_benchmark(name) if name in list_benchmarks("shifts") else None
    return ask(table, benchmark, templates=templates or (() if benchmark else base.templates)), benchmark


def robustness_record(
    subject: Subject,
    features: Features,
    question: Question,
    shifts: Mapping[str, Shift],
    baselines: Sequence[Baseline] = (),
) -> Record:
    """Zero-shot accuracy on the base and on each shift, and there also the base's on the same classes alone.

    With two baselines or more, `effective_robustness` is how far the mean over the shifts lies above what the
    baselines' line promises a model of the same base accuracy. Raises UserError where a shift has a class that the base
    lacks, or images have several labels.
    """
    if features.several is not None or any(shift.features.several is not None for shift in shifts.values()):
        raise UserError("robustness is about accuracy, and these images have several labels")
    base = question.answer(subject.clip, features, subject.cache)
    found, bad = {}, list(base.bad)
    for name, shift in shifts.items():
        result = shift.question.answer(subject.clip, shift.features, subject.cache)
        bad += result.bad
        same = _base_on(subject, features, question, name, shift)
        found[name] = {"figure": result.top(1), "interval": list(result.interval("accuracy")), "base": same}
    mean = float(np.mean([one["figure"] for one in found.values()]))
    same = float(np.mean([one["base"] for one in found.values()]))
    figures = {"accuracy": base.top(1), "mean_of_shifts": mean, "base_on_the_same_classes": same}
    if len({baseline.base for baseline in baselines}) > 1:
        figures["effective_robustness"] = mean - promised(same, baselines)
    return Record(
        task="robustness",
        model=subject.model,
        dataset=subject.dataset,
        data=subject.data,
        metric="accuracy",
        figures=figures | {f"shift_{name}": one["figure"] for name, one in found.items()},
        images=len(base),
        interval=base.interval("accuracy"),
        chance=base.chance,
        published=subject.published("accuracy"),
        remarks=subject.remarks(len(base) + len(base.bad)),
        left_out=len(bad),
        bad=shown_bad(bad),
        details={"shifts": found, "baselines": [[one.base, one.shifts, one.name] for one in baselines]},
    )


def classes_of_shift(
    base: Question, base_is: Benchmark | None, name: str, shift: Question, shift_is: Benchmark | None
) -> Int[np.ndarray, " c"]:
    """Of each class of the base, which of the shift's it is, or NO_CLASS.

    Raises UserError where the shift, called `name`, has a class that the base lacks.
    """
    place = np.full(len(base.classes), NO_CLASS)
    if shift_is is not None and shift_is.imagenet and base_is is not None and base_is.name == IMAGENET:
        for number, several in enumerate(shift_is.imagenet):
            place[list(several)] = number
        return place
    if base.names == shift.names:
        return np.arange(len(base.classes))
    known = {one: number for number, one in enumerate(base.names)}
    for number, one in enumerate(shift.names):
        if one not in known:
            raise UserError(f"the shift {name} has the class '{one}', which the base lacks; name its classes as there")
        place[known[one]] = number
    return place


def promised(base: float, baselines: Sequence[Baseline]) -> float:
    """The mean over the shifts that the line through the baselines, on logit axes, gives a base accuracy."""
    x, y = (_logit(np.array([getattr(one, axis) for one in baselines])) for axis in ("base", "shifts"))
    slope, offset = np.polyfit(x, y, 1)
    return float(1 / (1 + np.exp(-(slope * _logit(np.array([base]))[0] + offset))))


def read_baselines(path: Path) -> list[Baseline]:
    """Baselines from a CSV with the columns name, base and shifts, accuracies from 0 to 1. Raises UserError."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
        found = [Baseline(row["name"], float(row["base"]), float(row["shifts"])) for row in rows]
    except (OSError, UnicodeDecodeError, ValueError, KeyError, TypeError) as error:
        columns = ", ".join(COLUMNS)
        raise UserError(f"cannot read baselines from {path}; a CSV with the columns {columns} is right") from error
    outside = next((one for one in found if not (0 < one.base < 1 and 0 < one.shifts < 1)), None)
    if outside:
        raise UserError(f"{path} has {outside.name} at {outside.base}, {outside.shifts}; accuracies lie within 0 and 1")
    return found


def _base_on(subject: Subject, features: Features, question: Question, name: str, shift: Shift) -> float:
    """The accuracy on the base's images of a shift's classes, asked as the shift is."""
    place = classes_of_shift(question, subject.benchmark, name, shift.question, shift.benchmark)
    class_of = np.where(question.class_of == NO_CLASS, NO_CLASS, place[question.class_of])
    used = (features.labels != NO_LABEL) & (class_of[features.labels] != NO_CLASS)
    if not used.any():
        raise UserError(f"no image of the base has a class of {name}")
    asked = Question(shift.question.classes, class_of, shift.question.templates)
    return asked.answer(subject.clip, features.take(used), subject.cache).top(1)


def _logit(share: np.ndarray) -> np.ndarray:
    bounded = np.clip(share, 1e-6, 1 - 1e-6)
    return np.log(bounded / (1 - bounded))
