"""What a run is evaluated by, and when: the schema of its tasks, in the words of `clip-jax evaluate`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from clip_jax.errors import UserError
from clip_jax.evaluation.metrics import Metric
from clip_jax.training.share import Share


@dataclass(frozen=True)
class ZeroShotTask:
    """Zero-shot classification of labelled data; `labels` are the data's own class names where none are given.

    `dataset` names the benchmark that the data is, whose classes, templates and metric are taken then. `class_names`
    are those of the data's labels in their order, one name or several of each. Without templates, those beside the data
    are taken, or "a photo of a {}."; without a metric it is accuracy, or 11-point mAP of several labels an image.
    """

    data: str
    labels: tuple[str, ...] = ()
    templates: tuple[str, ...] = ()
    dataset: str | None = None
    class_names: tuple[str | tuple[str, ...], ...] = ()
    metric: Metric | None = None

    @property
    def specs(self) -> tuple[str, ...]:
        """The data specs that the task reads; so has every task."""
        return (self.data,)


@dataclass(frozen=True)
class RetrievalTask:
    """Captions of images and images of captions.

    `prefix` is put before each caption, by default that of the benchmark `dataset`, or nothing.
    """

    data: str
    prefix: str | None = None
    dataset: str | None = None

    @property
    def specs(self) -> tuple[str, ...]:
        """The data specs that the task reads."""
        return (self.data,)


@dataclass(frozen=True)
class ProbeTask:
    """A ridge regression from the image features of the labelled images of `train`, tested on those of `data`.

    It is in closed form, and so the cheapest of the probes.
    """

    train: str
    data: str

    @property
    def specs(self) -> tuple[str, ...]:
        """The data specs that the task reads."""
        return (self.data, self.train)


@dataclass(frozen=True)
class LinearProbeTask:
    """Logistic regression on the image features of `train`, tested on `data`, its strength chosen on `validation`.

    Without validation data that is a fifth of the training images, drawn by `seed`. The metric is that of the benchmark
    `dataset` where none is given, or as in ZeroShotTask.
    """

    train: str
    data: str
    validation: str | None = None
    seed: int = 0
    dataset: str | None = None
    metric: Metric | None = None

    @property
    def specs(self) -> tuple[str, ...]:
        """The data specs that the task reads."""
        return (self.data, self.train, *filter(None, (self.validation,)))


@dataclass(frozen=True)
class FewShotTask:
    """Logistic regression on `shots` images of each class of `train`, drawn `seeds` times, tested on `data`.

    The metric is as in LinearProbeTask.
    """

    train: str
    data: str
    shots: tuple[int, ...] = (1, 2, 4, 8, 16)
    seeds: int = 5
    dataset: str | None = None
    metric: Metric | None = None

    @property
    def specs(self) -> tuple[str, ...]:
        """The data specs that the task reads."""
        return (self.data, self.train)


@dataclass(frozen=True)
class RobustnessTask:
    """Zero-shot accuracy on `data` and on `shifts` of it, data specs by name; the rest is as in ZeroShotTask.

    Where a shift's name is a benchmark's, it has that one's classes and, without `templates`, its templates.
    """

    data: str
    shifts: dict[str, str]
    labels: tuple[str, ...] = ()
    templates: tuple[str, ...] = ()
    dataset: str | None = None
    class_names: tuple[str | tuple[str, ...], ...] = ()

    @property
    def specs(self) -> tuple[str, ...]:
        """The data specs that the task reads."""
        return (self.data, *self.shifts.values())


ProbingTask: TypeAlias = ProbeTask | LinearProbeTask | FewShotTask
Task: TypeAlias = ZeroShotTask | RetrievalTask | ProbingTask | RobustnessTask


@dataclass(frozen=True)
class EvaluateConfig:
    """Tasks by name, run every so many steps, or every so many `epochs` where these are given, and at the end.

    Their figures are logged as eval/NAME/FIGURE.
    """

    every: Share = 0.1
    epochs: float | None = None
    zero_shot: dict[str, ZeroShotTask] = field(default_factory=dict)
    retrieval: dict[str, RetrievalTask] = field(default_factory=dict)
    probe: dict[str, ProbeTask] = field(default_factory=dict)
    linear_probe: dict[str, LinearProbeTask] = field(default_factory=dict)
    few_shot: dict[str, FewShotTask] = field(default_factory=dict)
    robustness: dict[str, RobustnessTask] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.epochs is not None and not self.epochs > 0:
            raise UserError(f"config.evaluate.epochs is {self.epochs}; it must be above 0")
        names = [name for _, name in self.tasks]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise UserError(f"config.evaluate has two tasks named '{twice}'; give each its own name")
        for name, task in self.linear_probe.items():
            if task.seed < 0:
                raise UserError(f"config.evaluate.linear_probe.{name}.seed is {task.seed}; it must be 0 or more")
        for name, task in self.few_shot.items():
            where = f"config.evaluate.few_shot.{name}"
            if not task.shots or min(task.shots) < 1:
                raise UserError(f"{where}.shots is {list(task.shots)}; it must be numbers of images, as in [1, 2, 4]")
            if task.seeds < 1:
                raise UserError(f"{where}.seeds is {task.seeds}; it must be at least 1")
        for name, task in self.robustness.items():
            if not task.shifts:
                raise UserError(f"config.evaluate.robustness.{name}.shifts is empty; it must name a shift's data")

    @property
    def tasks(self) -> dict[tuple[str, str], Task]:
        """All tasks by their kind, which is their key here, and name."""
        kinds: dict[str, Mapping[str, Task]] = {
            "zero_shot": self.zero_shot,
            "retrieval": self.retrieval,
            "probe": self.probe,
            "linear_probe": self.linear_probe,
            "few_shot": self.few_shot,
            "robustness": self.robustness,
        }
        return {(kind, name): task for kind, tasks in kinds.items() for name, task in tasks.items()}

    @property
    def data(self) -> list[str]:
        """The data specs of all tasks."""
        return list(dict.fromkeys(spec for task in self.tasks.values() for spec in task.specs))
