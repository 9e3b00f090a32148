"""The folder of a run: which run it holds, and places inside it."""

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from clip_jax.errors import UserError
from clip_jax.schema import parse
from clip_jax.training import metrics
from clip_jax.training.config import TrainConfig
from clip_jax.weights.folders import CHECKPOINTS, TOKENIZER

CONFIG = "config.json"
PLACEHOLDER = "{workdir}"
_ABSENT = object()
# A pod may be lost to a smaller one, or need other settings to fit.
FREE = {
    *("mesh", "microbatches", "log", "checkpoint"),
    *("model.layers", "model.remat", "model.attention", "loss.method"),
}


def check(workdir: Path, config: TrainConfig) -> None:
    """Raises UserError where `workdir` holds another run than this one, naming what differs.

    How a run is computed, logged and kept may change: it goes on with the same losses, but for rounding. A run that
    stopped before its first logged step and checkpoint has nothing to lose and gives way.
    """
    if workdir.exists() and not workdir.is_dir():
        raise UserError(f"the workdir {workdir} is a file; choose another --workdir")
    begun = [name for name in (CHECKPOINTS, metrics.FILE) if (workdir / name).exists()]
    path = workdir / CONFIG
    if not path.is_file():
        if begun:
            raise UserError(f"{workdir} holds {begun[0]} but no {CONFIG}, so it is not a run; choose another --workdir")
        return
    if begun == [metrics.FILE] and not metrics.read_metrics(workdir):
        begun = []
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        found = None
    if not isinstance(found, dict) or "data" not in found:
        raise UserError(f"{path} is not a run's config; choose another --workdir")
    differing = _differences(_essential(_completed(found)), _essential(_plain(config)))
    if begun and differing:
        raise UserError(
            f"{workdir} holds another run: {', '.join(differing)}; "
            "choose another --workdir, or repeat that run's config"
        )


def claim(workdir: Path, config: TrainConfig, tokenizer_files: Mapping[str, bytes] = MappingProxyType({})) -> None:
    """Makes `workdir` the folder of this run, which keeps the files of its tokenizer.

    Raises UserError as `check` does, and where it cannot be written to.
    """
    check(workdir, config)
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        for name, contents in tokenizer_files.items():
            (workdir / TOKENIZER).mkdir(exist_ok=True)
            (workdir / TOKENIZER / name).write_bytes(contents)
        partial = workdir / f".{CONFIG}.partial"
        partial.write_text(json.dumps(_plain(config), indent=2) + "\n", encoding="utf-8")
        os.replace(partial, workdir / CONFIG)
    except OSError as error:
        raise UserError(f"cannot write to the workdir {workdir}: {error.strerror}") from error


def _essential(config: dict[str, Any]) -> dict[str, Any]:
    """A run's config without the keys that do not change what it learns."""
    return {
        group: {key: value for key, value in values.items() if f"{group}.{key}" not in FREE}
        if isinstance(values, dict)
        else values
        for group, values in config.items()
        if group not in FREE
    }


def _completed(found: dict[str, Any]) -> dict[str, Any]:
    """A run's config with the defaults of keys that came after it; as it is where it is another version's."""
    try:
        return _plain(parse(TrainConfig, found, "config"))
    except UserError:
        return found


def _plain(config: TrainConfig) -> dict[str, Any]:
    """The config as JSON gives it back: tuples are lists."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def locate(text: str, workdir: Path) -> str:
    """`text` with `{workdir}` replaced by the run's folder."""
    return text.replace(PLACEHOLDER, str(workdir))


def _differences(found: Any, wanted: Any, path: str = "config") -> list[str]:
    """What differs, as 'config.seed is 0 there and 1 here'."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        keys = dict.fromkeys([*found, *wanted])
        return [
            line
            for key in keys
            for line in _differences(found.get(key, _ABSENT), wanted.get(key, _ABSENT), f"{path}.{key}")
        ]
    if found == wanted:
        return []
    there, here = (json.dumps(value) if value is not _ABSENT else "absent" for value in (found, wanted))
    return [f"{path} is {there} there and {here} here"]
