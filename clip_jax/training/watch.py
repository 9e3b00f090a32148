"""Looking at every update as soon as that costs no time: a run that diverged ends at once."""

import math
from collections.abc import Mapping
from typing import Any

from clip_jax.errors import UserError

MOST_LEFT_OUT = 20  # updates in a row whose loss is no number


class Watch:
    """Looks at each update one update late, so that the device always has one to do, and ends a run that diverged.

    It also keeps the host from running further ahead, which would take the loader's whole stock to the device.
    """

    def __init__(self) -> None:
        self._latest: tuple[int, Mapping[str, Any]] | None = None
        self._left_out = 0

    def follow(self, step: int, figures: Mapping[str, Any]) -> None:
        """Takes note of an update that has begun, once the one before has ended. Raises as `settle` does."""
        self.settle()
        self._latest = step, figures

    def settle(self) -> None:
        """Waits for the latest update. Raises UserError where its loss or gradients are no numbers.

        Such updates are left out where the config says so, but not many of them in a row.
        """
        if self._latest is None:
            return
        (step, figures), self._latest = self._latest, None
        values = {name: float(figures[name]) for name in ("loss", "gradient_norm")}
        wrong = [name for name, value in values.items() if not math.isfinite(value)]
        self._left_out = self._left_out + 1 if wrong else 0
        if wrong and ("skipped_updates" not in figures or self._left_out > MOST_LEFT_OUT):
            raise UserError(f"the {wrong[0]} is {values[wrong[0]]} at step {step}; try a lower optimizer.learning_rate")
