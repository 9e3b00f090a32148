"""What a run begins with: fresh parameters, or those of another model; and the files of its tokenizer."""

import re
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np
import optax
from jax.sharding import NamedSharding

from clip_jax.config import ClipConfig
from clip_jax.errors import UserError
from clip_jax.models.two_tower import Params
from clip_jax.training.config import TrainConfig
from clip_jax.training.learning_rates import compiled
from clip_jax.training.model import training_model
from clip_jax.training.state import TrainState, begin, init_state
from clip_jax.weights.checkpoint import Checkpoint, Parameter
from clip_jax.weights.loading import find_checkpoint
from clip_jax.weights.tree import flatten, unflatten

LOGITS = ("logit_scale", "logit_bias")
CLOSE = 1.001  # OpenAI's models were clipped at 100 and rounded


def source_of(config: TrainConfig) -> Checkpoint | None:
    """The model that `config.model.init` names, in any layout, not read yet; None for a run from scratch."""
    return None if config.model.init is None else find_checkpoint(config.model.init)


def model_of(config: TrainConfig) -> ClipConfig:
    """The model that a run trains, its source's architecture included, for those who do not need its weights."""
    source = source_of(config) if config.model.init_only is None else None
    return training_model(config, None if source is None else source.config)


def initial_state(
    config: TrainConfig,
    model: ClipConfig,
    optimizer: optax.GradientTransformation,
    shardings: TrainState,
    source: Checkpoint | None,
) -> TrainState:
    """The state before the first update, made where it lies; of a source, a host holds one tensor at a time.

    Parameters that `config.model.init_only` does not match begin at random. So do those that the source lacks, and
    where the loss is of another kind than the source's, the logit scale and bias begin as that loss wants them. Raises
    UserError for shapes that differ, and for a logit scale above the bound that is to hold.
    """
    ema = config.optimizer.ema is not None

    def begin_at_random() -> TrainState:
        return init_state(model, optimizer, config.seed, ema)

    if source is None:
        return jax.jit(begin_at_random, out_shardings=shardings)()
    pattern = compiled(config.model.init_only or "", "config.model.init_only")
    targets = flatten(jax.eval_shape(begin_at_random)["params"])
    taken = _taken(config, source.parameters, targets, pattern)
    if source.config.is_sigmoid != model.is_sigmoid:
        taken = [name for name in taken if name not in LOGITS]
    _check_logit_scale(config, source, taken)
    fresh = jax.jit(lambda: begin_at_random()["params"], out_shardings=shardings["params"])()
    params = flatten(fresh) | {
        name: _placed(source.parameters[name], flatten(shardings["params"])[name], targets[name].dtype)
        for name in taken
    }
    # Moments of nothing but zeros, as in a fresh state, but an average begins with these parameters.
    return jax.jit(lambda params: begin(params, optimizer, ema), out_shardings=shardings)(unflatten(params))


def _check_logit_scale(config: TrainConfig, source: Checkpoint, taken: list[str]) -> None:
    """Raises UserError for one that the first update would cut down."""
    most = config.optimizer.max_logit_scale
    if most is None or "logit_scale" not in taken:
        return
    scale = float(np.exp(np.asarray(source.parameters["logit_scale"].read(None), np.float64)))
    if scale > most * CLOSE:
        raise UserError(
            f"{config.model.init} has a logit scale of {scale:.1f}, above config.optimizer.max_logit_scale {most:g}; "
            "raise that, or set it to None"
        )


def tokenizer_files(model: ClipConfig, source: Checkpoint | None) -> Mapping[str, bytes]:
    """What the model's tokenizer reads: the source's files, else those of its repository, fetched from the hub.

    Raises UserError where they are needed and cannot be had.
    """
    tokenizer = model.tokenizer
    if tokenizer.kind == "clip_bpe":
        return {}
    if source is not None and tokenizer.file in source.tokenizer_files:
        return source.tokenizer_files
    if tokenizer.repository is None or tokenizer.file is None:
        return {}  # whoever needs the tokenizer says which file is missing
    from clip_jax.weights.hub import download_file

    return {tokenizer.file: Path(download_file(tokenizer.repository, tokenizer.file)).read_bytes()}


def _taken(config: TrainConfig, parameters: Mapping[str, Parameter], targets: Params, pattern: re.Pattern) -> list[str]:
    taken = [name for name in targets if pattern.search(name) and name in parameters]
    if not taken:
        raise UserError(f"config.model.init_only '{config.model.init_only}' finds no parameter of {config.model.init}")
    for name in taken:
        if parameters[name].shape != targets[name].shape:
            raise UserError(
                f"{name} has shape {list(parameters[name].shape)} in {config.model.init}, and "
                f"{list(targets[name].shape)} in {config.model.name}; give the source's own architecture as model.name"
            )
    return taken


def _placed(parameter: Parameter, sharding: NamedSharding, dtype: np.dtype) -> jax.Array:
    values = np.asarray(parameter.read(None)).astype(dtype)
    return jax.make_array_from_callback(values.shape, sharding, lambda index: values[index])
