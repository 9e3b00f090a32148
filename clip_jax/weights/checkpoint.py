"""A model between two layouts: its config and its parameters, which are read only when they are written."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import jax
import numpy as np

from clip_jax.config import ClipConfig
from clip_jax.errors import UserError
from clip_jax.schema import parse
from clip_jax.weights.keys import COUNTER, Slot
from clip_jax.weights.tree import flatten


@dataclass(frozen=True)
class Parameter:
    """One of our parameters. `read(layer)` gives one layer of a stacked one, `read(None)` all of it, as stored."""

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[int | None], np.ndarray]


@dataclass(frozen=True)
class Origin:
    """What a model's source held beside its parameters, kept so that it can be written back bit for bit.

    `table` names the layout. `dtypes` gives the type of each parameter, or layer or part of one (Slot.name), that is
    not float32; `buffers` the integer buffers by path; `scalar_shape` that of the logit scale; `configs` the
    source's JSON files by name.
    """

    table: str = "clip_jax"
    dtypes: dict[str, str] = field(default_factory=dict)
    buffers: dict[str, int] = field(default_factory=dict)
    scalar_shape: tuple[int, ...] = ()
    configs: dict[str, Any] = field(default_factory=dict)

    def dtype_of(self, slot: Slot) -> str | None:
        """The type in which the source held this slot, where that is on record."""
        layer = slot.path if slot.layer is None else f"{slot.path}:{slot.layer}"
        return self.dtypes.get(slot.name) or self.dtypes.get(layer) or self.dtypes.get(slot.path)

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON; `from_dict` reads them."""
        return asdict(self)

    @staticmethod
    def from_dict(values: dict[str, Any]) -> "Origin":
        """The inverse of `to_dict`. Raises UserError for an unknown or mistyped key, or a value that none can have."""
        origin = parse(Origin, values, "origin")
        for name, dtype in origin.dtypes.items():
            if not _is_floating(dtype):
                raise UserError(f"origin.dtypes.{name} is {dtype!r}, which is no floating-point type")
        for path, count in origin.buffers.items():
            if not path.endswith(f"/{COUNTER}") or not 0 <= count < 2**63:
                raise UserError(f"origin.buffers.{path} is no count of batches: PATH/{COUNTER}, 0 to 2**63 - 1")
        if origin.scalar_shape not in ((), (1,)):
            raise UserError(f"origin.scalar_shape is {list(origin.scalar_shape)}; a scalar's is [] or [1]")
        return origin


@dataclass(frozen=True)
class Checkpoint:
    """A model in no layout: config, parameters by flat name, origin, and the tokenizer's files by name."""

    config: ClipConfig
    parameters: Mapping[str, Parameter]
    origin: Origin = field(default_factory=Origin)
    tokenizer_files: Mapping[str, bytes] = field(default_factory=dict)


def in_memory(
    config: ClipConfig, params: dict[str, Any], origin: Origin, tokenizer_files: Mapping[str, bytes]
) -> Checkpoint:
    """A checkpoint of parameters that are in memory already: a nested dict of NumPy or JAX arrays.

    Types on record are kept where nothing is lost by them: what was trained on since it was read stays as it is.
    """
    leaves = flatten(params)
    dtypes = {name: dtype for name, dtype in origin.dtypes.items() if _fits(leaves, name, dtype)}
    origin = Origin(origin.table, dtypes, origin.buffers, origin.scalar_shape, origin.configs)
    parameters = {path: _array_parameter(leaf, dtypes.get(path)) for path, leaf in leaves.items()}
    return Checkpoint(config, parameters, origin, tokenizer_files)


def _array_parameter(leaf: Any, dtype: str | None) -> Parameter:
    stored = leaf.dtype if dtype is None else jax.numpy.dtype(dtype)
    return Parameter(leaf.shape, stored, partial(_read, leaf, stored))


def _read(leaf: Any, dtype: np.dtype, layer: int | None) -> np.ndarray:
    return np.asarray(leaf if layer is None else leaf[layer]).astype(dtype, copy=False)


def _is_floating(dtype: str) -> bool:
    try:
        return jax.numpy.issubdtype(jax.numpy.dtype(dtype), jax.numpy.floating)
    except (TypeError, ValueError, SyntaxError):  # NumPy reads some strings as expressions
        return False


def _fits(leaves: Mapping[str, Any], name: str, dtype: str) -> bool:
    path, *place = name.split(":")
    if path not in leaves:
        return False
    values = leaves[path]
    for index in place:
        if index.isdigit():
            values = values[int(index)]
        else:  # a part such as 0-1/3
            span, parts = index.split("/")
            start, stop = span.split("-")
            values = np.split(np.asarray(values), int(parts), axis=-1)[int(start) : int(stop)]
    values, narrow = np.asarray(values), jax.numpy.dtype(dtype)
    if narrow.itemsize > values.dtype.itemsize:
        return False
    with np.errstate(over="ignore"):  # what is too large becomes infinite, and so is not equal
        return np.array_equal(values, values.astype(narrow).astype(values.dtype), equal_nan=True)
