"""Is the config valid, and does it fit the devices that are here."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from clip_jax.config import ClipConfig
from clip_jax.model_size import parameters
from clip_jax.sharding import batch_shards, make_mesh
from clip_jax.tpu.doctor.examination import Finding
from clip_jax.training.config import TrainConfig
from clip_jax.training.config_file import load_config
from clip_jax.training.distributed import batch_share
from clip_jax.training.initial import source_of
from clip_jax.training.model import check_mesh, training_model
from clip_jax.weights.checkpoint import Checkpoint


@dataclass(frozen=True)
class Run:
    """What a config asks for: the model, and the one to begin with where there is one."""

    config: TrainConfig
    model: ClipConfig
    source: Checkpoint | None


def check_config(file: str, overrides: Sequence[tuple[str, str]]) -> Finding:
    """The config as train would read it. Raises UserError as that does."""
    config = load_config(file, overrides)
    source = source_of(config)
    model = training_model(config, None if source is None else source.config)
    size = parameters(model)
    seen = (
        f"{config.model.name}, {size.total / 1e6:,.1f} M parameters (image {size.image / 1e6:,.1f} M, text "
        f"{size.text / 1e6:,.1f} M); {config.steps:,} steps of {config.batch_size:,}"
    )
    figures = {"model": config.model.name, "parameters": size.total, "image": size.image, "text": size.text}
    return Finding("ok", seen, figures=figures, found=Run(config, model, source))


def check_layout(run: Run, devices: Sequence[Any]) -> Finding:
    """Whether mesh, batch and model divide over the devices. Raises UserError where they do not."""
    config = run.config
    mesh = make_mesh(config.mesh, devices)
    check_mesh(config, run.model, mesh)
    batch_share(mesh)
    each = config.batch_size // (batch_shards(mesh) * config.microbatches)
    seen = ", ".join(f"{name}={size}" for name, size in mesh.shape.items())
    seen += f"; {each:,} pairs a device" + (" at a time" if config.microbatches > 1 else "")
    return Finding("ok", seen, figures={"mesh": dict(mesh.shape), "pairs_per_device": each}, found=mesh)
