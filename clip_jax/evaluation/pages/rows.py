"""Records as they are compared: a row a task, dataset and metric, the models beside each other, in groups."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from clip_jax.errors import UserError
from clip_jax.evaluation.benchmark_tables import datasets
from clip_jax.evaluation.pages.words import GROUPS, TASKS, counted, metric_name
from clip_jax.evaluation.record import Record


@dataclass(frozen=True)
class Row:
    """What the models reach in one task on one dataset; a model that was not asked is not among the records."""

    task: str
    dataset: str
    metric: str
    records: dict[str, Record]

    @property
    def title(self) -> str:
        """The benchmark's, or the name that the dataset was given."""
        return datasets()[self.dataset]["title"] if self.dataset in datasets() else self.dataset

    @cached_property
    def kinds(self) -> tuple[str, ...]:
        """The groups that its benchmark is in."""
        return tuple(datasets()[self.dataset]["groups"].split(",")) if self.dataset in datasets() else ()

    @property
    def note(self) -> str:
        """What is measured, and on how many images."""
        limit = [kind for kind in self.kinds if kind not in (*GROUPS, "retrieval")]
        counts = sorted({record.images for record in self.records.values()})
        most = f"{counts[0]:,} to {counted(counts[-1], 'image')}" if len(counts) > 1 else counted(counts[0], "image")
        return ", ".join([*limit, metric_name(self.metric), most])

    @property
    def chance(self) -> float | None:
        """What guessing reaches, as the first record that knows tells it; None where none does."""
        return next((record.chance for record in self.records.values() if record.chance is not None), None)


@dataclass(frozen=True)
class Group:
    """Rows that have an average: of a task and, for zero-shot, of a group of benchmarks."""

    task: str
    name: str
    rows: tuple[Row, ...]

    @property
    def title(self) -> str:
        """The task, and the group of benchmarks where it is one."""
        task = TASKS.get(self.task, self.task)
        return f"{task}, {GROUPS[self.name]}" if self.name else task

    def average(self, model: str, source: str | None = None) -> float | None:
        """A model's mean over the rows that all have, or a source's figure of it; None where one of them is missing."""
        found = [_figure(row, model, source) for row in self.shared]
        known = [figure for figure in found if figure is not None]
        return float(np.mean(known)) if found and len(known) == len(found) else None

    @cached_property
    def shared(self) -> tuple[Row, ...]:
        """The rows that all models have of those that have any."""
        models = {model for row in self.rows for model in row.records}
        return tuple(row for row in self.rows if models <= row.records.keys())


@dataclass(frozen=True)
class Comparison:
    """All that a page shows."""

    models: tuple[str, ...]
    rows: tuple[Row, ...]

    def of(self, task: str) -> tuple[Row, ...]:
        """A task's rows."""
        return tuple(row for row in self.rows if row.task == task)

    @cached_property
    def records(self) -> tuple[Record, ...]:
        """The records of all rows and models."""
        return tuple(record for row in self.rows for record in row.records.values())

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """In the order of the page. A benchmark among the paper's and among the limits is in both."""
        found = []
        for task in dict.fromkeys(row.task for row in self.rows):
            rows = self.of(task)
            if task != "zero-shot":
                found.append(Group(task, "", rows))
                continue
            for name in GROUPS:
                inside = tuple(row for row in rows if name in (row.kinds if _is_grouped(row) else ("other",)))
                found += [Group(task, name, inside)] if inside else []
        return tuple(found)


def compare(records: Sequence[Record]) -> Comparison:
    """Raises UserError for no records, and for two of one model in one task on one dataset."""
    if not records:
        raise UserError("there are no results to show on a page; evaluate a model first")
    rows: dict[tuple[str, str, str], dict[str, Record]] = {}
    for record in records:
        beside = rows.setdefault((record.task, record.dataset, record.metric), {})
        if record.model in beside:
            what = f"{record.task} of {record.model} on {record.dataset}"
            raise UserError(f"there are two results of {what}; a page shows one of each")
        beside[record.model] = record
    found = [Row(*key, beside) for key, beside in rows.items()]
    return Comparison(tuple(dict.fromkeys(record.model for record in records)), tuple(sorted(found, key=_place)))


def _place(row: Row) -> tuple[int, int]:
    """Tasks in their order, in them benchmarks in theirs, then what else there is as it came."""
    tasks, names = list(TASKS), list(datasets())
    return (
        tasks.index(row.task) if row.task in tasks else len(tasks),
        names.index(row.dataset) if row.dataset in names else len(names),
    )


def _is_grouped(row: Row) -> bool:
    return not GROUPS.keys().isdisjoint(row.kinds)


def _figure(row: Row, model: str, source: str | None) -> float | None:
    record = row.records.get(model)
    if record is None:
        return None
    return record.figure if source is None else record.published.get(source)
