"""Checkpoints of a training run through Orbax. No other file touches Orbax, whose interface still moves."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from clip_jax.config import ClipConfig
from clip_jax.errors import UserError
from clip_jax.models.two_tower import Params, init_params


def latest_step(folder: Path) -> int | None:
    """The newest complete checkpoint's step; None where there is none."""
    if not folder.is_dir():
        return None
    with ocp.training.Checkpointer(str(folder.absolute())) as checkpointer:
        return None if checkpointer.latest is None else checkpointer.latest.step


def save(folder: Path, step: int, state: Any, description: dict[str, Any], keep: int) -> None:
    """Saves a tree of arrays and a JSON-able description as checkpoint `step`, then drops all but the newest `keep`.

    A checkpoint appears whole or not at all, so a run killed while saving finds the one before.
    """
    newest = ocp.training.preservation_policies.LatestN(keep)
    # Waits until the files are there: on CPUs a write behind the next step would read buffers that it donates.
    with ocp.training.Checkpointer(
        str(folder.absolute()),
        preservation_policy=newest,  # pyright: ignore[reportArgumentType]
        cleanup_tmp_directories=True,
    ) as checkpointer:
        checkpointer.save_checkpointables(step, {"state": state, "description": description}, overwrite=True)


def describe(folder: Path, step: int) -> dict[str, Any]:
    """The description that was saved with checkpoint `step`. Raises UserError where it is damaged."""
    with _readable(folder, step), ocp.training.Checkpointer(str(folder.absolute())) as checkpointer:
        return checkpointer.load_checkpointables(step, {"description": None})["description"]


def restore(folder: Path, step: int, abstract_state: Any) -> Any:
    """The state of checkpoint `step`, laid out as the ShapeDtypeStructs of `abstract_state` say. Raises UserError."""
    with _readable(folder, step), ocp.training.Checkpointer(str(folder.absolute())) as checkpointer:
        return checkpointer.load_checkpointables(step, {"state": abstract_state})["state"]


def read_model(folder: Path) -> tuple[ClipConfig, Params]:
    """Config and parameters (NumPy) of the newest checkpoint, their average where the run kept one.

    Raises UserError where there is no checkpoint.
    """
    step = latest_step(folder)
    if step is None:
        raise UserError(f"{folder} holds no complete checkpoint yet; let the training run save one first")
    description = describe(folder, step)
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
    with _readable(folder, step), context:
        state = ocp.load(str(folder.absolute() / str(step)), {name: abstract}, checkpointable_name="state")
    return config, jax.tree.map(np.asarray, state[name])


@contextmanager
def _readable(folder: Path, step: int) -> Iterator[None]:
    """Turns whatever Orbax raises over damaged files, which is many things, into one UserError."""
    try:
        yield
    except Exception as error:
        raise UserError(
            f"checkpoint {step} in {folder} cannot be read ({type(error).__name__}); remove it to use the one before"
        ) from error
