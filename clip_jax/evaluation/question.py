"""What a labelled dataset asks a model: its classes in words, the templates around them, and how answers are judged."""

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from clip_jax.clip import Clip
from clip_jax.data import files
from clip_jax.data.beside import templates_near
from clip_jax.data.table import Table
from clip_jax.errors import UserError
from clip_jax.evaluation.benchmarks import Benchmark, get_benchmark
from clip_jax.evaluation.features import Features, embed_classes
from clip_jax.evaluation.metrics import METRICS, Metric
from clip_jax.evaluation.zero_shot import NO_CLASS, ZeroShotResult, match_labels, score
from clip_jax.inputs.prompts import DEFAULT_TEMPLATE, check_classes, check_templates
from clip_jax.processes import is_first
from clip_jax.schema import nearest

IMAGENET = "imagenet"  # whose template sets are offered by their number


@dataclass(frozen=True, eq=False)
class Question:
    """`classes` have one name or several each; `class_of` has the class of each label of the data, or NO_CLASS.

    Without a `metric`, accuracy is judged by, or 11-point mAP where images have several labels.
    """

    classes: tuple[tuple[str, ...], ...]
    class_of: Int[np.ndarray, " labels"]
    templates: tuple[str, ...] = (DEFAULT_TEMPLATE,)
    metric: Metric | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The first name of each class."""
        return tuple(names[0] for names in self.classes)

    def metric_of(self, features: Features) -> Metric:
        """What answers about these images are judged by. Raises UserError for a metric that does not fit them."""
        return self.metric_for(features.several is not None)

    def metric_for(self, several: bool) -> Metric:
        """As `metric_of`, of images with one label or `several`. Raises UserError."""
        metric = self.metric or ("map_11_point" if several else "accuracy")
        if (metric == "map_11_point") != several:
            raise UserError(f"{metric} does not fit images with {'several labels' if several else 'one label'}")
        return metric

    def answer(self, clip: Clip, features: Features, cache: Path | None = None) -> ZeroShotResult:
        """What a model answers. Raises UserError as `score` does."""
        return score(
            clip, features, embed_classes(clip, self.classes, self.templates, cache), self.names, self.class_of
        )


def ask(
    table: Table,
    benchmark: Benchmark | None = None,
    labels: Sequence[str] = (),
    class_names: Sequence[Sequence[str]] = (),
    templates: Sequence[str] = (),
    metric: Metric | None = None,
) -> Question:
    """The question that a table asks.

    Its classes are those of the `benchmark`, found in the table by name; or `class_names`, one for each label in
    order; or `labels`, among which the table's names must be; or else the table's own. Templates are those given, the
    benchmark's, those that lie beside the data, or the usual one. Raises UserError where these do not fit the table.
    """
    first = next(iter(table.parts))
    beside = templates_near(first) if not (templates or benchmark) and files.kind(first) == "file" else ()
    chosen = tuple(check_templates(templates or (benchmark.templates if benchmark else beside)))
    if sum(map(bool, (benchmark, labels, class_names))) > 1:
        raise UserError("a dataset, labels and class names all say what the classes are; give one of them")
    if benchmark is not None:
        return _of_benchmark(table, benchmark, chosen, metric)
    if class_names:
        names = tuple(tuple(several) for several in check_classes(class_names))
        if table.class_names and len(names) != len(table.class_names):
            raise UserError(
                f"{len(names)} class names are given, but the data has {len(table.class_names)} classes; one each, in "
                "the order of the labels, is right"
            )
        return Question(names, np.arange(len(names)), chosen, metric)
    own, class_of = match_labels(table.class_names, labels)
    return Question(tuple((name,) for name in own), class_of, chosen, metric)


def _of_benchmark(table: Table, benchmark: Benchmark, templates: tuple[str, ...], metric: Metric | None) -> Question:
    if benchmark.metric == "mean_recall_at_1":
        raise UserError(f"{benchmark.name} is for retrieval, not for classification; evaluate retrieval takes it")
    if not table.class_names:
        raise UserError(
            f"the data does not name its classes, by which those of {benchmark.name} are found; classnames.txt would"
        )
    is_known = benchmark.classes == get_benchmark(IMAGENET).classes  # ImageNet's order is the same everywhere
    if not is_known and benchmark.takes_numbers(table.class_names) and is_first():
        first = ", ".join(f"{number} is '{names[0]}'" for number, names in enumerate(benchmark.classes[:2]))
        warnings.warn(
            f"the data's class names are numbers, taken as places in OpenAI's list of {benchmark.name}: {first}, ...; "
            "see that this is their order",
            stacklevel=3,
        )
    found = [NO_CLASS if place is None else place for place in benchmark.match(table.class_names)]
    return Question(benchmark.classes, np.array(found), templates, metric or benchmark.metric)


def read_classes(path: Path) -> list[tuple[str, ...]]:
    """Class names from a file: JSON, a list of names or of lists of names, or a class a line. Raises UserError."""
    text = _read(path)
    try:
        said: Any = json.loads(text)
    except ValueError:
        return [(line.strip(),) for line in text.splitlines() if line.strip()]
    names = [[one] if isinstance(one, str) else one for one in said] if isinstance(said, list) else []
    if not names or not all(isinstance(one, list) and all(isinstance(name, str) for name in one) for one in names):
        raise UserError(f"{path} is not a JSON list of class names, or of lists of names; either would be right")
    return [tuple(one) for one in names]


def read_templates(source: str) -> list[str]:
    """Templates from a text file, one a line with {} or {c} for the class name, or ImageNet's set of 1, 7 or 80.

    Raises UserError for a file that is not there, and as `check_templates` does.
    """
    sets = get_benchmark(IMAGENET).template_sets
    if source in sets:
        return list(sets[source])
    if not Path(source).is_file():
        raise UserError(f"there are no templates '{source}'; a file of one a line, or {nearest(source, sets)}")
    lines = [line.strip().replace("{c}", "{}") for line in _read(Path(source)).splitlines()]
    return check_templates([line for line in lines if line])


def check_metric(name: str) -> Metric:
    """The metric of that name. Raises UserError for another."""
    if name not in METRICS:
        raise UserError(f"there is no metric '{name}'; {nearest(name, METRICS)}")
    return name


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UserError(f"cannot read {path}: {reason}") from error
