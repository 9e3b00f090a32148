"""What the tasks of a run ask about their data, as `clip-jax evaluate` does with the same options."""

from collections.abc import Mapping
from typing import TypeAlias

from clip_jax.data.table import Table
from clip_jax.evaluation.benchmarks import Benchmark, get_benchmark
from clip_jax.evaluation.question import Question, ask
from clip_jax.evaluation.robustness import ask_shift
from clip_jax.training.evaluate_config import (
    FewShotTask,
    LinearProbeTask,
    RetrievalTask,
    RobustnessTask,
    ZeroShotTask,
)

AskingTask: TypeAlias = ZeroShotTask | LinearProbeTask | FewShotTask | RobustnessTask
Tables: TypeAlias = Mapping[str, Table]
"""The data of tasks by its spec."""


def benchmark_of(task: AskingTask | RetrievalTask) -> Benchmark | None:
    """The benchmark that a task's data is, if it is one. Raises UserError for an unknown name."""
    return get_benchmark(task.dataset) if task.dataset else None


def question_of(task: AskingTask, table: Table) -> Question:
    """What a task asks about its `data`, opened as `table`. Raises UserError where it does not fit."""
    benchmark = benchmark_of(task)
    match task:
        case ZeroShotTask():
            return ask(table, benchmark, task.labels, task.class_names, task.templates, task.metric)
        case RobustnessTask():
            return ask(table, benchmark, task.labels, task.class_names, task.templates)
        case _:
            return ask(table, benchmark, metric=task.metric)


def shifts_of(task: RobustnessTask, base: Question, tables: Tables) -> dict[str, tuple[Question, Benchmark | None]]:
    """What a task asks about each shift, by its name, and the benchmark that this is. Raises UserError."""
    return {name: ask_shift(name, tables[spec], base, task.templates) for name, spec in task.shifts.items()}
