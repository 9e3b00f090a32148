"""The folder of a run: which run it holds, and places inside it."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from etils import epath

from clip_jax.errors import IOFailure, UserError
from clip_jax.schema import parse
from clip_jax.training import data_list, metrics
from clip_jax.training.config import TrainConfig
from clip_jax.training.data_list import DataList
from clip_jax.training.storage import one_line
from clip_jax.weights.folders import CHECKPOINTS, TOKENIZER

CONFIG = "config.json"
PLACEHOLDER = "{workdir}"
_ABSENT = object()
# A pod may be lost to a smaller one, or need other settings to fit.
FREE = {
    *("mesh", "microbatches", "log", "checkpoint"),
    *("model.layers", "model.remat", "model.attention", "loss.method"),
}


def as_workdir(name: str) -> Path | epath.Path:
    """A folder, or one in a bucket, as gs://BUCKET/FOLDER. Raises UserError for others, IOFailure without an answer."""
    if "://" not in name:
        return Path(name)
    if not name.startswith("gs://"):
        raise UserError(f"the workdir {name} is neither a folder nor in a bucket; a bucket is gs://BUCKET/FOLDER")
    workdir = epath.Path(name)
    with one_line(workdir, f"reach the workdir {name}"):
        workdir.exists()
    return workdir


def check(workdir: Path | epath.Path, config: TrainConfig) -> None:
    """Raises UserError where `workdir` holds another run than this one, naming what differs.

    How a run is computed, logged and kept may change: it goes on with the same losses, but for rounding. A run that
    stopped before its first logged step and checkpoint has nothing to lose and gives way.
    """
    if workdir.exists() and not workdir.is_dir():
        raise UserError(f"the workdir {workdir} is a file; choose another --workdir")
    check_drawing(config, in_bucket=not isinstance(workdir, Path))
    begun = [CHECKPOINTS] if (workdir / CHECKPOINTS).exists() else []
    begun += metrics.metrics_files(workdir)
    path = workdir / CONFIG
    if not path.is_file():
        if begun:
            raise UserError(f"{workdir} holds {begun[0]} but no {CONFIG}, so it is not a run; choose another --workdir")
        return
    if CHECKPOINTS not in begun and not metrics.read_metrics(workdir):
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


def check_drawing(config: TrainConfig, in_bucket: bool) -> None:
    """Raises UserError for a run in a bucket that would have scenes drawn."""
    if in_bucket and config.data.draw is not None:
        raise UserError("scenes cannot be drawn for a workdir in a bucket; draw them elsewhere and give their tars")


def claim(
    workdir: Path | epath.Path,
    config: TrainConfig,
    tokenizer_files: Mapping[str, bytes] = MappingProxyType({}),
    data: DataList | None = None,
) -> None:
    """Makes `workdir` the folder of this run, which keeps the files of its tokenizer and, where it begins, what its
    data is: a run that goes on has that already.

    Raises UserError as `check` does, and where it cannot be written to; IOFailure where a bucket refuses.
    """
    check(workdir, config)
    failure = UserError if isinstance(workdir, Path) else IOFailure
    with one_line(workdir, f"write to the workdir {workdir}", failure):
        workdir.mkdir(parents=True, exist_ok=True)
        for name, contents in tokenizer_files.items():
            (workdir / TOKENIZER).mkdir(exist_ok=True)
            (workdir / TOKENIZER / name).write_bytes(contents)
        if data is not None:
            _write_json(workdir / data_list.FILE, data)
        _write_json(workdir / CONFIG, _plain(config))


def _write_json(path: Path | epath.Path, values: dict[str, Any]) -> None:
    """Whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    partial.replace(path)


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


def locate(text: str, workdir: Path | epath.Path) -> str:
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
