"""The list of a run's data: its files, how many samples each holds, and which. With others it does not go on."""

import hashlib
import json
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from etils import epath

from clip_jax.data.patterns import distinguish
from clip_jax.data.table import Table
from clip_jax.errors import UserError
from clip_jax.training.storage import one_line

FILE = "data.json"
ASKED = 64  # keys of a file that are compared, from its first to its last
SHOWN = 5  # differences that are named


DataList: TypeAlias = dict[str, dict[str, list[int | str]]]


def data_list(sources: Mapping[str, Table]) -> DataList:
    """For each source by its SPEC, its files in order, with their samples' number and a digest of their keys.

    Files go by what tells them apart, so that a folder may be mounted elsewhere.
    """
    return {name: _files(table) for name, table in sources.items()}


def _files(table: Table) -> dict[str, list[int | str]]:
    names, sizes = distinguish(list(table.parts)), list(table.parts.values())
    asked = [
        first + np.unique(np.linspace(0, size - 1, min(size, ASKED), dtype=np.int64))
        for first, size in zip(np.cumsum([0, *sizes]), sizes, strict=False)
    ]
    keys = table.keys(np.concatenate(asked))
    ends = np.cumsum([0, *map(len, asked)])
    digests = [hashlib.sha256("\0".join(keys[start:end]).encode()).hexdigest()[:16] for start, end in pairwise(ends)]
    return {name: [size, digest] for name, size, digest in zip(names, sizes, digests, strict=True)}


def check_data(workdir: Path | epath.Path, now: DataList) -> None:
    """Raises UserError where the data is not what the run in `workdir` was begun with, naming what differs."""
    path = workdir / FILE
    with one_line(workdir, f"read {path}"):
        if not path.is_file():  # somebody removed it
            return
        before = json.loads(path.read_text(encoding="utf-8"))
    for name in now:
        differing = _changes(before.get(name, {}), now[name])
        if differing:
            more = f" and {len(differing) - SHOWN} more differences" if len(differing) > SHOWN else ""
            raise UserError(
                f"the data {name} has changed since the run in {workdir} began: {', '.join(differing[:SHOWN])}{more}; "
                "bring it back as it was, or start a new workdir"
            )


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What happened to the files of a source, in words."""
    changes = [f"{file} is gone" for file in before if file not in now]
    changes += [f"{file} is new" for file in now if file not in before]
    both = [(file, before[file], now[file]) for file in before if file in now]
    changes += [f"{file} has {new[0]:,} samples instead of {old[0]:,}" for file, old, new in both if new[0] != old[0]]
    if not changes and list(before) != list(now):
        return ["its files come in another order"]
    return changes or [f"{file} holds other samples" for file, old, new in both if new != old]
