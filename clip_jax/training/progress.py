"""What a run shows while it trains: a bar on a terminal, a line now and then in a log file."""

import sys
import time

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 15


class Progress:
    """Steps done, loss, images a second and time left, on standard error; nothing where it is not `shown`."""

    def __init__(self, first_step: int, steps: int, shown: bool = True) -> None:
        self._shown, self._terminal = shown, sys.stderr.isatty()
        hidden = not (shown and self._terminal)
        self._bar = tqdm(initial=first_step, total=steps, unit="step", disable=hidden, dynamic_ncols=True)
        self._first_step, self._steps = first_step, steps
        self._start = time.monotonic()
        self._last_line = 0.0

    def step(self) -> None:
        """One more step is done."""
        self._bar.update()

    def show(self, step: int, loss: float, images_per_second: float) -> None:
        """The figures of the last logged step."""
        self._bar.set_postfix_str(f"loss {loss:.3f}, {images_per_second:.0f} images/s", refresh=False)
        now = time.monotonic()
        if not self._terminal and (now - self._last_line > SECONDS_BETWEEN_LINES or step == self._steps):
            self._last_line = now
            seconds = (now - self._start) / max(step - self._first_step, 1) * (self._steps - step)
            left = tqdm.format_interval(seconds)
            self.say(f"step {step}/{self._steps}: loss {loss:.3f}, {images_per_second:.0f} images/s, {left} left")

    def say(self, line: str) -> None:
        """A line of its own, above the bar."""
        if self._shown:
            tqdm.write(line, file=sys.stderr)

    def close(self) -> None:
        """Ends the line of progress."""
        self._bar.close()
