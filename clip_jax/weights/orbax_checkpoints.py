"""Checkpoints of a training run through Orbax. No other file touches Orbax, whose interface still moves."""

import gc
import logging
import math
import os
import re
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
from etils import epath
from orbax.checkpoint import v1 as ocp

from clip_jax.config import ClipConfig
from clip_jax.errors import IOFailure, UserError, reason
from clip_jax.models.two_tower import Params, init_params

RESULTS = "results"  # in a description: what an evaluation of this very state gave
# Failures that say nothing of the files, in the words of TensorStore, TensorFlow, JAX, Python and the system.
PASSING = re.compile(
    r"timed? ?out|deadline.?exceeded|unavailable|aborted|connection|unauthenticated|permission.?denied"
    r"|resource.?exhausted|memoryerror|too many open files",
    re.IGNORECASE,
)


def complete_steps(folder: Path | epath.Path) -> list[int]:
    """The steps of the checkpoints in `folder` that were written to their end, ascending.

    Raises IOFailure where the folder cannot be listed, as in a bucket without credentials.
    """
    try:
        if not folder.is_dir():
            return []
        with _quiet():
            return sorted(found.step for found in ocp.path.step.standard_name_format().find_all(_absolute(folder)))
    except Exception as error:
        raise IOFailure(f"cannot list the checkpoints in {folder} ({reason(error)})") from error


def describe(folder: Path | epath.Path, step: int) -> dict[str, Any]:
    """The description that was saved with checkpoint `step`.

    Raises UserError where it is damaged, IOFailure where it may not be: it, or the memory for it, is out of reach.
    """
    with _readable(folder, step):
        return ocp.load_checkpointables(_absolute(folder / str(step)), {"description": None})["description"]


def restore(folder: Path | epath.Path, step: int, abstract_state: Any) -> Any:
    """The state of checkpoint `step`, laid out as the ShapeDtypeStructs of `abstract_state` say.

    Raises as `describe` does. Each process reads its own part and waits for no other, so that one that fails leaves
    none behind.
    """
    with _readable(folder, step):
        return ocp.load_checkpointables(_absolute(folder / str(step)), {"state": abstract_state})["state"]


class CheckpointWriter:
    """Writes checkpoints behind the run, one at a time; a checkpoint appears whole or not at all.

    The newest `keep` stay, and the one with the highest value of `metric` in the results that were saved with it.
    All processes make one, and call it together. Raises IOFailure where the folder cannot be written to.
    """

    def __init__(self, folder: Path | epath.Path, keep: int, metric: str | None = None) -> None:
        self._folder, self._metric = folder, metric
        self._in_flight: int | None = None
        self._values: dict[int, float] = {}
        for step in complete_steps(folder) if metric else ():
            try:
                self._take_note(step, describe(folder, step))
            except IOFailure:
                raise
            except UserError:
                continue  # a damaged one is nobody's best
        context = ocp.Context()
        # Left to a thread, a failure to make a folder would keep the process from ending for five minutes.
        context.async_options.create_directories_asynchronously = False
        with ExitStack() as hushed, self._writing("checkpoints"):
            hushed.enter_context(_quiet())
            self._checkpointer = ocp.training.Checkpointer(
                _absolute(folder),
                context=context,
                preservation_policy=_NewestAndBest(keep, self._values),  # pyright: ignore[reportArgumentType]
                cleanup_tmp_directories=True,
            )
            self._hushed = hushed.pop_all()

    def save(self, step: int, state: Any, description: Mapping[str, Any]) -> None:
        """Begins to save a tree of arrays and a JSON-able description as checkpoint `step`.

        Returns as soon as the arrays may be donated: once they are copied to the host, or on CPUs, where they are
        there already, once they are held, since JAX donates no array of which somebody has a view. Waits for the
        checkpoint before, and raises as `wait` does.
        """
        self.wait()
        self._take_note(step, description)
        with self._writing(f"checkpoint {step}"):
            self._checkpointer.save_checkpointables_async(
                step, {"state": state, "description": dict(description)}, force=True
            )
        self._in_flight = step

    def wait(self) -> None:
        """Returns once the last checkpoint is there. Raises IOFailure where it could not be written."""
        step, self._in_flight = self._in_flight, None
        if step is not None:
            with self._writing(f"checkpoint {step}"):
                self._checkpointer.wait()

    def close(self) -> None:
        """Waits for what is being written; whether that went well is for `wait` to say."""
        with self._hushed:
            try:
                self._checkpointer.close()
            except Exception:
                logging.getLogger(__name__).debug("closed after a failure", exc_info=True)

    def _take_note(self, step: int, description: Mapping[str, Any]) -> None:
        value = description.get(RESULTS, {}).get(self._metric)
        if value is not None and math.isfinite(value):
            self._values[step] = value

    @contextmanager
    def _writing(self, what: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            steps = complete_steps(self._folder)
            good = f"; checkpoint {steps[-1]} is whole, the run goes on from there" if steps else ""
            raise IOFailure(f"cannot write {what} to {self._folder}: {reason(error)}{good}") from error


class _NewestAndBest:
    """Which checkpoints stay: Orbax asks."""

    def __init__(self, keep: int, values: Mapping[int, float]) -> None:
        self._keep, self._values = keep, values

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        steps = [checkpoint.step for checkpoint in checkpoints]
        best = max(self._values.keys() & set(steps), key=lambda step: (self._values[step], step), default=None)
        return [step == best or step in sorted(steps)[-self._keep :] for step in steps]


def read_model(folder: Path | epath.Path) -> tuple[ClipConfig, Params]:
    """Config and parameters (NumPy) of the newest checkpoint, their average where the run kept one.

    Warns where the newest is damaged, and takes the one before. Raises UserError where none can be read.
    """
    steps = complete_steps(folder)
    if not steps:
        raise UserError(f"{folder} holds no complete checkpoint yet; let the training run save one first")
    failures: list[UserError] = []
    for step in reversed(steps):
        try:
            model = _read_model(folder, step)
        except UserError as error:
            failures.append(error)
            continue
        for failure in failures:
            warnings.warn(f"{failure}; checkpoint {step} is taken instead", stacklevel=2)
        return model
    raise none_readable(failures)


def none_readable(failures: Sequence[UserError]) -> UserError:
    """What to say where every checkpoint has failed, the newest first."""
    others = "; nor can the older ones" if len(failures) > 1 else ""
    return UserError(f"{failures[0]}{others}")


def _read_model(folder: Path | epath.Path, step: int) -> tuple[ClipConfig, Params]:
    description = describe(folder, step)
    with _readable(folder, step):
        config = ClipConfig.from_dict(description["model"])
        averaged = description.get("config", {}).get("optimizer", {}).get("ema") is not None
        name = "ema" if averaged else "params"
        # Restored onto one device, whatever the mesh that saved them.
        here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        abstract = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here),
            jax.eval_shape(lambda: init_params(config, jax.random.key(0))),
        )
        context = ocp.Context()
        context.pytree_options.loading.partial_load = True
        with context:
            state = ocp.load(_absolute(folder / str(step)), {name: abstract}, checkpointable_name="state")
        return config, jax.tree.map(np.asarray, state[name])


@contextmanager
def _readable(folder: Path | epath.Path, step: int) -> Iterator[None]:
    """Turns whatever Orbax raises over damaged files, which is many things, into one UserError; or an IOFailure."""
    alone = ocp.Context()
    alone.multiprocessing_options.primary_host = jax.process_index()
    alone.multiprocessing_options.active_processes = {jax.process_index()}
    why = None
    try:
        with _quiet(), alone:
            yield
    except Exception as error:
        why = reason(error)
    if why is not None:  # the error itself is gone by now, which holds on to what is to be discarded
        _discard_unfinished()
        failure = IOFailure if PASSING.search(why.replace(_absolute(folder), "")) else UserError
        raise failure(f"checkpoint {step} in {folder} cannot be read ({why})")


def _discard_unfinished() -> None:
    """Coroutines that Orbax leaves behind a failure would complain whenever Python comes to collect them."""
    complain = sys.unraisablehook
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        sys.unraisablehook = lambda _: None
        try:
            gc.collect()
        finally:
            sys.unraisablehook = complain


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Orbax's own account of every failure, which would come before the one line that tells of it."""

    def foreign(record: logging.LogRecord) -> bool:
        return "orbax" not in record.pathname

    def tell(unraisable: Any) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":  # where arrays fail after the first, that is told of
            complain(unraisable)

    logger, complain = logging.getLogger("absl"), sys.unraisablehook
    logger.addFilter(foreign)
    sys.unraisablehook = tell
    try:
        yield
    finally:
        logger.removeFilter(foreign)
        sys.unraisablehook = complain


def _absolute(path: Path | epath.Path) -> str:
    """What Orbax takes: an absolute path, or the address of a folder in a bucket."""
    return os.path.abspath(path) if isinstance(path, Path) else str(path)
