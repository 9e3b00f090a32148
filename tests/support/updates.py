"""A few updates of a toy model with batches drawn on the spot, on a mesh of choice."""

from functools import lru_cache

import jax
import numpy as np

from clip_jax.config import ClipConfig
from clip_jax.models.two_tower import Params
from clip_jax.sharding import MeshConfig, make_mesh
from clip_jax.training.config import DataConfig, ModelConfig, OptimizerConfig, TrainConfig
from clip_jax.training.optimizer import make_optimizer
from clip_jax.training.state import TrainState, abstract_state, init_state
from clip_jax.training.step import make_step

CONFIG = TrainConfig(
    data=DataConfig("scenes:train"),
    steps=10,
    model=ModelConfig(dtype="float32", layers="scan"),
    optimizer=OptimizerConfig(learning_rate=1e-3, warmup=0, weight_decay=0.2, clip_norm=1.0),
)


@lru_cache
def beginning(model: ClipConfig, config: OptimizerConfig, steps: int) -> TrainState:
    """The state before the first update, on the host, since compiling what draws it takes as long as an update's."""
    state = jax.jit(lambda: init_state(model, make_optimizer(config, steps), 0))()
    return jax.tree.map(np.asarray, state)


def run(
    config: TrainConfig, model: ClipConfig, mesh_config: MeshConfig, devices: int, updates: int = 3
) -> tuple[Params, list[dict[str, float]]]:
    """The parameters after some updates with batches drawn on the spot, and the figures of every update."""
    mesh = make_mesh(mesh_config, jax.devices()[:devices])
    optimizer = make_optimizer(config.optimizer, config.steps)
    abstract = abstract_state(model, optimizer, mesh)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
    # Of a copy, as updates are given their state to overwrite.
    state = jax.device_put(jax.tree.map(np.array, beginning(model, config.optimizer, config.steps)), shardings)
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
