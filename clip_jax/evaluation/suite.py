"""A suite: many tasks, datasets and models, each result kept as it comes, so that what was stopped goes on."""

import hashlib
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import jax

from clip_jax.clip import Clip
from clip_jax.errors import UserError
from clip_jax.evaluation.jobs import Job, Settings, do, made_from, open_job
from clip_jax.evaluation.record import Record, read_record, write_record
from clip_jax.evaluation.tasks import Subject
from clip_jax.processes import from_first, is_first, of_all


@dataclass(frozen=True)
class Outcome:
    """What became of a model's job: a record, or why there is none. `seconds` is None for one that was kept."""

    model: str
    job: Job
    record: Record | None
    problem: str = ""
    seconds: float | None = None


def run_suite(
    models: Sequence[str],
    load: Callable[[str], Clip],
    jobs: Sequence[Job],
    out: Path,
    settings: Settings,
    batch_size: int = 64,
    cache: Path | None = None,
) -> Iterator[Outcome]:
    """Does every job with every model, and gives each outcome as it comes.

    Records are kept as out/MODEL/TASK/DATASET.json; one that is there already is taken where it was made from the same
    model, data, prompts and settings. A dataset at fault is an outcome with a problem, and the others go on. Raises
    UserError where a model cannot be loaded, or nothing can be written. All processes call it together; the first one
    keeps the records.
    """
    if is_first():
        _check_writable(out)
    for model in dict.fromkeys(models):
        clip = load(model)
        for job in jobs:
            start, of = time.monotonic(), job.dataset
            try:
                opened, problem = open_job(job), ""
            except UserError as error:
                opened, problem = None, str(error)
            problem = next(filter(None, of_all(problem)), "")  # all go on to the next, or none
            if opened is None or problem:
                yield Outcome(model, job, None, problem, time.monotonic() - start)
                continue
            subject = Subject(clip, model, of.name, of.data, of.benchmark, cache)
            path = out / slug(model) / job.task / f"{slug(of.name)}.json"
            digest = made_from(subject, opened, settings)
            kept = _kept(path, digest) if is_first() else None
            if from_first(int(kept is not None)):
                yield Outcome(model, job, kept)
                continue
            try:
                record = do(subject, opened, settings, batch_size)
            except UserError as error:
                if jax.process_count() > 1:  # the others are in the midst of it
                    raise
                yield Outcome(model, job, None, str(error), time.monotonic() - start)
                continue
            record = replace(record, details=record.details | {"made_from": digest})
            if is_first():
                write_record(path, record)
            yield Outcome(model, job, record, seconds=time.monotonic() - start)


def slug(name: str) -> str:
    """A name that a file can have, another for every name."""
    plain = re.sub(r"[^\w.-]+", "_", name.strip("/"))
    if plain == name and plain.strip("."):
        return plain
    return f"{plain.strip('.')}-{hashlib.blake2b(name.encode(), digest_size=4).hexdigest()}"


def _check_writable(out: Path) -> None:
    """Raises UserError where nothing can be written below `out`."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise UserError(f"cannot write to {out}: {error.strerror}") from error


def _kept(path: Path, digest: str) -> Record | None:
    """The record of an earlier call, if it was made from the same."""
    try:
        record = read_record(path) if path.is_file() else None
    except UserError:
        return None
    return record if record and record.details.get("made_from") == digest else None
