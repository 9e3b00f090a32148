"""The files that a location names: a file, a folder, or a pattern of braces and globs, local or remote."""

import glob
import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import product

from clip_jax.data import files
from clip_jax.data.index_file import SUFFIX
from clip_jax.errors import UserError


def expand(location: str, names: str = "*.tar") -> list[str]:
    """The files that a location names; of a folder, those whose names match `names`, sorted.

    `{00000..00012}` and `{train,test}` stand for each of their values in order and `*` for every match in sorted
    order, as in a shell. Raises UserError where a name or a pattern matches no file.
    """
    patterns = expand_braces(os.path.expanduser(location))
    with ThreadPoolExecutor(files.AT_ONCE) as pool:  # each may be a request to another machine
        found = list(pool.map(lambda pattern: _matches(pattern, names), patterns))
    for pattern, paths in zip(patterns, found, strict=True):
        if not paths:
            origin = f" (of {location})" if pattern != location else ""
            raise UserError(f"no file matches {pattern}{origin}; give files, a folder of {names}, or a pattern of them")
    return [path for paths in found for path in paths]


def _matches(pattern: str, names: str) -> list[str]:
    # A file or folder is what its name says even if there are brackets in that.
    kind = None if files.is_remote(pattern) and glob.has_magic(pattern) else files.kind(pattern)
    if kind == "file":
        return [pattern]
    if kind is None and not glob.has_magic(pattern):
        return []
    found = files.match(os.path.join(glob.escape(pattern), names) if kind == "folder" else pattern)
    return [path for path in found if not path.endswith(SUFFIX)]


def expand_braces(pattern: str) -> list[str]:
    """Every string that a pattern of `{a..b}` ranges and `{x,y}` lists stands for; braces do not nest."""
    parts = re.split(r"(\{[^{}]*\})", pattern)
    return ["".join(choice) for choice in product(*map(_alternatives, parts))]


def distinguish(paths: Sequence[str], suffix: str = "") -> list[str]:
    """What tells the files apart: their paths without `suffix` from the folder that they have in common."""
    places = [f"/{path.replace('://', '/', 1)}" if files.is_remote(path) else os.path.abspath(path) for path in paths]
    common = os.path.commonpath([os.path.dirname(place) for place in places])
    return [os.path.relpath(place, common).removesuffix(suffix) for place in places]


def check_distinct(paths: Sequence[str], what: str) -> None:
    """Raises UserError where there are no paths, or one comes twice; `what` they are, as in 'tar shards'."""
    if not paths:
        raise UserError(f"there are no {what}; give at least one")
    if len(set(paths)) < len(paths):
        twice = next(path for path in paths if paths.count(path) > 1)
        raise UserError(f"{twice} is given more than once among the {what}; give each once")


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
