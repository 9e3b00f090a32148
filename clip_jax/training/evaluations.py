"""The evaluations of a run: when they come, whether they fit their data, and the figures of a model as it is now."""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from clip_jax.clip import Clip
from clip_jax.data.table import Table
from clip_jax.errors import UserError
from clip_jax.evaluation.features import embed_table
from clip_jax.processes import is_first
from clip_jax.training.config import CheckpointConfig, TrainConfig
from clip_jax.training.evaluate_config import EvaluateConfig
from clip_jax.training.share import in_steps
from clip_jax.training.task_checks import figure_names
from clip_jax.training.task_figures import figures_of

BATCH_SIZE = 256


def check_tasks(config: EvaluateConfig, tables: Mapping[str, Table]) -> None:
    """Raises UserError, naming the task's key, where one does not fit its data, `tables` being these by their spec."""
    _figure_names(config, tables)


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
    """The figures of every task as eval/NAME/FIGURE; each process embeds its share of the images.

    Images that cannot be used are counted as eval/NAME/left_out. A task that finds its data at fault, as where a class
    has no training images, is left out with a warning that names its key; the run goes on. Raises UserError where no
    image of some data can be used.
    """
    features = {data: embed_table(clip, table, BATCH_SIZE) for data, table in tables.items()}
    figures = {}
    for (kind, name), task in config.tasks.items():
        try:
            found = figures_of(task, clip, tables, features)
        except UserError as error:  # by the features and labels, which are the same on all processes
            if type(error) is not UserError:
                raise
            if is_first():
                warnings.warn(f"config.evaluate.{kind}.{name} gives no figures: {error}", stacklevel=2)
            continue
        figures |= {f"eval/{name}/{figure}": value for figure, value in found.items()}
    return figures


def _figure_names(config: EvaluateConfig, tables: Mapping[str, Table]) -> list[str]:
    """The names of the figures that are better the higher they are."""
    names = []
    for (kind, name), task in config.tasks.items():
        with _named(kind, name):
            names += [f"eval/{name}/{figure}" for figure in figure_names(task, tables)]
    return names


@contextmanager
def _named(kind: str, name: str) -> Iterator[None]:
    """Puts a task's key before what is wrong with it."""
    try:
        yield
    except UserError as error:
        raise type(error)(f"config.evaluate.{kind}.{name}: {error}") from error
