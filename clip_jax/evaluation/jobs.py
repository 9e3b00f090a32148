"""Jobs: a task on a dataset as a suite does it, from what has to be opened to the record."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from clip_jax.data.fingerprint import fingerprint
from clip_jax.data.spec import open_table
from clip_jax.data.table import Table
from clip_jax.errors import UserError
from clip_jax.evaluation.datasets import Dataset
from clip_jax.evaluation.feature_store import VERSION, fingerprint_of, fingerprint_of_texts
from clip_jax.evaluation.features import Features, embed_table
from clip_jax.evaluation.probes.records import few_shot_record, linear_probe_record
from clip_jax.evaluation.question import IMAGENET, Question, ask
from clip_jax.evaluation.record import Record
from clip_jax.evaluation.robustness import Baseline, Shift, robustness_record
from clip_jax.evaluation.tasks import Subject, retrieval_record, zero_shot_record
from clip_jax.schema import nearest

TASKS = ("zero-shot", "retrieval", "linear-probe", "few-shot", "robustness")
PROBES = ("linear-probe", "few-shot")


@dataclass(frozen=True)
class Settings:
    """What the tasks leave open: `seed` draws the linear probe's validation images, few-shot has `shots` and `seeds`.

    With `wording`, zero-shot tells of each template by itself. `baselines` are those of robustness.
    """

    seed: int = 0
    shots: tuple[int, ...] = (1, 2, 4, 8, 16)
    seeds: int = 5
    wording: bool = False
    baselines: tuple[Baseline, ...] = ()


@dataclass(frozen=True)
class Job:
    """A task on a dataset; robustness has its shifts beside."""

    task: str
    dataset: Dataset
    shifts: tuple[Dataset, ...] = ()

    @property
    def specs(self) -> dict[str, str]:
        """The data specs that the task reads, `data` and what there is besides."""
        data = self.dataset
        parts = {"train": data.train} if self.task in PROBES else {}
        parts |= {"validation": data.validation} if self.task == "linear-probe" else {}
        parts |= {shift.name: shift.data for shift in self.shifts}
        return {"data": data.data} | {part: spec for part, spec in parts.items() if spec}


@dataclass(frozen=True)
class Opened:
    """A job's tables, as named in `Job.specs`, and what they ask, which retrieval has no use for."""

    job: Job
    tables: dict[str, Table]
    questions: dict[str, Question]


def jobs_of(datasets: Sequence[Dataset], tasks: Sequence[str] = ()) -> tuple[list[Job], list[str]]:
    """The jobs of a suite, and what it leaves out, in words.

    Without `tasks`, retrieval where the benchmark is for that, else zero-shot. Probes need training data; robustness
    is that of ImageNet under those of its shifts that are among the datasets. Raises UserError for a task that is none.
    """
    for task in tasks:
        if task not in TASKS:
            raise UserError(f"there is no task '{task}'; {nearest(task, TASKS)}")
    jobs, left_out = [], []
    for task in TASKS:
        if task == "robustness" and task in tasks:
            shifts = tuple(one for one in datasets if one.benchmark and "shifts" in one.benchmark.groups)
            bases = [one for one in datasets if one.name == IMAGENET]
            jobs += [Job(task, base, shifts) for base in bases if shifts]
            left_out += [] if bases and shifts else [f"robustness: needs {IMAGENET} and a shift of it"]
            continue
        for dataset in datasets:
            if task not in (tasks or ("retrieval" if dataset.is_retrieval else "zero-shot",)):
                continue
            if dataset.is_retrieval != (task == "retrieval") and dataset.benchmark:
                continue
            if task in PROBES and not dataset.train:
                left_out.append(f"{task} of {dataset.name}: no training data found")
            else:
                jobs.append(Job(task, dataset))
    used = {one.name for job in jobs for one in (job.dataset, *job.shifts)}
    for dataset in datasets:
        if dataset.name not in used and (dataset.train or not {*tasks} & {*PROBES}):
            left_out.append(f"{dataset.name}: none of the tasks is for it")
    return jobs, left_out


def open_job(job: Job) -> Opened:
    """Opens what a job reads. Raises UserError where the data is at fault, or does not go with the benchmark."""
    tables = {part: open_table(spec) for part, spec in job.specs.items()}
    asked = {"data": job.dataset} | {shift.name: shift for shift in job.shifts}
    questions = {} if job.task == "retrieval" else {part: ask(tables[part], asked[part].benchmark) for part in asked}
    return Opened(job, tables, questions)


def made_from(subject: Subject, opened: Opened, settings: Settings) -> str:
    """A digest of all that a result depends on: model, data, classes, templates, metric and settings."""
    words = {
        part: [one.classes, one.class_of.tolist(), one.templates, one.metric] for part, one in opened.questions.items()
    }
    data = [fingerprint(opened.tables[part], spec) for part, spec in opened.job.specs.items()]
    how = json.dumps([opened.job.task, list(opened.tables), words, _used(opened.job.task, settings), VERSION])
    towers = (fingerprint_of(subject.clip, "visual")[:12], fingerprint_of(subject.clip, "text")[:12])
    return "".join(towers) + fingerprint_of_texts([*data, how])


def do(subject: Subject, opened: Opened, settings: Settings, batch_size: int) -> Record:
    """The record of a job. All processes call it together. Raises UserError as the tasks do."""
    job, questions = opened.job, opened.questions

    def embedded(part: str) -> Features:
        return embed_table(subject.clip, opened.tables[part], batch_size, subject.cache, job.specs[part])

    found = {part: embedded(part) for part in job.specs}
    match job.task:
        case "zero-shot":
            return zero_shot_record(subject, found["data"], questions["data"], settings.wording)
        case "retrieval":
            return retrieval_record(subject, found["data"])
        case "linear-probe":
            splits = found["train"], found.get("validation"), found["data"]
            return linear_probe_record(subject, questions["data"], *splits, settings.seed)
        case "few-shot":
            seeds = tuple(range(settings.seeds))
            return few_shot_record(subject, questions["data"], found["train"], found["data"], settings.shots, seeds)
        case _:
            shifts = {one.name: Shift(found[one.name], questions[one.name], one.benchmark) for one in job.shifts}
            return robustness_record(subject, found["data"], questions["data"], shifts, settings.baselines)


def _used(task: str, settings: Settings) -> Mapping[str, object]:
    """The settings that a task heeds."""
    names = {
        "zero-shot": ("wording",),
        "linear-probe": ("seed",),
        "few-shot": ("shots", "seeds"),
        "robustness": ("baselines",),
    }
    return {name: value for name, value in asdict(settings).items() if name in names.get(task, ())}
