"""Frozen description of a CLIP model: both towers, preprocessing, tokenizer, and how it is computed.

Everything that a state dict does not tell (activation, epsilon, head count, pooling, resize mode, mean and
standard deviation) is a field here and is saved with the weights, so nothing is guessed from a shape.
"""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from clip_jax.errors import UserError
from clip_jax.schema import parse

Activation = Literal["quick_gelu", "gelu", "gelu_tanh"]

OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class TransformerConfig:
    """A stack of pre-norm residual attention blocks.

    `activation`: quick_gelu is x*sigmoid(1.702x) (OpenAI), gelu the exact error function form (most of
    open_clip), gelu_tanh its tanh approximation (SigLIP).
    """

    width: int
    layers: int
    heads: int
    mlp_ratio: float = 4.0
    activation: Activation = "quick_gelu"
    norm_epsilon: float = 1e-5

    def __post_init__(self) -> None:
        if self.heads < 1 or self.width % self.heads:
            raise UserError(f"width {self.width} does not divide into {self.heads} heads; choose heads that divide it")

    @property
    def mlp_width(self) -> int:
        return int(self.width * self.mlp_ratio)


@dataclass(frozen=True)
class VisionConfig:
    """A vision transformer over square images of `image_size` pixels in patches of `patch_size`."""

    image_size: int
    patch_size: int
    transformer: TransformerConfig
    pooling: Literal["class_token"] = "class_token"

    def __post_init__(self) -> None:
        if self.patch_size < 1:
            raise UserError(f"patch_size is {self.patch_size}; it must be at least 1")
        if self.image_size % self.patch_size:
            raise UserError(
                f"image_size {self.image_size} is not a whole number of {self.patch_size}-pixel patches; "
                f"{self.image_size // self.patch_size * self.patch_size} would be"
            )

    @property
    def patches(self) -> int:
        return (self.image_size // self.patch_size) ** 2


@dataclass(frozen=True)
class TextConfig:
    """A causal text transformer; the feature is the row of the largest token id, which is the end token."""

    transformer: TransformerConfig
    context_length: int = 77
    vocab_size: int = 49408
    pooling: Literal["argmax"] = "argmax"


@dataclass(frozen=True)
class PreprocessConfig:
    """How an image file becomes the vision tower's input.

    `resize`: `shortest` scales the short side to the image size and crops the centre (CLIP), `longest`
    scales the long side and pads, `squash` scales both sides (SigLIP). `fill` is the padding's grey level, 0-255.
    """

    resize: Literal["shortest", "longest", "squash"] = "shortest"
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    mean: tuple[float, float, float] = OPENAI_MEAN
    std: tuple[float, float, float] = OPENAI_STD
    fill: int = 0


@dataclass(frozen=True)
class TokenizerConfig:
    """Which tokenizer the text tower was trained with. `clip_bpe` is OpenAI's byte-pair encoding."""

    kind: Literal["clip_bpe"] = "clip_bpe"


@dataclass(frozen=True)
class ClipConfig:
    """A whole CLIP model. `embed_dim` is the width of the space that both towers project into."""

    embed_dim: int
    vision: VisionConfig
    text: TextConfig
    preprocess: PreprocessConfig = field(default_factory=PreprocessConfig)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)

    def to_dict(self) -> dict[str, Any]:
        """The config as plain dicts, lists and scalars, ready for JSON."""
        return asdict(self)

    @staticmethod
    def from_dict(values: dict[str, Any]) -> "ClipConfig":
        """The inverse of `to_dict`. Raises UserError for an unknown, missing or mistyped key."""
        return parse(ClipConfig, values, "model config")


@dataclass(frozen=True)
class ComputeConfig:
    """How a model is run; it changes speed and memory, never the parameters.

    `dtype` is the activations' type (normalisation statistics, softmax and logits stay float32). `layers`: `scan`
    compiles one block for all of them and suits deep models in training, `unroll` is faster on CPUs. `remat`
    recomputes in the backward pass instead of keeping: nothing (`none`), each block whole (`block`), or all but
    the results of matrix products (`dots`).
    """

    dtype: Literal["float32", "bfloat16"] = "float32"
    layers: Literal["scan", "unroll"] = "unroll"
    remat: Literal["none", "block", "dots"] = "none"
