"""What several processes that work as one need to know and to tell each other; with a single one, nothing happens."""

import json
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

Number = TypeVar("Number", int, float)


def is_first() -> bool:
    """Whether this is the process that writes: the config, the log, the progress and the drawn scenes."""
    return jax.process_index() == 0


def wait_for_all(place: str) -> None:
    """Returns once every process has come to this `place`."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(place)


def on_this_process(tree: Any) -> Any:
    """Arrays that lie over all processes as whole NumPy arrays on each of them; all must ask for them together."""
    return multihost_utils.process_allgather(tree, tiled=True) if jax.process_count() > 1 else tree


def from_first(value: Number) -> Number:
    """The first process's value, to 32 bits where there are several."""
    if jax.process_count() == 1:
        return value
    of = np.int32 if isinstance(value, int) else np.float32
    return type(value)(multihost_utils.broadcast_one_to_all(of(value)))


def everywhere(holds: bool) -> bool:
    """Whether it holds on every process."""
    if jax.process_count() == 1:
        return holds
    return bool(np.all(multihost_utils.process_allgather(np.array(holds))))


def of_all(value: Any) -> list[Any]:
    """What JSON can say of every process, in their order; all must ask for it together."""
    if jax.process_count() == 1:
        return [value]
    text = np.frombuffer(json.dumps(value).encode(), np.uint8)
    sizes = multihost_utils.process_allgather(np.int32(len(text)))
    padded = np.zeros(int(sizes.max()), np.uint8)
    padded[: len(text)] = text
    texts = multihost_utils.process_allgather(padded)
    return [json.loads(bytes(row[:size])) for row, size in zip(texts, sizes, strict=True)]


def joined(rows: np.ndarray) -> np.ndarray:
    """The rows [b, ...] of every process one after the other; each may have another number of them."""
    if jax.process_count() == 1:
        return rows
    sizes = multihost_utils.process_allgather(np.int32(len(rows)))
    padded = np.zeros((int(sizes.max()), *rows.shape[1:]), rows.dtype)
    padded[: len(rows)] = rows
    gathered = multihost_utils.process_allgather(padded)
    return np.concatenate([part[:size] for part, size in zip(gathered, sizes, strict=True)])
