"""The grammar that names data everywhere: KIND:LOCATION[?key=value&...], or a bare path."""

import glob
import os
import re
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from clip_jax.data.folder import FolderTable
from clip_jax.data.table import Table
from clip_jax.data.tar import TarTable
from clip_jax.errors import UserError
from clip_jax.schema import nearest

SUPPORTED = ("tar", "folder", "scenes")
PLANNED = ("tfds", "arrayrecord", "tfrecord", "csv", "synthetic")
OPTIONS = {"tar": ("captions",), "folder": (), "scenes": ("images", "seed", "size")}


@dataclass(frozen=True)
class Spec:
    """A parsed data spec; `options` are the pairs after the question mark."""

    kind: str
    location: str
    options: tuple[tuple[str, str], ...] = ()


def parse_spec(text: str) -> Spec:
    """The parts of a data spec such as `tar:data/{00000..00012}.tar?captions=captions` or `folder:pets`.

    A bare path is recognised by what it holds: a name or pattern that ends in .tar and a folder with tars in it are
    `tar`, any other folder is `folder`. Raises UserError for what is not in the grammar.
    """
    rest, question, option_text = text.partition("?")
    kind, colon, location = rest.partition(":")
    if location.startswith("//") or "://" in location:
        raise UserError(f"'{text}' is remote; data is read from local paths, so copy or mount it")
    if not colon or "/" in kind:
        kind, location = _recognise(rest), rest
    elif kind in PLANNED:
        raise UserError(f"data of kind '{kind}' is not supported yet; supported are {', '.join(SUPPORTED)}")
    elif kind not in SUPPORTED:
        raise UserError(f"there is no data of kind '{kind}'; {nearest(kind, SUPPORTED + PLANNED)}")
    if not location:
        raise UserError(f"the data spec '{text}' has no location; KIND:LOCATION[?key=value&...] would be one")
    options = _parse_options(option_text, text) if question else ()
    for key, _ in options:
        if key not in OPTIONS[kind]:
            hint = nearest(key, OPTIONS[kind]) if OPTIONS[kind] else "it takes none"
            raise UserError(f"data of kind '{kind}' has no option '{key}'; {hint}")
    return Spec(kind, location, options)


def open_table(text: str) -> Table:
    """The table that a data spec names. Raises UserError where the spec or the data is at fault."""
    spec = parse_spec(text)
    options = dict(spec.options)
    match spec.kind:
        case "tar":
            return TarTable(expand(spec.location), options.get("captions"))
        case "folder":
            return FolderTable(os.path.expanduser(spec.location))
        case "scenes":
            from clip_jax.data.scenes import ScenesTable

            return ScenesTable.from_options(spec.location, options)
        case kind:
            raise AssertionError(f"parse_spec let the kind {kind} through")


def expand(location: str) -> list[str]:
    """The tar files that a location names: a file, a folder of tars (sorted), or a pattern of braces and globs.

    `{00000..00012}` and `{train,test}` stand for each of their values in order and `*` for every match in sorted
    order, as in a shell. Raises UserError where a name or a pattern matches no file.
    """
    paths = []
    for pattern in expand_braces(os.path.expanduser(location)):
        if os.path.isdir(pattern):
            pattern = os.path.join(glob.escape(pattern), "*.tar")
        found = [pattern] if os.path.exists(pattern) else sorted(glob.glob(pattern))
        if not found:
            origin = f" (of {location})" if pattern != location else ""
            raise UserError(f"no file matches {pattern}{origin}; give tars, a folder of tars, or a pattern of them")
        paths += found
    return paths


def expand_braces(pattern: str) -> list[str]:
    """Every string that a pattern of `{a..b}` ranges and `{x,y}` lists stands for; braces do not nest."""
    parts = re.split(r"(\{[^{}]*\})", pattern)
    return ["".join(choice) for choice in product(*map(_alternatives, parts))]


def _alternatives(part: str) -> list[str]:
    bounds = re.fullmatch(r"\{(\d+)\.\.(\d+)\}", part)
    if bounds:
        first, last = bounds.groups()
        padded = any(len(bound) > 1 and bound.startswith("0") for bound in (first, last))
        width = max(len(first), len(last)) if padded else 0
        step = 1 if int(first) <= int(last) else -1
        return [f"{number:0{width}d}" for number in range(int(first), int(last) + step, step)]
    if part.startswith("{") and "," in part:
        return part[1:-1].split(",")
    return [part]


def _recognise(path: str) -> str:
    """The kind of data behind a bare path."""
    place = Path(path).expanduser()
    if path.endswith(".tar"):
        return "tar"
    if place.is_dir():
        return "tar" if any(place.glob("*.tar")) else "folder"
    if place.exists():
        raise UserError(f"{path} is neither a tar nor a folder; name its kind as in KIND:{path}")
    raise UserError(f"there is no file or folder {path}; a path or KIND:LOCATION ({', '.join(SUPPORTED)}) would do")


def _parse_options(option_text: str, spec: str) -> tuple[tuple[str, str], ...]:
    options: dict[str, str] = {}
    for pair in option_text.split("&"):
        key, equals, value = pair.partition("=")
        if not key or not equals or key in options:
            raise UserError(f"'{pair}' in the data spec '{spec}' is not key=value, each key once")
        options[key] = value
    return tuple(options.items())
