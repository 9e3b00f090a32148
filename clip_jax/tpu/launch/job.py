"""The training that a launch brings to the workers, looked over before anything costs."""

import hashlib
import netrc
import os
from dataclasses import dataclass
from pathlib import Path

from clip_jax.data.spec import parse_spec
from clip_jax.errors import UserError
from clip_jax.tpu.launch.commands import ARCHIVE, DATE, WANDB_KEY
from clip_jax.training.config import TrainConfig
from clip_jax.training.workdir import check_drawing, locate

EXTRAS = ("train", "tpu", "gcs")
THERE = ("gs://", "/")  # what the workers have may begin with: a bucket, or a disk that they mount


@dataclass(frozen=True)
class Job:
    """`training` is what follows `clip-jax`, as ('train', '--config=...'); `folder`, here, has what is copied."""

    training: tuple[str, ...]
    folder: Path
    wandb: bool = False

    @property
    def files(self) -> list[str]:
        """What is copied into the home folder of every worker."""
        return [str(self.folder / name) for name in (ARCHIVE, DATE, *([WANDB_KEY] if self.wandb else []))]

    @property
    def extras(self) -> tuple[str, ...]:
        """The extras of the package that the workers need."""
        return (*EXTRAS, "wandb") if self.wandb else EXTRAS

    @property
    def run(self) -> str:
        """What `worker.sh state` calls the training: the beginning of its command's SHA-256."""
        return hashlib.sha256(" ".join(self.training).encode()).hexdigest()[:12]


def check_reach(config_file: str, config: TrainConfig, workdir: str) -> None:
    """Raises UserError for a training that finds less on the workers than here, where it would end at once."""
    if Path(config_file).is_absolute():
        raise UserError(f"--config {config_file}: give the path within the repository, where the workers have it too")
    if not workdir.startswith(THERE):
        raise UserError(
            f"--workdir {workdir} would lie on a worker's own disk, and go with it; "
            "gs://BUCKET/RUN stays, in the region of the slice"
        )
    check_drawing(config, in_bucket=workdir.startswith("gs://"))
    data = [one.source for one in config.data.sources] + config.evaluate.data
    for text in data:
        if not _location(locate(text, Path(workdir))).startswith(THERE):
            raise UserError(f"the data {text} is not on the workers; give gs://BUCKET/..., or /... that they mount")


def wandb_key() -> str:
    """The user's key of Weights & Biases. Raises UserError where there is none."""
    key = os.environ.get("WANDB_API_KEY")
    if not key:
        try:
            found = netrc.netrc().authenticators("api.wandb.ai")  # where `wandb login` puts it
        except (OSError, netrc.NetrcParseError):
            found = None
        key = found[2] if found else None
    if not key:
        raise UserError("config.log.wandb needs your key on the workers, and there is none here; wandb login")
    return key


def _location(text: str) -> str:
    """Where data lies, as its spec says; '/' for what is made up as it is read."""
    if text.startswith(THERE):
        return text
    spec = parse_spec(text)
    if spec.kind in ("scenes", "synthetic"):
        return "/"
    return dict(spec.options).get("data_dir", "") if spec.kind == "tfds" else spec.location
