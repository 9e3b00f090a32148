"""What an evaluation found, as it is printed, kept as JSON and shown on a page."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from clip_jax.data.table import BadSample
from clip_jax.errors import UserError
from clip_jax.schema import parse
from clip_jax.whole_file import write_output

SHOWN_BAD = 20


@dataclass(frozen=True)
class Record:
    """One model's result in one task on one dataset; figures are from 0 to 1.

    `metric` names the main one of `figures`, `interval` is where 95 % of it lie when images are resampled. `chance` is
    what guessing reaches and `published` what others did, by source; `remarks` tell where the data may not be those of
    such figures. `left_out` counts the images that could not be used, of which `bad` has the first as [key, reason].
    `details` are the task's own: tables and curves.
    """

    task: str
    model: str
    dataset: str
    data: str
    metric: str
    figures: dict[str, float]
    images: int
    interval: tuple[float, float] | None = None
    chance: float | None = None
    published: dict[str, float] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    left_out: int = 0
    bad: tuple[tuple[str, str], ...] = ()
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def figure(self) -> float:
        """The main figure."""
        return self.figures[self.metric]


def shown_bad(bad: Sequence[BadSample]) -> tuple[tuple[str, str], ...]:
    """The first of them, as `Record.bad` has them."""
    return tuple((one.key, one.reason) for one in bad[:SHOWN_BAD])


def write_record(path: Path, record: Record) -> None:
    """Writes a record whole or not at all. Raises UserError where that fails."""
    write_output(path, json.dumps(asdict(record), indent=2) + "\n")


def read_record(path: Path) -> Record:
    """Raises UserError for a file that is no record."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path} as a result: {error}") from error
    return parse(Record, values, str(path))
