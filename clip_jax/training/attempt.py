"""What is noted of each attempt at a run: where and with what it was made, what it saw first, how its time goes."""

import json
import platform
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax
from etils import epath

import clip_jax
from clip_jax.data.contact_sheet import draw_contact_sheet
from clip_jax.data.pipeline import Batch
from clip_jax.errors import IOFailure, UserError, reason
from clip_jax.inputs.base_tokenizer import Tokenizer
from clip_jax.training.storage import one_line

FOLDER = "attempts"
SHEET = "first_batch.png"
PROFILE = "profile"
PACKAGES = ("jax", "jaxlib", "libtpu", "flax", "optax", "orbax-checkpoint", "tensorflow-cpu", "tensorflow", "numpy")
_SHOWN = 36  # samples of the first batch
_WARM_UPS = 5  # updates before the ones that are profiled


def environment() -> dict[str, Any]:
    """Versions, the state of the checkout, the devices and the command line, JSON-able."""
    devices = jax.devices()
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "clip_jax": clip_jax.__version__,
        "git": _git(Path(clip_jax.__file__).parent),
        "python": platform.python_version(),
        "versions": _versions(),
        "host": platform.node(),
        "processes": jax.process_count(),
        "devices": {"kind": devices[0].device_kind, "platform": devices[0].platform, "number": len(devices)},
    }


def note(workdir: Path | epath.Path, step: int, found: Mapping[str, Any]) -> None:
    """Writes `found` as what the attempt that begins at `step` was made with; earlier attempts stay noted.

    Raises IOFailure.
    """
    path = workdir / FOLDER / f"{step:09d}-{datetime.now(UTC):%Y%m%dT%H%M%S}.json"
    with one_line(workdir, f"write {path}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(found, indent=2) + "\n")


def draw_first_batch(workdir: Path | epath.Path, batch: Batch, tokenizer: Tokenizer) -> None:
    """A picture of the first samples as the model sees them. Raises IOFailure."""
    captions: Sequence[str] = [tokenizer.decode(row) for row in batch.tokens[:_SHOWN]]
    # matplotlib knows no buckets
    with one_line(workdir, f"write {workdir / SHEET}"), tempfile.TemporaryDirectory() as folder:
        sheet = Path(folder) / SHEET
        try:
            draw_contact_sheet(batch.pixels[:_SHOWN], captions, sheet, f"the first batch, {batch.digest}")
        except UserError as error:
            raise IOFailure(str(error)) from error
        (workdir / SHEET).write_bytes(sheet.read_bytes())


def check_profile(steps: int, run: int) -> None:
    """Raises UserError where a run of so many updates is too short for a profile of `steps` of them."""
    if steps and run < _WARM_UPS + steps:
        raise UserError(
            f"config.log.profile is {steps}, which takes {_WARM_UPS + steps} updates since the first {_WARM_UPS} are "
            f"not traced; the run has {run}"
        )


class Profile:
    """A trace of `steps` updates for TensorBoard's or Perfetto's viewer, once an attempt is warm; none where 0.

    An attempt that begins less than that before the `end` makes none, with a warning; one that ends while it is traced
    leaves the trace of what there was.
    """

    def __init__(self, workdir: Path | epath.Path, start: int, end: int, steps: int) -> None:
        self._folder = str(workdir / PROFILE)
        self._first, self._last = start + _WARM_UPS, start + _WARM_UPS + steps
        self._steps, self._tracing = steps, False
        if steps and self._last > end:
            warnings.warn(f"only {end - start} updates are left, too few for config.log.profile {steps}", stacklevel=2)
            self._steps = 0

    def follow(self, step: int, figures: Mapping[str, Any]) -> None:
        """To be told of each update that has begun, `step` being the number made with it."""
        if self._steps and step in (self._first, self._last):
            jax.block_until_ready(figures)
            if step == self._first:
                jax.profiler.start_trace(self._folder)
                self._tracing = True
            else:
                self.close()

    def close(self) -> None:
        """Writes the trace, if one is being made; a run does not end because of a trace that cannot be written."""
        if self._tracing:
            self._tracing = False
            try:
                jax.profiler.stop_trace()
            except Exception as error:
                warnings.warn(f"cannot write the profile to {self._folder}: {reason(error)}", stacklevel=2)


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _git(folder: Path) -> dict[str, Any] | None:
    """Commit and whether files differ from it; none where the package is no checkout."""

    def ask(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10, check=True
        )
        return done.stdout.strip()

    try:
        ask("ls-files", "--error-unmatch", "__init__.py")  # not a checkout that it merely was installed in
        return {"commit": ask("rev-parse", "HEAD"), "changed": ask("status", "--porcelain", "-uno").splitlines()}
    except (OSError, subprocess.SubprocessError):
        return None
