"""What a run saves beside its state, when minutes have passed since it last did, and which checkpoint is its best."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from etils import epath

from clip_jax.processes import from_first, is_first
from clip_jax.training.agreement import Vote
from clip_jax.training.config import CheckpointConfig
from clip_jax.training.state import TrainState
from clip_jax.weights.orbax_checkpoints import RESULTS, CheckpointWriter


class Checkpoints:
    """Saves the states of one run behind its back. All processes save together, at the same steps."""

    def __init__(self, config: CheckpointConfig, folder: Path | epath.Path, description: Mapping[str, Any]) -> None:
        self._best, self._minutes, self._description = config.best, config.minutes, description
        self._writer = CheckpointWriter(folder, config.keep, config.best)
        self._since = time.monotonic()

    def vote(self) -> Vote:
        """SAVE where the minutes have passed, which the first process says for all, and only once."""
        if self._minutes is None or not is_first() or time.monotonic() - self._since < 60 * self._minutes:
            return Vote.GO_ON
        self._since = time.monotonic()
        return Vote.SAVE

    def save(self, step: int, state: TrainState, results: Mapping[str, float]) -> None:
        """Begins to save the state, once the one before is there, with what the first process's evaluation of it gave.

        The arrays may be donated as soon as it returns. Raises UserError where the one before could not be written.
        """
        description = dict(self._description)
        if self._best is not None:
            value = from_first(float(results.get(self._best, np.nan)))
            if not np.isnan(value):
                description[RESULTS] = {self._best: value}
        self._writer.save(step, state, description)
        self._since = time.monotonic()

    def wait(self) -> None:
        """Returns once the last checkpoint is there. Raises UserError where it could not be written."""
        self._writer.wait()

    def close(self) -> None:
        """Waits for what is being written, and says nothing."""
        self._writer.close()
