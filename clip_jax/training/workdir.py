"""The folder of a run: which run it holds, and places inside it."""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

from clip_jax.errors import UserError
from clip_jax.training.config import TrainConfig

PLACEHOLDER = "{workdir}"
_ABSENT = object()


def claim(workdir: Path, config: TrainConfig) -> None:
    """Makes `workdir` the folder of this run, or checks that it is already.

    Raises UserError where it holds another run, naming what differs; nothing there is changed then.
    """
    wanted = json.loads(json.dumps(dataclasses.asdict(config)))
    path = workdir / "config.json"
    if path.is_file():
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise UserError(f"{path} is not JSON; choose another --workdir") from error
        differing = _differences(found, wanted)
        if differing:
            raise UserError(
                f"{workdir} holds another run: {', '.join(differing)}; "
                "choose another --workdir, or repeat that run's config"
            )
        return
    for name in ("checkpoints", "metrics.jsonl"):
        if (workdir / name).exists():
            raise UserError(f"{workdir} holds {name} but no config.json, so it is not a run; choose another --workdir")
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        partial = workdir / ".config.json.partial"
        partial.write_text(json.dumps(wanted, indent=2) + "\n", encoding="utf-8")
        os.replace(partial, path)
    except OSError as error:
        raise UserError(f"cannot write to the workdir {workdir}: {error.strerror}") from error


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
