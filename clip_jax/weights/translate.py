"""A file's tensors to our parameters and back, by a layout's table. Everything that does not fit is told at once."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import jax
import numpy as np

from clip_jax.config import ClipConfig
from clip_jax.errors import UserError
from clip_jax.weights.checkpoint import Checkpoint, Origin, Parameter
from clip_jax.weights.keys import COUNTER, Slot, Table, slots
from clip_jax.weights.lazy_tensor import LazyTensor
from clip_jax.weights.tree import parameter_shapes

SHOWN_PROBLEMS = 40
SCALARS = ("logit_scale", "logit_bias")  # of shape () or (1,)


def gather(tensors: Mapping[str, LazyTensor], table: Table, config: ClipConfig, where: str) -> Checkpoint:
    """Our parameters from a file's tensors, none of them read yet.

    Raises UserError naming every key that is missing, left over, or of a shape or type that does not fit.
    """
    shapes = parameter_shapes(config)
    # Counters of batch norms may be absent, as in files that were written for inference.
    wanted = [s for s in slots(table, shapes | _counters(shapes), config) if not _is_counter(s) or s.key in tensors]
    check(tensors, wanted, table, set(shapes), where)
    counters, weights = (
        [slot for slot in wanted if _is_counter(slot)],
        [slot for slot in wanted if not _is_counter(slot)],
    )
    by_path: dict[str, list[Slot]] = {}
    for slot in weights:
        by_path.setdefault(slot.path, []).append(slot)
    parameters = {path: _parameter(shapes[path], group, tensors) for path, group in by_path.items()}
    origin = Origin(
        table.name,
        _dtypes(weights, parameters, tensors),
        {slot.path: _count(slot.key, tensors[slot.key], where) for slot in counters},
        tensors[next(slot.key for slot in weights if slot.path == "logit_scale")].shape,
    )
    return Checkpoint(config, parameters, origin)


def scatter(checkpoint: Checkpoint, table: Table) -> dict[str, LazyTensor]:
    """A file's tensors from our parameters: the inverse of `gather`, with the types that the origin has on record.

    Raises UserError for parameters that the layout has no place for.
    """
    shapes = {path: parameter.shape for path, parameter in checkpoint.parameters.items()}
    places = slots(table, shapes | _counters(shapes), checkpoint.config)
    if checkpoint.origin.table == table.name:  # a source without counters gets none back
        places = [slot for slot in places if not _is_counter(slot) or slot.path in checkpoint.origin.buffers]
    uncovered = shapes.keys() - {slot.path for slot in places}
    if uncovered:
        raise UserError(f"the layout {table.name} has no place for {', '.join(sorted(uncovered))}")
    scalar_shape = checkpoint.origin.scalar_shape if checkpoint.origin.table == table.name else table.scalar_shape
    return {slot.key: _file_tensor(checkpoint, slot, scalar_shape) for slot in places}


def check(tensors: Mapping[str, LazyTensor], wanted: Sequence[Slot], table: Table, paths: set[str], where: str) -> None:
    """Raises one UserError that names all that is wrong with a file's keys, shapes and types."""
    keys = {slot.key for slot in wanted}
    ignored = re.compile("|".join(f"(?:{pattern})$" for pattern in table.ignored) or r"(?!)")
    problems = [("is missing", slot.key) for slot in wanted if slot.key not in tensors]
    problems += [("is unknown", key) for key in tensors if key not in keys and not ignored.match(key)]
    for slot in wanted:
        tensor = tensors.get(slot.key)
        if tensor is None:
            continue
        if tensor.shape != slot.shape and not (slot.path in SCALARS and tensor.shape == (1,)):
            problems.append((f"has shape {list(tensor.shape)}, not {list(slot.shape)}", slot.key))
        if not _is_counter(slot) and not jax.numpy.issubdtype(tensor.dtype, jax.numpy.floating):
            problems.append((f"is of type {tensor.dtype}, not floating-point", slot.key))
    filled = {slot.path for slot in wanted}
    problems += [("has no place in this layout", path) for path in sorted(paths - filled)]
    if problems:
        raise UserError(f"the weights in {where} do not fit the model: {'; '.join(_told(problems))}")


def _told(problems: Sequence[tuple[str, str]]) -> Iterable[str]:
    """Each problem; where there are many, those that differ only in numbers of the key as one."""
    if len(problems) <= SHOWN_PROBLEMS:
        return [f"{key} {problem}" for problem, key in problems]
    groups = Counter((problem, re.sub(r"\d+", "*", key)) for problem, key in problems)
    return [f"{key} {problem}" + (f" ({n} of these)" if n > 1 else "") for (problem, key), n in groups.items()]


def _parameter(shape: tuple[int, ...], group: Sequence[Slot], tensors: Mapping[str, LazyTensor]) -> Parameter:
    dtype = _common_dtype({tensors[slot.key].dtype for slot in group})
    by_layer: dict[int | None, list[Slot]] = {}
    for slot in group:
        by_layer.setdefault(slot.layer, []).append(slot)
    return Parameter(shape, dtype, _Pieces(shape, dtype, by_layer, tensors).read)


@dataclass(frozen=True, eq=False)
class _Pieces:
    """One parameter in a file: the slots of each layer, or of None where tensors are of all layers at once."""

    shape: tuple[int, ...]
    dtype: np.dtype
    by_layer: Mapping[int | None, Sequence[Slot]]
    tensors: Mapping[str, LazyTensor]

    def read(self, layer: int | None) -> np.ndarray:
        """One layer, or all; not always C-contiguous, as a tensor that needs no company is turned without a copy."""
        if layer in self.by_layer:
            first, *others = self.by_layer[layer]
            if not others:
                return first.to_parameter(self.tensors[first.key].read()).astype(self.dtype, copy=False)
            return self._fill(np.empty(self.shape if layer is None else self.shape[1:], self.dtype), layer)
        if layer is not None:
            return self._whole[layer]
        values = np.empty(self.shape, self.dtype)
        for index in self.by_layer:
            self._fill(values[index], index)
        return values

    @cached_property  # of a file that stacks its layers as we do, where one layer cannot be read alone
    def _whole(self) -> np.ndarray:
        return self.read(None)

    def _fill(self, values: np.ndarray, layer: int | None) -> np.ndarray:
        for slot in self.by_layer[layer]:
            slot.take(values)[...] = slot.to_parameter(self.tensors[slot.key].read())
        return values


def _common_dtype(dtypes: set[np.dtype]) -> np.dtype:
    """A type that holds the values of all of these without loss; JAX's own rules know no float64 by default."""
    if len(dtypes) == 1:
        return next(iter(dtypes))
    return np.dtype(np.float64 if np.dtype(np.float64) in dtypes else np.float32)


def _dtypes(
    weights: Sequence[Slot], parameters: Mapping[str, Parameter], tensors: Mapping[str, LazyTensor]
) -> dict[str, str]:
    of_paths = {path: p.dtype.name for path, p in parameters.items() if p.dtype != np.float32}
    exceptions = {
        slot.name: tensors[slot.key].dtype.name
        for slot in weights
        if tensors[slot.key].dtype != parameters[slot.path].dtype
    }
    return of_paths | exceptions


def _file_tensor(checkpoint: Checkpoint, slot: Slot, scalar_shape: tuple[int, ...]) -> LazyTensor:
    if _is_counter(slot):
        count = np.asarray(checkpoint.origin.buffers.get(slot.path, 0), np.int64)
        return LazyTensor((), count.dtype, lambda: count)
    parameter = checkpoint.parameters[slot.path]
    dtype = jax.numpy.dtype(checkpoint.origin.dtype_of(slot) or parameter.dtype)
    shape = scalar_shape if slot.shape == () else slot.shape
    return LazyTensor(shape, dtype, partial(_read_slot, parameter, slot, dtype, shape))


def _read_slot(parameter: Parameter, slot: Slot, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    values = slot.to_file(slot.take(parameter.read(slot.layer))).astype(dtype, copy=False)
    return np.asarray(values, order="C").reshape(shape)


def _count(key: str, tensor: LazyTensor, where: str) -> int:
    """A counter's value, whatever type a cast of the whole file has given it."""
    value = tensor.read().astype(np.float64 if tensor.dtype.kind not in "iu" else tensor.dtype)
    if not np.isfinite(value) or value != np.floor(value) or not 0 <= value < 2**63:
        raise UserError(f"{key} in {where} counts batches, but is {value}")
    return int(value)


def _counters(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """A counter beside every batch norm's mean."""
    return {path.removesuffix("mean") + COUNTER: () for path in shapes if path.endswith("/mean")}


def _is_counter(slot: Slot) -> bool:
    return slot.path.endswith(f"/{COUNTER}")
