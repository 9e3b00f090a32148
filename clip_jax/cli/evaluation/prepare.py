"""From options to what is evaluated: the model, the processes, the question."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clip_jax.clip import load
from clip_jax.data.table import Table
from clip_jax.evaluation.benchmarks import get_benchmark
from clip_jax.evaluation.question import Question, ask, check_metric, read_classes, read_templates
from clip_jax.evaluation.tasks import Subject
from clip_jax.training.distributed import initialise, together


@contextmanager
def together_with(options: argparse.Namespace) -> Iterator[None]:
    """What the processes that the options name do together."""
    initialise(options.coordinator, options.processes, options.process)
    with together():
        yield


def subject_of(options: argparse.Namespace, cache: Path | None, data: str = "") -> Subject:
    """The model, and the dataset by its benchmark's name, or by its data spec."""
    name = getattr(options, "dataset", None)
    data = data or options.data
    return Subject(
        clip=load(options.model, options.dtype),
        model=options.model,
        dataset=name or data,
        data=data,
        benchmark=get_benchmark(name) if name else None,
        cache=cache,
    )


def question_of(table: Table, options: argparse.Namespace) -> Question:
    """What the options say of classes, templates and metric. Raises UserError."""
    return ask(
        table,
        benchmark=get_benchmark(options.dataset) if options.dataset else None,
        labels=options.labels,
        class_names=read_classes(options.class_names) if options.class_names else (),
        templates=[*(options.template or ()), *(read_templates(options.templates) if options.templates else ())],
        metric=check_metric(options.metric) if options.metric else None,
    )
