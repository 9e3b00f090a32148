"""How the names and shapes of one layout's tensors become ours and back: rows of a table, and what they expand to.

A row is (key in the file, path of our parameter, einops pattern from the first to the second). It is used in both
directions: a pattern that is read from right to left is its own inverse.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from einops import rearrange

from clip_jax.config import ClipConfig, ResNetConfig

Shape = tuple[int, ...]
Part = tuple[int, int, int]
"""(a, b, n): of n equal parts of a parameter's last axis, the parts from a up to b."""

COUNTER = "batches"  # batches that a batch norm has seen: an int64 scalar, which belongs to no parameter


@dataclass(frozen=True)
class Row:
    """One line of a layout's table.

    `{i}` in a key is the layer of a stacked parameter; other numbers in braces stand in the path as well.
    """

    key: str
    path: str
    pattern: str = ""
    part: Part | None = None


@dataclass(frozen=True)
class Table:
    """A layout: its rows, the patterns of keys that hold nothing to keep, and the shape in which it writes scalars."""

    name: str
    rows: tuple[Row, ...]
    ignored: tuple[str, ...] = ()
    scalar_shape: Shape = ()


@dataclass(frozen=True)
class Slot:
    """The place of one tensor of a file: which parameter, layer and part it is, and its shape in the file."""

    key: str
    path: str
    layer: int | None
    part: Part | None
    pattern: str
    sizes: Mapping[str, int] = field(hash=False)
    shape: Shape

    @property
    def name(self) -> str:
        """The place as one string, for exceptions of type: path, layer and part."""
        layer = "" if self.layer is None else f":{self.layer}"
        return self.path + layer + ("" if self.part is None else ":{}-{}/{}".format(*self.part))

    def to_parameter(self, tensor: np.ndarray) -> np.ndarray:
        """The file's tensor, in the shape of its place in the parameter."""
        if self.pattern:
            return rearrange(tensor, self.pattern)
        return tensor.reshape(()) if tensor.size == 1 and tensor.ndim == 1 and self.shape == () else tensor

    def to_file(self, values: np.ndarray) -> np.ndarray:
        """The inverse of `to_parameter`, for the part of the parameter that `take` gives."""
        return _backwards(values, self.pattern, self.sizes)

    def take(self, values: np.ndarray) -> np.ndarray:
        """This slot's part of a parameter's values, or of one layer of them; a view."""
        return values if self.part is None else values[..., _span(values.shape[-1], self.part)]


def slots(table: Table, shapes: Mapping[str, Shape], config: ClipConfig) -> list[Slot]:
    """Every tensor that a file of this layout holds for parameters of these shapes, in the table's order."""
    found = []
    for row in table.rows:
        place = re.compile(re.sub(r"\\{(\w+)\\}", r"(?P<\1>\\d+)", re.escape(row.path)) + "$")
        for path, shape in shapes.items():
            if match := place.match(path):
                found += _slots_of(row, path, shape, match.groupdict(), _sizes(config, path))
    return found


def observed_shapes(table: Table, shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    """The shapes of our parameters, as far as the keys and shapes of a file tell them, whatever its architecture."""
    patterns = [
        (re.compile(re.sub(r"\\{(\w+)\\}", r"(?P<\1>\\d+)", re.escape(row.key)) + "$"), row) for row in table.rows
    ]
    observed: dict[str, Shape] = {}
    layers: dict[str, int] = {}
    for key, shape in shapes.items():
        for pattern, row in patterns:
            if match := pattern.match(key):
                numbers = match.groupdict()
                path = row.path.format(**numbers)
                observed[path] = _shape_in_parameter(shape, row)
                if "i" in numbers and "{i}" not in row.path:
                    layers[path] = max(layers.get(path, 0), int(numbers["i"]) + 1)
                break
    return {path: (layers[path], *shape) if path in layers else shape for path, shape in observed.items()}


def _slots_of(row: Row, path: str, shape: Shape, numbers: dict[str, str], sizes: Mapping[str, int]) -> Iterable[Slot]:
    stacked = "{i}" in row.key and "i" not in numbers
    layers = range(shape[0]) if stacked else [None]
    values = np.broadcast_to(np.float32(0), shape[1:] if stacked else shape)
    if row.part is not None:
        values = values[..., _span(values.shape[-1], row.part)]
    wanted = {name: size for name, size in sizes.items() if re.search(rf"\b{name}\b", row.pattern)}
    file_shape = _backwards(values, row.pattern, wanted).shape
    for layer in layers:
        key = row.key.format(**numbers, **({} if layer is None else {"i": layer}))
        yield Slot(key, path, layer, row.part, row.pattern, wanted, file_shape)


def _backwards(values: np.ndarray, pattern: str, sizes: Mapping[str, int]) -> np.ndarray:
    if not pattern:
        return values
    left, right = pattern.split("->")
    return rearrange(values, f"{right} -> {left}", **sizes)


def _shape_in_parameter(shape: Shape, row: Row) -> Shape:
    if row.pattern and len(row.pattern.split("->")[0].split()) == len(shape):
        shape = rearrange(np.broadcast_to(np.float32(0), shape), row.pattern).shape
    if row.part is None or not shape:
        return shape
    start, stop, parts = row.part
    return (*shape[:-1], shape[-1] * parts // (stop - start))


def _span(length: int, part: Part) -> slice:
    start, stop, parts = part
    return slice(length * start // parts, length * stop // parts)


def _sizes(config: ClipConfig, path: str) -> dict[str, int]:
    """The lengths of axes that a pattern alone cannot tell when it splits one: patches p by q by c, and heads h."""
    if path.startswith("text/"):
        return {"h": config.text.transformer.heads}
    if isinstance(config.vision, ResNetConfig):
        return {}
    return {
        "p": config.vision.patch_size,
        "q": config.vision.patch_size,
        "c": 3,
        "h": config.vision.transformer.heads,
    }
