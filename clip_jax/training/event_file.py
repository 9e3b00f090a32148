"""TensorBoard's file of a run's figures."""

import socket
import time
from collections.abc import Mapping
from pathlib import Path

from tensorboardX.proto.event_pb2 import Event, SessionLog  # pyright: ignore[reportAttributeAccessIssue]
from tensorboardX.record_writer import RecordWriter
from tensorboardX.summary import scalar

SECONDS_BETWEEN_WRITES = 30


class EventFile:
    """A new event file in `folder`, for the steps after `resumed_step`, of which others there no longer count.

    The caller itself writes, and gets the OSError of a disk that is full. tensorboardX's SummaryWriter leaves it to a
    thread that would die of it unheard, and for which the next to write would wait for ever.
    """

    def __init__(self, folder: Path, resumed_step: int) -> None:
        folder.mkdir(exist_ok=True)
        self._records = RecordWriter(str(folder / f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}"))
        self._add(Event(file_version="brain.Event:2"))
        self._add(Event(step=resumed_step + 1, session_log=SessionLog(status=SessionLog.START)))
        self._flushed = time.monotonic()

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        """Adds the figures of a step; now and then the file goes to the disk."""
        for name, value in figures.items():
            self._add(Event(step=step, summary=scalar(name, value)))
        if time.monotonic() - self._flushed > SECONDS_BETWEEN_WRITES:
            self.flush()

    def flush(self) -> None:
        """Writes what is held back."""
        self._records.flush()
        self._flushed = time.monotonic()

    def close(self) -> None:
        """Writes what is held back, and ends the file."""
        self._records.close()

    def _add(self, event: Event) -> None:
        event.wall_time = time.time()
        self._records.write(event.SerializeToString())
