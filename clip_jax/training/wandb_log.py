"""The same figures for Weights & Biases, whose package is an extra."""

import math
import uuid
from dataclasses import asdict
from pathlib import Path
from typing import Any

from etils import epath

from clip_jax.errors import UserError
from clip_jax.training.config import TrainConfig
from clip_jax.training.storage import one_line

RUN_ID = "wandb_id"  # the file in a workdir by which attempts go on with one run there


class WandbLog:
    """A run of the project `config.log.wandb`, taken up again by later attempts; without a project, nothing."""

    def __init__(self, config: TrainConfig, workdir: Path | epath.Path, writes: bool) -> None:
        self._run = None
        if config.log.wandb is None or not writes:
            return
        try:
            import wandb  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise UserError(
                "config.log.wandb needs the package wandb; pip install '.[wandb]' in the repository"
            ) from error
        path = workdir / RUN_ID
        with one_line(workdir, f"write {path}"):
            if not path.exists():
                path.write_text(uuid.uuid4().hex[:12])
            run_id = path.read_text().strip()
        folder = str(workdir) if isinstance(workdir, Path) else None
        try:
            self._run = wandb.init(
                project=config.log.wandb,
                id=run_id,
                name=workdir.name,
                resume="allow",
                config=asdict(config),
                dir=folder,
            )
        except Exception as error:  # not logged in, no network, no such project
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise UserError(f"Weights & Biases cannot begin a run: {reason}; try `wandb login`") from error

    def write(self, step: int, figures: dict[str, Any]) -> None:
        """Logs the figures of one step; those that are no numbers are left out."""
        if self._run is not None:
            numbers = {name: v for name, v in figures.items() if not isinstance(v, str) and math.isfinite(v)}
            self._run.log(numbers, step=step)

    def close(self, failed: bool) -> None:
        """Ends the run, which is shown as crashed where it `failed`."""
        if self._run is not None:
            self._run.finish(exit_code=int(failed))
