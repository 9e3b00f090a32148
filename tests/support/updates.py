"""A few updates of a toy model with batches drawn on the spot, on a mesh of choice."""

from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from clip_jax.config import ClipConfig
from clip_jax.models.two_tower import Params, init_params
from clip_jax.sharding import MeshConfig, make_mesh
from clip_jax.training.config import DataConfig, ModelConfig, OptimizerConfig, TrainConfig
from clip_jax.training.optimizer import make_optimizer
from clip_jax.training.state import TrainState, abstract_state, begin
from clip_jax.training.step import make_step

CONFIG = TrainConfig(
    data=DataConfig("scenes:train"),
    steps=10,
    model=ModelConfig(dtype="float32", layers="scan"),
    optimizer=OptimizerConfig(learning_rate=1e-3, warmup=0, weight_decay=0.2, clip_norm=1.0),
)


@lru_cache
def _first_params(model: ClipConfig) -> Params:
    """On the host, since compiling what draws them takes as long as compiling an update."""
    return jax.tree.map(np.asarray, jax.jit(lambda: init_params(model, jax.random.key(0)))())


def first_state(
    model: ClipConfig, optimizer: optax.GradientTransformation, mesh: Mesh, ema: bool = False
) -> tuple[TrainState, TrainState]:
    """The state before the first update on a mesh, free to be overwritten, and its shardings."""
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract_state(model, optimizer, mesh, ema))
    params = jax.tree.map(jnp.array, _first_params(model))
    return jax.device_put(begin(params, optimizer, ema), shardings), shardings


def run(
    config: TrainConfig, model: ClipConfig, mesh_config: MeshConfig, devices: int, updates: int = 3
) -> tuple[Params, list[dict[str, float]]]:
    """The parameters after some updates with batches drawn on the spot, and the figures of every update."""
    mesh = make_mesh(mesh_config, jax.devices()[:devices])
    optimizer = make_optimizer(config.optimizer, config.steps)
    state, shardings = first_state(model, optimizer, mesh)
    step = make_step(config, model, optimizer, mesh, shardings)
    rng = np.random.default_rng(0)
    size = model.vision.image_size
    figures = []
    for _ in range(updates):
        pixels = rng.integers(0, 256, (16, size, size, 3), dtype=np.uint8)
        tokens = rng.integers(1, 699, (16, 12)).astype(np.int32)
        tokens[np.arange(16), rng.integers(3, 12, 16)] = 699
        state, metrics = step(state, pixels, tokens)
        figures.append({name: float(value) for name, value in metrics.items()})
    assert jax.tree.map(lambda leaf: leaf.sharding, state) == shardings
    return jax.tree.map(np.asarray, state["params"]), figures
