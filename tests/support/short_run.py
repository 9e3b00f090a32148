"""The config of runs that are over in seconds: six updates of a tiny model, on drawn scenes and eight devices."""

from clip_jax.sharding import MeshConfig
from clip_jax.training.config import CheckpointConfig, DataConfig, LogConfig, ModelConfig, OptimizerConfig, TrainConfig

SHORT = TrainConfig(
    data=DataConfig("scenes:train?images=40&size=48"),
    steps=6,
    batch_size=8,
    model=ModelConfig(name="tiny", dtype="float32", layers="scan"),
    mesh=MeshConfig(data=8),
    optimizer=OptimizerConfig(warmup=1),
    checkpoint=CheckpointConfig(every=2),
    log=LogConfig(every=1, tensorboard=False),
)
