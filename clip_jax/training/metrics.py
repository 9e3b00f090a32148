"""The log of a run: metrics.jsonl, one JSON object a line, and the same figures for TensorBoard.

Files in buckets cannot be appended to. There, each attempt at the run writes one of its own, metrics-STEP.jsonl with
the step that it went on from, anew every half a minute and with each checkpoint.
"""

import json
import math
import re
import time
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from etils import epath

from clip_jax.errors import IOFailure, UserError
from clip_jax.training.event_file import EventFile
from clip_jax.training.storage import one_line

FILE = "metrics.jsonl"
ATTEMPT = re.compile(r"metrics-(\d+)\.jsonl")
SECONDS_BETWEEN_WRITES = 30


def metrics_files(workdir: Path | epath.Path) -> list[str]:
    """The names of the files that hold the log. Raises IOFailure."""
    with _reading(workdir):
        several = [f"metrics-{step}.jsonl" for step, _ in _attempts(workdir)]
        return ([FILE] if (workdir / FILE).exists() else []) + several


def read_metrics(workdir: Path | epath.Path) -> list[dict[str, Any]]:
    """The logged lines, without a last one that was torn when the run was killed; of an attempt, up to the next one.

    Raises IOFailure where they cannot be read.
    """
    with _reading(workdir):
        lines = _read_lines(workdir / FILE)
        for resumed_step, path in _attempts(workdir):
            lines = [line for line in lines if line["step"] <= resumed_step] + _read_lines(path)
    return lines


def _reading(workdir: Path | epath.Path) -> AbstractContextManager[None]:
    return one_line(workdir, f"read the metrics in {workdir}")


def _attempts(workdir: Path | epath.Path) -> list[tuple[int, Path | epath.Path]]:
    """The files of the attempts in a bucket, by the step that each went on from."""
    paths = workdir.iterdir() if workdir.is_dir() else ()
    return sorted((int(match[1]), path) for path in paths if (match := ATTEMPT.fullmatch(path.name)))


def _read_lines(path: Path | epath.Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    lines = []
    for line in path.read_bytes().split(b"\n"):
        try:
            lines.append(json.loads(line))
        except ValueError:  # an empty end, or a torn line, which only the last can be
            break
    return lines


class MetricsLog:
    """Appends to metrics.jsonl and to TensorBoard files (on a disk), from `resumed_step` on.

    Lines of later steps, written before the run was killed, are dropped: those steps run again. Where several
    processes train, only one of them `writes`. Raises IOFailure where they cannot be written.
    """

    def __init__(self, workdir: Path | epath.Path, resumed_step: int, tensorboard: bool, writes: bool = True) -> None:
        self._workdir = workdir
        self._file = self._board = None
        if not writes:
            return
        if tensorboard and not isinstance(workdir, Path):
            warnings.warn(f"no TensorBoard files are written to {workdir}, only metrics-STEP.jsonl", stacklevel=2)
        with self._writing():
            if isinstance(workdir, Path):
                self._file = _begin_file(workdir, resumed_step)
                if tensorboard:
                    self._board = EventFile(workdir / "tensorboard", resumed_step)
            else:
                for step, path in _attempts(workdir):
                    if step > resumed_step:  # the run has gone back behind it
                        path.unlink()
                self._file = _BucketFile(workdir / f"metrics-{resumed_step}.jsonl")

    def write(self, step: int, figures: dict[str, Any]) -> None:
        """Logs the figures of one step, `step` being the number of updates made. Raises IOFailure.

        Figures that are no numbers, as of an update that was left out, are not logged: JSON has none.
        """
        figures = {name: value for name, value in figures.items() if isinstance(value, str) or math.isfinite(value)}
        with self._writing():
            if self._file:
                self._file.write(json.dumps({"step": step, **figures}) + "\n")
                self._file.flush()
            if self._board:
                self._board.write(step, {name: v for name, v in figures.items() if not isinstance(v, str)})

    def keep(self) -> None:
        """Sees to it that what was logged so far outlives the process; to be called before a checkpoint is saved.

        Raises IOFailure.
        """
        with self._writing():
            if isinstance(self._file, _BucketFile):
                self._file.save()
            if self._board:
                self._board.flush()

    def close(self) -> None:
        """Ends the files, and says nothing: what must not be lost, `keep` has kept, and a failure was told of."""
        for file in (self._file, self._board):
            if file:
                with suppress(Exception):
                    file.close()
        self._file = self._board = None

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """After a failure nothing more is written."""
        try:
            with one_line(self._workdir, "write the metrics"):
                yield
        except UserError:
            self.close()
            raise


def _begin_file(workdir: Path, resumed_step: int) -> IO[str]:
    """metrics.jsonl with the lines up to a step, to append to."""
    path = workdir / FILE
    kept = [line for line in read_metrics(workdir) if line["step"] <= resumed_step]
    partial = path.with_suffix(".partial")
    partial.write_text("".join(f"{json.dumps(line)}\n" for line in kept), encoding="utf-8")
    partial.replace(path)
    return path.open("a", encoding="utf-8")


class _BucketFile:
    """A file that is held in memory, and written as a whole now and then."""

    def __init__(self, path: epath.Path) -> None:
        self._path, self._lines = path, []
        self.save()

    def write(self, line: str) -> None:
        self._lines.append(line)

    def flush(self) -> None:
        """Writes it where that is due; a bucket that fails now may answer the next time."""
        if time.monotonic() - self._saved > SECONDS_BETWEEN_WRITES:
            self._saved = time.monotonic()
            try:
                with one_line(self._path, "write the metrics"):
                    self.save()
            except IOFailure as failure:
                warnings.warn(f"{failure}; they are written again later", stacklevel=2)

    def save(self) -> None:
        self._path.write_text("".join(self._lines))
        self._saved = time.monotonic()

    def close(self) -> None:
        self.save()
