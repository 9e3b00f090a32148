"""A suite: many datasets and several models, each result kept as it comes, so that what was stopped goes on."""

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import jax

from clip_jax.clip import Clip
from clip_jax.data.fingerprint import fingerprint
from clip_jax.data.spec import open_table
from clip_jax.data.table import Table
from clip_jax.errors import UserError
from clip_jax.evaluation.benchmarks import Benchmark, get_benchmark, list_benchmarks
from clip_jax.evaluation.feature_store import VERSION, fingerprint_of, fingerprint_of_texts
from clip_jax.evaluation.features import embed_table
from clip_jax.evaluation.question import Question, ask
from clip_jax.evaluation.record import Record, read_record, write_record
from clip_jax.evaluation.tasks import Subject, retrieval_record, zero_shot_record
from clip_jax.processes import from_first, is_first, of_all
from clip_jax.schema import nearest

GROUPS = ("paper", "shifts", "limits", "retrieval")
SPLITS = ("test", "val", "validation")


@dataclass(frozen=True)
class Entry:
    """A dataset of a suite: its name, where its data are, and the benchmark that it is, if it is one."""

    name: str
    data: str
    benchmark: Benchmark | None = None

    @property
    def task(self) -> str:
        """What is asked of a model: retrieval where the benchmark is for that, else zero-shot classification."""
        return "retrieval" if self.benchmark and self.benchmark.metric == "mean_recall_at_1" else "zero-shot"


@dataclass(frozen=True)
class Outcome:
    """What became of a model on a dataset: a record, or why there is none. `seconds` is None for one that was kept."""

    model: str
    entry: Entry
    record: Record | None
    problem: str = ""
    seconds: float | None = None


def chosen(names: Sequence[str]) -> list[str]:
    """Names of datasets, groups replaced by what is in them. Raises UserError where one is neither."""
    found: dict[str, None] = {}
    known = list_benchmarks()
    for name in names:
        if name not in GROUPS and name not in known:
            raise UserError(f"there is no dataset '{name}'; {nearest(name, [*GROUPS, *known])}")
        found |= dict.fromkeys(list_benchmarks(name) if name in GROUPS else [name])
    return list(found)


def find_data(names: Sequence[str], given: Mapping[str, str], root: Path | None) -> tuple[list[Entry], list[str]]:
    """The datasets whose data are known, and the names of those whose are not.

    `given` has the data spec of some by name, benchmarks or any others. The rest are looked for below `root`: in
    NAME/test or NAME, or under the name of CLIP_benchmark's repository; and then as prepared by tfds there.
    """
    benchmarks = set(list_benchmarks())
    entries = [Entry(name, data, get_benchmark(name) if name in benchmarks else None) for name, data in given.items()]
    missing = []
    for name in names:
        if name in given:
            continue
        benchmark = get_benchmark(name)
        data = _below(root, benchmark) if root else None
        if data:
            entries.append(Entry(name, data, benchmark))
        else:
            missing.append(name)
    return entries, missing


def _below(root: Path, benchmark: Benchmark) -> str | None:
    """The data spec of a benchmark's data below a folder."""
    repository = (benchmark.webdataset or "").rpartition("/")[2]
    for name in filter(None, (benchmark.name, repository, repository.removeprefix("wds_"))):
        for folder in (*(root / name / split for split in (benchmark.split, *SPLITS)), root / name):
            if folder.is_dir() and any(folder.iterdir()):
                return str(folder)
    if benchmark.tfds and (root / benchmark.tfds.removeprefix("tfds:").partition("?")[0].partition("/")[0]).is_dir():
        return f"{benchmark.tfds}{'&' if '?' in benchmark.tfds else '?'}data_dir={root}"
    return None


def run_suite(
    models: Sequence[str],
    load: Callable[[str], Clip],
    entries: Sequence[Entry],
    out: Path,
    batch_size: int = 64,
    cache: Path | None = None,
) -> Iterator[Outcome]:
    """Evaluates every model on every dataset, and gives each outcome as it comes.

    Records are kept as out/MODEL/DATASET.json; one that is there already is taken where it was made from the same
    model, data and prompts. A dataset at fault is an outcome with a problem, and the others go on. Raises UserError
    where a model cannot be loaded, or nothing can be written. All processes call it together; the first one keeps the
    records.
    """
    for model in dict.fromkeys(models):
        clip = load(model)
        for entry in entries:
            start = time.monotonic()
            try:
                asked = _ask(entry)
                problem = ""
            except UserError as error:
                asked, problem = None, str(error)
            problem = next(filter(None, of_all(problem)), "")  # all go on to the next, or none
            if asked is None or problem:
                yield Outcome(model, entry, None, problem, time.monotonic() - start)
                continue
            subject = Subject(clip, model, entry.name, entry.data, entry.benchmark, cache)
            path = out / slug(model) / f"{slug(entry.name)}.json"
            made_from = _made_from(clip, entry, *asked)
            kept = _kept(path, made_from) if is_first() else None
            if from_first(int(kept is not None)):
                yield Outcome(model, entry, kept)
                continue
            try:
                record = _evaluate(subject, asked, batch_size)
            except UserError as error:
                if jax.process_count() > 1:  # the others are in the midst of it
                    raise
                yield Outcome(model, entry, None, str(error), time.monotonic() - start)
                continue
            record = replace(record, details=record.details | {"made_from": made_from})
            if is_first():
                write_record(path, record)
            yield Outcome(model, entry, record, seconds=time.monotonic() - start)


def slug(name: str) -> str:
    """A name that a file can have."""
    return re.sub(r"[^\w.-]+", "_", name.strip("/")) or "_"


def _ask(entry: Entry) -> tuple[Table, Question | None]:
    """The opened data, and what they ask where that is classification. Raises UserError."""
    table = open_table(entry.data)
    return table, None if entry.task == "retrieval" else ask(table, entry.benchmark)


def _made_from(clip: Clip, entry: Entry, table: Table, question: Question | None) -> str:
    """A digest of all that a result depends on: model, data, classes, templates and metric."""
    words = question and [question.classes, question.class_of.tolist(), question.templates, question.metric]
    digest = fingerprint_of_texts([fingerprint(table, entry.data), entry.task, json.dumps(words), str(VERSION)])
    return fingerprint_of(clip, "visual")[:12] + fingerprint_of(clip, "text")[:12] + digest


def _kept(path: Path, made_from: str) -> Record | None:
    """The record of an earlier call, if it was made from the same."""
    try:
        record = read_record(path) if path.is_file() else None
    except UserError:
        return None
    return record if record and record.details.get("made_from") == made_from else None


def _evaluate(subject: Subject, asked: tuple[Table, Question | None], batch_size: int) -> Record:
    table, question = asked
    features = embed_table(subject.clip, table, batch_size, subject.cache, subject.data)
    return retrieval_record(subject, features) if question is None else zero_shot_record(subject, features, question)
