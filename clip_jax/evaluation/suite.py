"""A suite: many datasets and several models, each result kept as it comes, so that what was stopped goes on."""

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from clip_jax.clip import Clip
from clip_jax.data.spec import open_table
from clip_jax.errors import UserError
from clip_jax.evaluation.benchmarks import Benchmark, get_benchmark, list_benchmarks
from clip_jax.evaluation.feature_store import fingerprint_of
from clip_jax.evaluation.features import embed_table
from clip_jax.evaluation.question import ask
from clip_jax.evaluation.record import Record, read_record, write_record
from clip_jax.evaluation.tasks import Subject, retrieval_record, zero_shot_record
from clip_jax.processes import everywhere, is_first

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
    for name in names:
        members = list_benchmarks(name) if name in GROUPS else [get_benchmark(name).name]
        found |= dict.fromkeys(members)
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

    Records are kept as out/MODEL/DATASET.json; one that is there already is taken where model and data are the same. A
    dataset at fault is an outcome with a problem, and the others go on. Raises UserError where a model cannot be
    loaded, or nothing can be written. All processes call it together.
    """
    for model in models:
        clip = load(model)
        made_by = fingerprint_of(clip, "visual") + fingerprint_of(clip, "text")
        for entry in entries:
            path = out / slug(model) / f"{slug(entry.name)}.json"
            kept = _kept(path, entry, made_by)
            if everywhere(kept is not None):
                yield Outcome(model, entry, kept)
                continue
            start = time.monotonic()
            try:
                subject = Subject(clip, model, entry.name, entry.data, entry.benchmark, cache)
                record = _evaluate(subject, entry, batch_size)
            except UserError as error:
                yield Outcome(model, entry, None, str(error), time.monotonic() - start)
                continue
            record = replace(record, details=record.details | {"made_by": made_by})
            if is_first():
                write_record(path, record)
            yield Outcome(model, entry, record, seconds=time.monotonic() - start)


def slug(name: str) -> str:
    """A name that a file can have."""
    return re.sub(r"[^\w.-]+", "_", name.strip("/")) or "_"


def _kept(path: Path, entry: Entry, made_by: str) -> Record | None:
    if not path.is_file():
        return None
    try:
        record = read_record(path)
    except UserError:
        return None
    same = record.data == entry.data and record.details.get("made_by") == made_by
    return record if same else None


def _evaluate(subject: Subject, entry: Entry, batch_size: int) -> Record:
    table = open_table(entry.data)
    question = None if entry.task == "retrieval" else ask(table, entry.benchmark)  # before the long work
    features = embed_table(subject.clip, table, batch_size, subject.cache, entry.data)
    return retrieval_record(subject, features) if question is None else zero_shot_record(subject, features, question)
