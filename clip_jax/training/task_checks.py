"""Whether tasks fit their data, as far as class names and the first samples tell, and which figures they will give."""

import numpy as np

from clip_jax.data.table import Sample, Table
from clip_jax.errors import UserError
from clip_jax.evaluation.metrics import Metric
from clip_jax.evaluation.probes.records import check_same_classes
from clip_jax.evaluation.question import Question
from clip_jax.evaluation.retrieval import RetrievalResult
from clip_jax.evaluation.robustness import classes_of_shift
from clip_jax.evaluation.zero_shot import ZeroShotResult
from clip_jax.training.evaluate_config import (
    FewShotTask,
    LinearProbeTask,
    ProbeTask,
    ProbingTask,
    RetrievalTask,
    RobustnessTask,
    Task,
    ZeroShotTask,
)
from clip_jax.training.task_questions import Tables, benchmark_of, question_of, shifts_of

LOWER_IS_BETTER = ("calibration_error", "median_rank")
MEAN_RECALL = "mean_recall_at_1"
LOOKED_AT = 16  # samples


def figure_names(task: Task, tables: Tables) -> list[str]:
    """The figures that a task will give and that are better the higher they are, the main one first.

    Raises UserError where it does not fit its data.
    """
    match task:
        case ZeroShotTask():
            names = _zero_shot(task, tables)
        case RetrievalTask():
            names = _retrieval(task, tables)
        case ProbeTask():
            _check_splits(task, tables)
            names = ["ridge_probe"]
        case LinearProbeTask():
            names = [_probe_metric(task, tables)]
        case FewShotTask():
            names = _few_shot(task, tables)
        case RobustnessTask():
            names = _robustness(task, tables)
    return [name for name in dict.fromkeys(names) if not name.endswith(LOWER_IS_BETTER)]


def _zero_shot(task: ZeroShotTask, tables: Tables) -> list[str]:
    question, several = question_of(task, tables[task.data]), _has_several(task.data, tables)
    classes = len(question.classes)
    truth = np.ones((2, classes), bool) if several else np.arange(2) % classes
    result = ZeroShotResult(question.names, truth, np.zeros((2, classes), np.float32))
    return [_metric(question, several, classes), *result.metrics()]


def _retrieval(task: RetrievalTask, tables: Tables) -> list[str]:
    if not any(sample.captions for sample in _first_samples(tables[task.data])):
        raise UserError(f"the first images of {task.data} have no captions, which retrieval needs")
    benchmark, nothing = benchmark_of(task), np.zeros(1, np.int64)
    if benchmark and benchmark.metric != MEAN_RECALL:
        raise UserError(f"{benchmark.name} is for classification, not for retrieval; evaluate.zero_shot takes it")
    return [MEAN_RECALL, *RetrievalResult(nothing, nothing, nothing).metrics()]


def _few_shot(task: FewShotTask, tables: Tables) -> list[str]:
    metric, train = _probe_metric(task, tables), tables[task.train]
    if _has_several(task.train, tables):
        raise UserError("few-shot draws examples of each class; these images have several labels")
    if len(train) < len(train.class_names):
        raise UserError(f"{task.train} has {len(train)} images of {len(train.class_names)} classes; each needs some")
    return [metric, *(f"shots_{count}" for count in sorted(task.shots))]


def _robustness(task: RobustnessTask, tables: Tables) -> list[str]:
    base = question_of(task, tables[task.data])
    if any([_has_several(spec, tables) for spec in task.specs]):  # a list: each is looked at
        raise UserError("robustness is about accuracy, and these images have several labels")
    for name, (shift, benchmark) in shifts_of(task, base, tables).items():
        classes_of_shift(base, benchmark_of(task), name, shift, benchmark)
    shifts = [f"shift_{name}" for name in task.shifts]
    return ["accuracy", "mean_of_shifts", "base_on_the_same_classes", *shifts]


def _probe_metric(task: LinearProbeTask | FewShotTask, tables: Tables) -> Metric:
    several = _check_splits(task, tables)
    return _metric(question_of(task, tables[task.data]), several, len(tables[task.data].class_names))


def _check_splits(task: ProbingTask, tables: Tables) -> bool:
    """Whether images have several labels. Raises UserError where splits do not go together, or teach nothing."""
    names = tables[task.data].class_names
    for spec in task.specs:
        check_same_classes(tables[spec].class_names, names)
    several = {spec: _has_several(spec, tables) for spec in task.specs}
    if len(set(several.values())) > 1:
        one, other = (next(spec for spec, found in several.items() if found == kind) for kind in (False, True))
        raise UserError(f"images of {one} have one label and those of {other} several; splits must be alike")
    if len(names) < 2 and not several[task.data]:
        raise UserError("a probe needs two classes at least; the data has one")
    return several[task.data]


def _metric(question: Question, several: bool, classes: int) -> Metric:
    """What a task's answers are judged by. Raises UserError for a metric that does not fit so many classes."""
    metric = question.metric_for(several)
    if metric == "roc_auc" and classes != 2:
        raise UserError(f"roc_auc is of two classes; the data has {classes}")
    return metric


def _has_several(spec: str, tables: Tables) -> bool:
    """Whether images have several labels. Raises UserError where the first have none."""
    found = _first_samples(tables[spec])
    if found and all(one.label is None and one.labels is None for one in found):
        raise UserError(f"the first images of {spec} have no labels")
    return any(one.labels is not None for one in found)


def _first_samples(table: Table) -> list[Sample]:
    """A few samples that tell what the others have."""
    found = table.read(range(min(LOOKED_AT, len(table))))
    return [one for one in found if isinstance(one, Sample)]
