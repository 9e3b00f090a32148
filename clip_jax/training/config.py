"""What a training run is: the schema of its config, with the paper's recipe as defaults.

Recipes are ml_collections ConfigDicts; they are checked against these dataclasses, so that an unknown key or a wrong
type is refused with the nearest valid key named.
"""

from dataclasses import dataclass, field
from typing import Literal

from clip_jax.config import AttentionKernel, ComputeConfig
from clip_jax.errors import UserError
from clip_jax.losses import Kind, Method
from clip_jax.sharding import MeshConfig
from clip_jax.training.evaluate_config import EvaluateConfig
from clip_jax.training.share import Share, in_steps


@dataclass(frozen=True)
class ModelConfig:
    """A named architecture, what it begins with, and how it is computed in training.

    `init` is a model to begin with: a path in any layout, a pretrained name or hf-hub:OWNER/NAME; its architecture,
    preprocessing and tokenizer are taken too, unless `init_only`, a regular expression on parameter paths, takes only
    some parameters of it (`^visual/`) into the architecture `name`.
    `patch_dropout` is the share of each image's patches that the tower does not see, but for the last `unmasked_tail`
    updates.
    """

    name: str = "ViT-B-32-quickgelu"
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    layers: Literal["scan", "unroll"] = "scan"
    remat: Literal["none", "block", "dots"] = "none"
    attention: AttentionKernel = "xla"
    init: str | None = None
    init_only: str | None = None
    patch_dropout: float = 0.0
    unmasked_tail: Share = 0

    @property
    def compute(self) -> ComputeConfig:
        """How the model is computed."""
        return ComputeConfig(self.dtype, self.layers, self.remat, self.attention)


@dataclass(frozen=True)
class DrawConfig:
    """Drawn scenes that are written to `folder` as tar shards if they are not there yet.

    `seed` is the data's own, so that runs with different seeds train on the same images.
    """

    folder: str
    train: int = 20_000
    held_out: int = 1_200
    seed: int = 2021


@dataclass(frozen=True)
class SourceConfig:
    """One of several sources (a data SPEC), and its weight among them: as many as its samples where there is none."""

    source: str
    weight: float | None = None


@dataclass(frozen=True)
class DataConfig:
    """The training data (a data SPEC, or a list of them; `{workdir}` stands for the run's folder) and how it varies.

    `crop_scale` is the range of a random crop's area as a share of the image's, `flip` the share of images that are
    mirrored, `colours` the strength of changes in brightness, contrast and saturation. A sample's captions are taken
    each as often as any, or by `caption_weights` of the first, second, ... field that the SPEC names (of the first,
    second, ... caption where it names one). Blocks of `shuffle_block` adjacent samples are read together and
    `shuffle_window` blocks mixed, and each goes to one of `shuffle_lanes` parts of a batch, so that a host reads but
    its own. A bad sample is replaced; the run stops where more than `most_bad`, a share, are.
    """

    source: str | tuple[str | SourceConfig, ...]
    crop_scale: tuple[float, float] = (0.9, 1.0)
    flip: float = 0.0
    colours: float = 0.0
    caption_weights: tuple[float, ...] = ()
    shuffle_block: int = 64
    shuffle_window: int = 64
    shuffle_lanes: int = 64
    most_bad: float = 0.1
    draw: DrawConfig | None = None

    @property
    def sources(self) -> tuple[SourceConfig, ...]:
        """Every source, one or several."""
        several = (self.source,) if isinstance(self.source, str) else self.source
        return tuple(SourceConfig(one) if isinstance(one, str) else one for one in several)


@dataclass(frozen=True)
class LossConfig:
    """The contrastive loss, and how it crosses devices: `gather`, or `ring` where the logits would not fit.

    `dtype` is what the features are rounded to before they are compared, which is done in float32 either way; bfloat16
    halves what travels around the ring.
    """

    kind: Kind = "softmax"
    method: Method = "gather"
    dtype: Literal["float32", "bfloat16"] = "float32"


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW with linear warmup and cosine decay to zero. Defaults: appendix F of the paper, for ViTs.

    `clip_norm` bounds the global norm of the gradients, `max_logit_scale` the temperature's multiplier; either may be
    none. `moment_dtype` is the type of the first moments. `frozen` is a regular expression on parameter paths
    (`^visual/` is LiT): what it is found in stays as it is, and has neither gradients nor moments. `factors` pairs such
    expressions with multiples of the learning rate, of which the first that is found counts; `layer_decay` is the rate
    of a block relative to the one above it. `skip_above` leaves out updates whose gradients are that many times larger
    than of late. `ema` is the decay of a running average of the parameters, which evaluations and `load` then take.
    """

    learning_rate: float = 5e-4
    warmup: Share = 2_000
    b1: float = 0.9
    b2: float = 0.98
    epsilon: float = 1e-6
    weight_decay: float = 0.2
    clip_norm: float | None = None
    max_logit_scale: float | None = 100.0
    moment_dtype: Literal["float32", "bfloat16"] = "float32"
    frozen: str | None = None
    factors: tuple[tuple[str, float], ...] = ()
    layer_decay: float = 1.0
    skip_above: float | None = None
    ema: float | None = None


@dataclass(frozen=True)
class CheckpointConfig:
    """A checkpoint every so many steps and at the end, and where so many `minutes` have passed since the last.

    The newest `keep` stay. `best` is a figure of the evaluations, as eval/held_out/top1: a checkpoint is then saved
    after every evaluation too, and the one where the figure is highest stays beside the newest.
    """

    every: Share = 1_000
    minutes: float | None = None
    keep: int = 3
    best: str | None = None


@dataclass(frozen=True)
class LogConfig:
    """A line in metrics.jsonl every so many steps, and the same to TensorBoard, and to a project of Weights & Biases.

    `first_batch` draws the samples of the first batch as the model sees them; `profile` traces so many updates, once a
    few were made, for TensorBoard's or Perfetto's viewer.
    """

    every: Share = 50
    tensorboard: bool = True
    wandb: str | None = None
    first_batch: bool = True
    profile: int = 0


@dataclass(frozen=True)
class TrainConfig:
    """A whole training run. `batch_size` is global; `microbatches` are the parts that its activations are held in."""

    data: DataConfig
    seed: int = 0
    steps: int = 100_000
    batch_size: int = 4_096
    microbatches: int = 1
    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    log: LogConfig = field(default_factory=LogConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "microbatches"):
            if getattr(self, name) < 1:
                raise UserError(f"config.{name} is {getattr(self, name)}; it must be at least 1")
        for name in ("checkpoint", "log", "evaluate"):
            in_steps(getattr(self, name).every, self.steps, f"config.{name}.every", least=1)
        if self.checkpoint.keep < 1:
            raise UserError(f"config.checkpoint.keep is {self.checkpoint.keep}; it must be at least 1")
        if self.checkpoint.minutes is not None and not self.checkpoint.minutes > 0:
            raise UserError(f"config.checkpoint.minutes is {self.checkpoint.minutes}; it must be above 0")
        low, high = self.data.crop_scale
        if not 0 < low <= high <= 1:
            raise UserError(f"config.data.crop_scale is {low}, {high}; it must be a rising range within 0 and 1")
        for name in ("flip", "colours", "most_bad"):
            if not 0 <= getattr(self.data, name) <= 1:
                raise UserError(f"config.data.{name} is {getattr(self.data, name)}; it must lie between 0 and 1")
        weights = self.data.caption_weights
        if weights and (min(weights) < 0 or max(weights) == 0):
            raise UserError(f"config.data.caption_weights are {weights}; none may be below 0, nor all be 0")
        weighted = {one.weight is not None for one in self.data.sources}
        if len(weighted) > 1:
            raise UserError("config.data.source gives some sources a weight and some none; give all one, or none")
        if len({one.source for one in self.data.sources}) < len(self.data.sources):
            raise UserError("config.data.source names a source twice; give it once, with a larger weight")
        in_steps(self.optimizer.warmup, self.steps, "config.optimizer.warmup", least=0)
        in_steps(self.model.unmasked_tail, self.steps, "config.model.unmasked_tail", least=0)
        if not 0 <= self.model.patch_dropout < 1:
            raise UserError(f"config.model.patch_dropout is {self.model.patch_dropout}; it is a share below 1")
        if not 0 < self.optimizer.layer_decay <= 1:
            raise UserError(f"config.optimizer.layer_decay is {self.optimizer.layer_decay}; it is above 0, 1 at most")
        if self.optimizer.skip_above is not None and self.optimizer.skip_above <= 1:
            raise UserError(f"config.optimizer.skip_above is {self.optimizer.skip_above}; it must be above 1")
        if self.optimizer.ema is not None and not 0 < self.optimizer.ema < 1:
            raise UserError(f"config.optimizer.ema is {self.optimizer.ema}; it must lie between 0 and 1")
