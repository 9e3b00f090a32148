"""Pickles of tensors, taken apart without running anything.

A pickle is a program for a stack machine, which may name any function of any module and call it. This machine knows
the opcodes that torch writes. A name stays a name and is never imported; the few that tensors need are looked up in
`torch_names`, and any other is refused where it stands. What comes out are dicts, lists, tuples, strings, numbers and
the classes below.

Python's own unpickler with `find_class` overridden would not do. It calls methods of what lies on its stack, and
makes as many places in its memo as an index says, so that seven bytes can take all memory.
"""

import pickletools
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clip_jax.errors import UserError
from clip_jax.weights import torch_names
from clip_jax.weights.lazy_tensor import damaged, shown

MAX_OPCODES = 2_000_000  # ten times those of a large model's checkpoint with its optimiser

_LITERALS = {
    *("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BINSTRING", "SHORT_BINSTRING"),
    *("INT", "LONG", "FLOAT", "STRING", "UNICODE"),
}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_KEYS = (str, int, float, bool, bytes, type(None))  # a tuple could be nested too deep to be hashed


@dataclass(frozen=True, eq=False)
class Global:
    """The name of a function or class, and nothing more."""

    name: str


@dataclass(frozen=True, eq=False)
class Storage:
    """A named run of bytes beside the pickle; `dtype` is None where each of its tensors tells its own."""

    key: str
    dtype: np.dtype | None


@dataclass(frozen=True, eq=False)
class PickledTensor:
    """A view of a storage, `offset` and `stride` in elements. Whether it lies inside is not known here."""

    storage: Storage
    dtype: np.dtype
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass(eq=False)
class Record:
    """An object of a TorchScript class: a module, with parameters, buffers and submodules by name."""

    name: str
    attributes: dict[Any, Any]


class Opaque:
    """A value of no interest: a set, a device, a run of bytes."""


def unpickle(pickle: bytes, path: Path, torchscript: bool = False) -> Any:
    """The object that a torch file's pickle describes, TorchScript's classes among its names on request.

    Raises UserError, which blames the file `path`, where the pickle is damaged or names what is no part of a tensor.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pickletools' of strings with odd escapes
            return _Machine(path, torchscript).run(pickle)
    # A stack or memo without what an opcode takes, and what pickletools says of a damaged opcode.
    except (IndexError, KeyError, ValueError) as error:
        raise damaged(path, "its pickle makes no sense") from error


class _Machine:
    def __init__(self, path: Path, torchscript: bool) -> None:
        self._path = path
        self._torchscript = torchscript
        self._stack: list[Any] = []
        self._below: list[list[Any]] = []  # the stack below each mark
        self._memo: dict[int, Any] = {}

    def run(self, pickle: bytes) -> Any:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(pickle)):
            if opcode.name == "STOP":
                return self._stack.pop()
            if count == MAX_OPCODES:
                raise UserError(f"{self._path} has a pickle of over {MAX_OPCODES} opcodes; no model needs so many")
            if opcode.name in _LITERALS:
                self._stack.append(argument)
            else:
                self._step(opcode.name, argument)
        raise ValueError("no STOP")

    def _step(self, opcode: str, argument: Any) -> None:
        stack = self._stack
        match opcode:
            case "BINPUT" | "LONG_BINPUT" | "PUT":
                self._memo[argument] = stack[-1]
            case "MEMOIZE":
                self._memo[len(self._memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET" | "GET":
                stack.append(self._memo[argument])
            case "NONE" | "NEWTRUE" | "NEWFALSE" | "EMPTY_TUPLE":
                stack.append(_CONSTANTS[opcode])
            case "MARK":
                self._below.append(stack)
                self._stack = []
            case "TUPLE":
                items = self._pop_mark()
                self._stack.append(tuple(items))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                items = [stack.pop() for _ in range(_TUPLES[opcode])]
                stack.append(tuple(reversed(items)))
            case "EMPTY_LIST":
                stack.append([])
            case "APPEND":
                value = stack.pop()
                self._extend(stack[-1], [value])
            case "APPENDS":
                items = self._pop_mark()
                self._extend(self._stack[-1], items)
            case "EMPTY_DICT":
                stack.append({})
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                self._update(stack[-1], [key], [value])
            case "SETITEMS":
                items = self._pop_mark()
                self._update(self._stack[-1], items[::2], items[1::2])
            case "PROTO" | "FRAME":
                pass
            case "GLOBAL":
                stack.append(self._global(*argument.split(" ", 1)))
            case "STACK_GLOBAL":
                name, module = stack.pop(), stack.pop()
                stack.append(self._global(module, name))
            case "BINPERSID":
                stack.append(self._storage(stack.pop()))
            case "REDUCE":
                arguments, function = stack.pop(), stack.pop()
                stack.append(self._call(function, arguments))
            case "NEWOBJ":
                _, cls = stack.pop(), stack.pop()
                stack.append(self._new(cls))
            case "BUILD":
                state = stack.pop()
                self._set_state(stack[-1], state)
            case "INST":
                self._global(*argument.split(" ", 1))  # a name that is refused says more than the opcode
                raise self._unusual(f"has the opcode {opcode}")
            case _:
                raise self._unusual(f"has the opcode {opcode}")

    def _pop_mark(self) -> list[Any]:
        items, self._stack = self._stack, self._below.pop()
        return items

    def _extend(self, target: Any, items: list[Any]) -> None:
        if type(target) is not list:
            raise self._unusual("appends to what is no list")
        target.extend(items)

    def _update(self, target: Any, keys: list[Any], values: list[Any]) -> None:
        if type(target) is not dict:
            raise self._unusual("sets items of what is no dict")
        if not all(isinstance(key, _KEYS) for key in keys):
            raise self._unusual("has a dict whose keys are no strings or numbers")
        target.update(zip(keys, values, strict=True))

    def _global(self, module: Any, name: Any) -> Global:
        if not isinstance(module, str) or not isinstance(name, str):
            raise self._unusual("names a global by what is no string")
        module = "builtins" if module == "__builtin__" else module  # Python 2's name, which protocol 2 keeps
        full = f"{module}.{name}"
        is_script_class = self._torchscript and module.split(".")[0] == "__torch__"
        if "." not in name and (full in torch_names.ALLOWED or is_script_class):
            return Global(full)
        if full in torch_names.OTHER_TENSORS:
            kind = torch_names.OTHER_TENSORS[full]
            raise UserError(f"{self._path} names {full}: it holds a tensor that is {kind}; only plain ones are read")
        raise UserError(
            f"{self._path} names the global {shown(full)}, which is no tensor; it was not run. "
            "A file that holds a state_dict alone would be read"
        )

    def _storage(self, identity: Any) -> Storage:
        match identity:
            case ("storage", Global(name=name), str() as key, _, _) if name in torch_names.STORAGES:
                return Storage(key, torch_names.STORAGES[name])
        raise self._unusual("refers to what is no storage of a tensor")

    def _call(self, function: Any, arguments: Any) -> Any:
        if not isinstance(function, Global) or type(arguments) is not tuple:
            raise self._unusual("calls what is no function")
        match (function.name, *arguments):
            case ("collections.OrderedDict",):
                return {}
            case ("torch._utils._rebuild_tensor", Storage() as storage, *view):
                return self._tensor(storage, storage.dtype, view)
            case ("torch._utils._rebuild_tensor_v2", Storage() as storage, *view, _, _):
                return self._tensor(storage, storage.dtype, view)
            case ("torch._utils._rebuild_tensor_v3", Storage() as storage, *view, _, _, Global(name=name)):
                return self._tensor(storage, torch_names.DTYPES.get(name), view)
            case ("torch._utils._rebuild_parameter", PickledTensor() as tensor, _, _):
                return tensor
            case ("torch._utils._rebuild_parameter_with_state", PickledTensor() as tensor, _, _, _):
                return tensor
            case ("torch._tensor._rebuild_from_type_v2", Global() as inner, _, inner_arguments, _):
                if inner.name != function.name:  # or it could nest without end
                    return self._call(inner, inner_arguments)
            case (name, value, *_) if name in torch_names.TYPE_TAGS:
                return value
            case (name, *_) if name in torch_names.OPAQUE:
                return Opaque()
        raise self._unusual(f"calls {shown(function.name)} in an unknown way")

    def _tensor(self, storage: Storage, dtype: np.dtype | None, view: Sequence[Any]) -> PickledTensor:
        match view:
            case (int() as offset, tuple() as size, tuple() as stride) if dtype is not None:
                numbers = (offset, *size, *stride)
                if len(size) == len(stride) and all(type(n) is int and 0 <= n < 2**63 for n in numbers):
                    return PickledTensor(storage, dtype, offset, size, stride)
        raise self._unusual("describes a tensor in an unknown way")

    def _new(self, cls: Any) -> Any:
        if isinstance(cls, Global) and cls.name in torch_names.OPAQUE:
            return Opaque()
        if isinstance(cls, Global) and cls.name not in torch_names.ALLOWED:  # so a class of TorchScript
            return Record(cls.name, {})
        raise self._unusual("makes an object of what is no class")

    def _set_state(self, target: Any, state: Any) -> None:
        if type(target) is Record:
            if type(state) is not dict:
                raise self._unusual(f"has a {shown(target.name)} that is no plain module")
            target.attributes = state
        elif type(target) not in (dict, Opaque):  # of these, attributes beside the values, which nothing reads
            raise self._unusual("sets the state of what has none")

    def _unusual(self, what: str) -> UserError:
        return UserError(f"{self._path} {what}, which no torch file of plain tensors does; it was not read")
