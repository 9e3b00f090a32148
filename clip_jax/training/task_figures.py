"""The figures that tasks give of a model as it is now, from the same functions as those of `clip-jax evaluate`."""

from collections.abc import Mapping
from typing import TypeAlias

from clip_jax.clip import Clip
from clip_jax.evaluation.features import Features
from clip_jax.evaluation.probes.records import few_shot_record, left_out, linear_probe_record, ridge_figure
from clip_jax.evaluation.record import Record
from clip_jax.evaluation.robustness import Shift, robustness_record
from clip_jax.evaluation.tasks import Subject, retrieval_record
from clip_jax.training.evaluate_config import (
    FewShotTask,
    LinearProbeTask,
    ProbeTask,
    RetrievalTask,
    RobustnessTask,
    Task,
    ZeroShotTask,
)
from clip_jax.training.task_questions import AskingTask, Tables, benchmark_of, question_of, shifts_of

Embedded: TypeAlias = Mapping[str, Features]
"""The features of tasks' data by its spec."""


def figures_of(task: Task, clip: Clip, tables: Tables, features: Embedded) -> dict[str, float]:
    """The figures of a task, the main one first; and `left_out`, how many images could not be used, where any.

    All processes call it together. Raises UserError as the tasks do.
    """
    match task:
        case ZeroShotTask():
            figures, bad = _zero_shot(task, clip, tables, features)
        case RetrievalTask():
            record = retrieval_record(_subject(task, clip), features[task.data], task.prefix)
            figures, bad = record.figures, record.left_out
        case ProbeTask():
            splits = {"train": features[task.train], "test": features[task.data]}
            figures, bad = {"ridge_probe": ridge_figure(**splits)}, len(left_out(splits))
        case LinearProbeTask() | FewShotTask():
            record = _probe(task, clip, tables, features)
            figures, bad = record.figures, record.left_out
        case RobustnessTask():
            record = _robustness(task, clip, tables, features)
            figures, bad = record.figures, record.left_out
    return figures | ({"left_out": float(bad)} if bad else {})


def _zero_shot(task: ZeroShotTask, clip: Clip, tables: Tables, features: Embedded) -> tuple[dict[str, float], int]:
    """As `zero_shot_record`, without its intervals and tables, which nobody sees here."""
    question, own = question_of(task, tables[task.data]), features[task.data]
    result, metric = question.answer(clip, own), question.metric_of(own)
    return {metric: result.figure(metric)} | result.metrics(), len(result.bad)


def _probe(task: LinearProbeTask | FewShotTask, clip: Clip, tables: Tables, features: Embedded) -> Record:
    subject, question = _subject(task, clip), question_of(task, tables[task.data])
    train, test = features[task.train], features[task.data]
    if isinstance(task, LinearProbeTask):
        validation = features[task.validation] if task.validation else None
        return linear_probe_record(subject, question, train, validation, test, task.seed, zero_shot=False)
    shots, seeds = tuple(sorted(set(task.shots))), tuple(range(task.seeds))
    return few_shot_record(subject, question, train, test, shots, seeds, zero_shot=False)


def _robustness(task: RobustnessTask, clip: Clip, tables: Tables, features: Embedded) -> Record:
    question = question_of(task, tables[task.data])
    asked = shifts_of(task, question, tables)
    shifts = {name: Shift(features[spec], *asked[name]) for name, spec in task.shifts.items()}
    return robustness_record(_subject(task, clip), features[task.data], question, shifts)


def _subject(task: AskingTask | RetrievalTask, clip: Clip) -> Subject:
    return Subject(clip, "", task.dataset or task.data, task.data, benchmark_of(task))
