"""Plain values into frozen dataclasses, strictly: unknown, missing and mistyped keys are refused by name."""

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeVar

from clip_jax.errors import UserError

T = TypeVar("T")


def nearest(name: str, choices: Iterable[str]) -> str:
    """' Did you mean X?' for the choice closest to `name`, or the sorted choices when none is close."""
    choices = sorted(choices)
    lowered = {choice.lower(): choice for choice in choices}
    close = difflib.get_close_matches(name.lower(), lowered, n=1, cutoff=0.5)
    return f"did you mean '{lowered[close[0]]}'?" if close else f"valid are {', '.join(choices)}"


def parse(cls: type[T], values: Mapping[str, Any], where: str) -> T:
    """An instance of the dataclass `cls` from nested mappings; `where` names the place in error messages.

    Integers are taken for floats, lists for tuples; nothing else is converted. Raises UserError.
    """
    if not isinstance(values, Mapping):
        raise UserError(f"{where} must be a mapping with keys of {cls.__name__}, not {values!r}")
    fields = {field.name: field for field in dataclasses.fields(cls)}  # pyright: ignore[reportArgumentType]
    for key in values:
        if key not in fields:
            raise UserError(f"{where} has no key '{key}'; {nearest(str(key), fields)}")
    hints = typing.get_type_hints(cls)
    arguments = {}
    for name, field in fields.items():
        if name in values:
            arguments[name] = _convert(hints[name], values[name], f"{where}.{name}")
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise UserError(f"{where} lacks the key '{name}'")
    return cls(**arguments)


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if dataclasses.is_dataclass(hint):
        return parse(typing.cast(type, hint), value, where)
    if origin in (types.UnionType, typing.Union):
        return _convert_union(arguments, value, where)
    if origin is Literal:
        if value not in arguments:
            raise UserError(f"{where} is {value!r}; {nearest(str(value), map(str, arguments))}")
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise UserError(f"{where} must be a list, not {value!r}")
        item_hints = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else arguments
        if len(item_hints) != len(value):
            raise UserError(f"{where} must have {len(item_hints)} values, not {len(value)}")
        return tuple(_convert(h, v, f"{where}[{i}]") for i, (h, v) in enumerate(zip(item_hints, value, strict=True)))
    if origin is dict:
        if not isinstance(value, Mapping):
            raise UserError(f"{where} must be a mapping, not {value!r}")
        return {str(k): _convert(arguments[1], v, f"{where}.{k}") for k, v in value.items()}
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return _to_float(value, where)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise UserError(f"{where} must be {_describe(hint)}, not {value!r}")
    return value


def _to_float(value: int, where: str) -> float:
    try:
        return float(value)
    except OverflowError as error:
        raise UserError(f"{where} is too large for a number") from error


def _convert_union(options: tuple[Any, ...], value: Any, where: str) -> Any:
    if type(value) in options:  # an int stays an int where a float would do as well
        return value
    records = [option for option in options if dataclasses.is_dataclass(option)]
    if records and isinstance(value, Mapping):  # the dataclass that knows the most of the keys
        return _convert(max(records, key=lambda record: _known_keys(record, value)), value, where)
    for option in options:
        try:
            return _convert(option, value, where)
        except UserError:
            continue
    raise UserError(f"{where} must be {' or '.join(map(_describe, options))}, not {value!r}")


def _known_keys(record: Any, value: Mapping[str, Any]) -> int:
    return len({field.name for field in dataclasses.fields(record)} & value.keys())


def _describe(hint: Any) -> str:
    if typing.get_origin(hint) is Literal:
        return ", ".join(map(repr, typing.get_args(hint)))
    names = {int: "an integer", float: "a number", str: "a string", bool: "true or false", type(None): "none"}
    return names.get(hint, getattr(hint, "__name__", str(hint)))
