"""The log of a run: metrics.jsonl, one JSON object a line, and the same figures for TensorBoard."""

import json
import math
import os
from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter

FILE = "metrics.jsonl"


def read_metrics(workdir: Path) -> list[dict[str, Any]]:
    """The logged lines, without a last one that was torn when the run was killed."""
    path = workdir / FILE
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
    """Appends to metrics.jsonl and to TensorBoard files, from `resumed_step` on.

    Lines of later steps, written before the run was killed, are dropped: those steps run again. Where several
    processes train, only one of them `writes`.
    """

    def __init__(self, workdir: Path, resumed_step: int, tensorboard: bool, writes: bool = True) -> None:
        self._file = self._board = None
        if not writes:
            return
        path = workdir / FILE
        kept = [line for line in read_metrics(workdir) if line["step"] <= resumed_step]
        partial = path.with_suffix(".partial")
        partial.write_text("".join(f"{json.dumps(line)}\n" for line in kept), encoding="utf-8")
        os.replace(partial, path)
        self._file = path.open("a", encoding="utf-8")
        if tensorboard:
            self._board = SummaryWriter(str(workdir / "tensorboard"), purge_step=resumed_step + 1)

    def write(self, step: int, figures: dict[str, Any]) -> None:
        """Logs the figures of one step, `step` being the number of updates made.

        Figures that are no numbers, as of an update that was left out, are not logged: JSON has none.
        """
        figures = {name: value for name, value in figures.items() if isinstance(value, str) or math.isfinite(value)}
        if self._file:
            self._file.write(json.dumps({"step": step, **figures}) + "\n")
            self._file.flush()
        if self._board:
            for name, value in figures.items():
                if not isinstance(value, str):
                    self._board.add_scalar(name, value, step)

    def close(self) -> None:
        if self._file:
            self._file.close()
        if self._board:
            self._board.close()
