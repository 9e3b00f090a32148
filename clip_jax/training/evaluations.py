"""The evaluations of a run: which figures they give, and the figures of a model as it is now."""

from collections.abc import Mapping

import numpy as np

from clip_jax.clip import Clip
from clip_jax.data.table import Sample, Table
from clip_jax.errors import UserError
from clip_jax.evaluation.benchmarks import get_benchmark
from clip_jax.evaluation.features import embed_table
from clip_jax.evaluation.probes.records import check_same_classes, ridge_figure
from clip_jax.evaluation.question import Question, ask
from clip_jax.evaluation.retrieval import RetrievalResult, retrieve_features
from clip_jax.evaluation.zero_shot import ZeroShotResult
from clip_jax.training.config import CheckpointConfig, EvaluateConfig, TrainConfig, ZeroShotTask, in_steps

LOWER_IS_BETTER = ("calibration_error", "median_rank")
BATCH_SIZE = 256
LOOKED_AT = 16  # samples


def check_tasks(config: EvaluateConfig, tables: Mapping[str, Table]) -> None:
    """Raises UserError where a task does not fit its data, `tables` being these by their spec."""
    for task in config.zero_shot.values():
        question_of(task, tables[task.data])
    for name, task in config.retrieval.items():
        if not any(sample.captions for sample in _first_samples(tables[task.data])):
            raise UserError(f"config.evaluate.retrieval.{name} needs captions, which the first images of its data lack")
    for task in config.probe.values():
        check_same_classes(tables[task.train].class_names, tables[task.data].class_names)


def check_best(config: CheckpointConfig, evaluate: EvaluateConfig, tables: Mapping[str, Table]) -> None:
    """Raises UserError where `best` is none of the figures that the evaluations will give."""
    if config.best is None:
        return
    names = _figure_names(evaluate, tables)
    if config.best not in names:
        what = f"valid are {', '.join(names)}" if names else "there are no evaluations, see config.evaluate"
        raise UserError(f"config.checkpoint.best is '{config.best}', which no evaluation gives; {what}")


def evaluation_steps(config: TrainConfig, samples: int) -> int:
    """After how many steps the evaluations come, of data with so many samples."""
    if config.evaluate.epochs is None:
        return in_steps(config.evaluate.every, config.steps, least=1)
    return max(1, round(config.evaluate.epochs * samples / config.batch_size))


def evaluate(config: EvaluateConfig, clip: Clip, tables: Mapping[str, Table]) -> dict[str, float]:
    """The figures of every task as eval/NAME/FIGURE; each process embeds its share of the images."""
    features = {data: embed_table(clip, table, BATCH_SIZE) for data, table in tables.items()}
    figures = {}
    for name, task in config.zero_shot.items():
        answers = question_of(task, tables[task.data]).answer(clip, features[task.data])
        figures |= {f"eval/{name}/{figure}": value for figure, value in answers.metrics().items()}
    for name, task in config.retrieval.items():
        found = retrieve_features(clip, features[task.data], task.prefix)
        figures |= {f"eval/{name}/{figure}": value for figure, value in found.metrics().items()}
    for name, task in config.probe.items():
        figures[f"eval/{name}/ridge_probe"] = ridge_figure(features[task.train], features[task.data])
    return figures


def question_of(task: ZeroShotTask, table: Table) -> Question:
    """What a task asks about its data. Raises UserError where it does not fit."""
    benchmark = get_benchmark(task.dataset) if task.dataset else None
    return ask(table, benchmark=benchmark, labels=task.labels, templates=task.templates)


def _figure_names(config: EvaluateConfig, tables: Mapping[str, Table]) -> list[str]:
    """The names of the figures that are better the higher they are."""
    names = []
    for name, task in config.zero_shot.items():
        classes = question_of(task, tables[task.data]).names
        several = any(sample.labels is not None for sample in _first_samples(tables[task.data]))
        truth = np.ones((2, len(classes)), bool) if several else np.arange(2) % len(classes)
        scores = np.zeros((2, len(classes)), np.float32)
        names += [f"eval/{name}/{figure}" for figure in ZeroShotResult(classes, truth, scores).metrics()]
    nothing = np.zeros(1, np.int64)
    for name in config.retrieval:
        names += [f"eval/{name}/{figure}" for figure in RetrievalResult(nothing, nothing, nothing).metrics()]
    names += [f"eval/{name}/ridge_probe" for name in config.probe]
    return [name for name in names if not name.endswith(LOWER_IS_BETTER)]


def _first_samples(table: Table) -> list[Sample]:
    """A few samples that tell what the others have."""
    found = table.read(range(min(LOOKED_AT, len(table))))
    return [one for one in found if isinstance(one, Sample)]
