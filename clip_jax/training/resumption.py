"""Where a run goes on: from the newest checkpoint that every process can read."""

import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from etils import epath

from clip_jax.errors import IOFailure, UserError
from clip_jax.processes import everywhere, from_first, is_first, wait_for_all
from clip_jax.training.state import TrainState
from clip_jax.training.storage import one_line
from clip_jax.weights import orbax_checkpoints
from clip_jax.weights.orbax_checkpoints import complete_steps, none_readable

DAMAGED = "DAMAGED-"
PAUSES = (1.0, 4.0)  # seconds before a checkpoint that cannot be read is read again
T = TypeVar("T")


class Resumption:
    """Reads the newest checkpoint of `folder`, or where it is damaged, the one before.

    Once an older one has been read, those that could not be are renamed to DAMAGED-STEP with a warning, so that their
    steps can be saved again. All processes call it together.
    """

    def __init__(self, folder: Path | epath.Path) -> None:
        self._folder = folder
        self._failures: dict[int, UserError] = {}

    def describe(self) -> tuple[int, dict[str, Any]]:
        """The step to go on from and its description; 0 and an empty one where there is no checkpoint.

        Raises UserError where there are checkpoints and none can be read; IOFailure where that says nothing of them.
        """
        return self._newest(lambda step: orbax_checkpoints.describe(self._folder, step)) or (0, {})

    def restore(self, abstract_state: TrainState) -> tuple[int, TrainState]:
        """The step to go on from and its state, laid out as `abstract_state`. Raises UserError, as `describe`."""
        found = self._newest(lambda step: orbax_checkpoints.restore(self._folder, step, abstract_state))
        if found is None:
            raise UserError(f"{self._folder} holds no checkpoint any more")
        if is_first():
            self._set_aside(found[0])
        wait_for_all("damaged checkpoints are set aside")
        return found

    def _newest(self, read: Callable[[int], T]) -> tuple[int, T] | None:
        while step := self._candidate():
            result, failure = _patiently(read, step)
            if everywhere(failure is None):
                return step, result[0]
            another = f"checkpoint {step} in {self._folder} cannot be read by another process"
            if not everywhere(not isinstance(failure, IOFailure)):
                raise failure if isinstance(failure, IOFailure) else IOFailure(another)
            self._failures[step] = failure or UserError(another)
        if self._failures:
            raise none_readable(list(self._failures.values()))
        return None

    def _candidate(self) -> int:
        """The newest step that has not failed, 0 where there is none; the first process looks for all."""
        steps = [step for step in complete_steps(self._folder) if step not in self._failures] if is_first() else []
        return from_first(max(steps, default=0))

    def _set_aside(self, step: int) -> None:
        for damaged, failure in self._failures.items():
            with one_line(self._folder, f"rename {self._folder / str(damaged)}"):
                aside = _unused(self._folder / f"{DAMAGED}{damaged}")
                (self._folder / str(damaged)).rename(aside)
            warnings.warn(f"{failure}; it is now {aside.name}, and the run goes on from step {step}", stacklevel=2)


def _patiently(read: Callable[[int], T], step: int) -> tuple[list[T], UserError | None]:
    """What is read of a checkpoint, in a list, or why it could not be, not even after a while."""
    failure = None
    for pause in (0.0, *PAUSES):
        time.sleep(pause)
        try:
            return [read(step)], None
        except UserError as error:
            failure = error
    return [], failure


def _unused(path: Path | epath.Path) -> Path | epath.Path:
    candidates = (path.with_name(f"{path.name}-{count}") for count in range(2, 1000))
    return path if not path.exists() else next(candidate for candidate in candidates if not candidate.exists())
