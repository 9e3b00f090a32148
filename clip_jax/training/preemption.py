"""A run that is asked to end: by SIGTERM, as where its machine is taken away, or by Ctrl-C."""

import os
import signal
import threading
from types import FrameType

EX_TEMPFAIL = 75  # of sysexits.h: try again later


class Stopped(SystemExit):
    """The run has ended before its last step as it was asked to, its state saved: the same command goes on from there.

    Left alone, it ends the process with code 75, by which a scheduler knows to put the job back in its queue.
    """

    def __init__(self) -> None:
        super().__init__(EX_TEMPFAIL)


class StopSignals:
    """Takes SIGTERM and SIGINT as a wish to stop after the running step, until it is closed.

    A second one ends the process at once. Outside of the main thread, which alone gets signals, it takes none.
    """

    def __init__(self) -> None:
        self.received: str | None = None
        """The name of the signal that came, if one did."""
        self._before = {}
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)}

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number).name
        # Not by print: the signal may have come amid another one.
        os.write(2, f"clip-jax: {self.received}: ends once its state is saved; a second one ends it at once\n".encode())
        for each in self._before:
            signal.signal(each, signal.SIG_DFL)

    def close(self) -> None:
        """What the signals did before, they do again."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
