"""Frozen description of a CLIP model: both towers, preprocessing, tokenizer, and how it is computed.

Everything that a state dict does not tell (activation, epsilon, head count, pooling, resize mode, mean and
standard deviation) is a field here and is saved with the weights, so nothing is guessed from a shape.
"""

import math
import reprlib
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from clip_jax.errors import UserError
from clip_jax.schema import parse

Activation = Literal["quick_gelu", "gelu", "gelu_tanh"]
AttentionKernel = Literal["xla", "cudnn"]
Projection = Literal["none", "no_bias", "bias"]
Cleaning = Literal["clip", "whitespace", "canonicalize", "siglip", "lower", "none"]

INITIAL_LOGIT_SCALE = math.log(1 / 0.07)  # section 2.5 of the CLIP paper
SIGLIP_LOGIT_SCALE, SIGLIP_LOGIT_BIAS = math.log(10), -10.0  # section 3 of the SigLIP paper

OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)

# Beyond any model there is, and small enough that nothing overflows or runs on without end.
MAX_SIZE, MAX_LAYERS, MAX_WORDS, MAX_ID = 2**20, 1000, 2**24, 2**31 - 1
TINY, HUGE = 1e-30, 1e30  # what float32 holds


def _check_range(name: str, value: Any, least: int | float, most: int | float) -> None:
    """Raises UserError for a number that is NaN or out of range. What is no number, `parse` refuses by its place."""
    if isinstance(value, int | float) and not least <= value <= most:
        raise UserError(f"{name} {reprlib.repr(value)} is outside the range from {least} to {most}")


@dataclass(frozen=True)
class TransformerConfig:
    """A stack of pre-norm residual attention blocks.

    `activation`: quick_gelu is x*sigmoid(1.702x) (OpenAI), gelu the exact error function form (most of
    open_clip), gelu_tanh its tanh approximation (SigLIP). `mlp_ratio` times the width, rounded down, is the MLP's
    width. `layer_scale` is the initial value of a learnt gain on each residual branch, where there is one.
    """

    width: int
    layers: int
    heads: int
    mlp_ratio: float = 4.0
    activation: Activation = "quick_gelu"
    norm_epsilon: float = 1e-5
    layer_scale: float | None = None

    def __post_init__(self) -> None:
        _check_range("width", self.width, 1, MAX_SIZE)
        _check_range("layers", self.layers, 1, MAX_LAYERS)
        if self.heads < 1 or self.width % self.heads:
            raise UserError(f"width {self.width} does not divide into {self.heads} heads; choose heads that divide it")
        _check_range("mlp_ratio", self.mlp_ratio, TINY, HUGE)
        _check_range("the MLP's width (width times mlp_ratio)", self.mlp_width, 1, MAX_WORDS)
        _check_range("norm_epsilon", self.norm_epsilon, TINY, HUGE)
        _check_range("layer_scale", self.layer_scale, -HUGE, HUGE)

    @property
    def mlp_width(self) -> int:
        """The width of the MLP's hidden layer."""
        return int(self.width * self.mlp_ratio)


def mlp_ratio(width: int, mlp_width: int) -> float:
    """The ratio, rounded up to four digits, that TransformerConfig turns back into exactly `mlp_width`.

    So open_clip and timm write theirs: 4304 / 1152 is 3.7362 there.
    """
    digits = math.ceil(mlp_width * 10_000 / width)
    exact = int(width * (digits / 10_000)) == mlp_width  # 50 * 0.58 is 28.999999999999996
    return (digits if exact else digits + 1) / 10_000


@dataclass(frozen=True)
class VisionConfig:
    """A vision transformer over square images of `image_size` pixels in patches of `patch_size`.

    Pixels to the right and below that fill no whole patch are left out, as a strided convolution does.
    `pooling`: the class token (CLIP), the mean of the patches (CLIPA), or attention from a learnt probe (`map`,
    SigLIP). The last norm stands behind the first two and before the third. `norm_pre` is CLIP's norm before the
    first block. `projection` leads from the tower's width to `embed_dim`; without one they are equal.
    """

    image_size: int
    patch_size: int
    transformer: TransformerConfig
    pooling: Literal["class_token", "mean", "map"] = "class_token"
    class_token: bool = True
    norm_pre: bool = True
    patch_bias: bool = False
    projection: Projection = "no_bias"

    def __post_init__(self) -> None:
        _check_range("patch_size", self.patch_size, 1, MAX_SIZE)
        if self.image_size < self.patch_size:
            raise UserError(f"image_size {self.image_size} is smaller than one patch of {self.patch_size} pixels")
        _check_range("image_size", self.image_size, 1, MAX_SIZE)
        if self.pooling == "class_token" and not self.class_token:
            raise UserError("pooling is class_token, but class_token is false; pooling mean or map needs none")

    @property
    def grid(self) -> int:
        """Patches along one side."""
        return self.image_size // self.patch_size

    @property
    def patches(self) -> int:
        """How many patches an image is cut into, the class token not counted."""
        return self.grid**2


@dataclass(frozen=True)
class ResNetConfig:
    """CLIP's modified ResNet: a stem of three convolutions, four stages of bottlenecks, attention pooling.

    `layers` are the blocks of each stage, `width` the channels of the first, `heads` those of the attention pooling.
    """

    image_size: int
    layers: tuple[int, int, int, int]
    width: int = 64
    heads: int = 32

    def __post_init__(self) -> None:
        if self.image_size < 32:
            raise UserError(f"image_size {self.image_size} is too small for a ResNet; it must be at least 32")
        _check_range("image_size", self.image_size, 32, MAX_SIZE)
        _check_range("width", self.width, 1, MAX_SIZE)
        for blocks in self.layers:
            _check_range("layers", blocks, 1, MAX_LAYERS)
        if self.heads < 1 or self.pool_width % self.heads:
            raise UserError(f"{self.pool_width} channels do not divide into {self.heads} heads")

    @property
    def grid(self) -> int:
        """Positions along one side of the last feature map; the first convolution rounds up, the pools down."""
        return (self.image_size + 1) // 32

    @property
    def pool_width(self) -> int:
        """Channels of the last stage, which attention pooling takes."""
        return 32 * self.width


@dataclass(frozen=True)
class TextConfig:
    """A text transformer, causal (CLIP) or not (SigLIP).

    `pooling`: the row of the largest token id, which is the end token of CLIP's vocabulary (`argmax`), of the first
    `end_token_id` (`end_token`), or the last row, padding or not (`last`).
    """

    transformer: TransformerConfig
    context_length: int = 77
    vocab_size: int = 49408
    pooling: Literal["argmax", "end_token", "last"] = "argmax"
    end_token_id: int | None = None
    causal: bool = True
    projection: Projection = "no_bias"

    def __post_init__(self) -> None:
        if (self.pooling == "end_token") != (self.end_token_id is not None):
            raise UserError("end_token_id belongs to pooling end_token, which needs it; give both or neither")
        _check_range("context_length", self.context_length, 1, MAX_SIZE)
        _check_range("vocab_size", self.vocab_size, 1, MAX_WORDS)
        _check_range("end_token_id", self.end_token_id, 0, MAX_ID)


@dataclass(frozen=True)
class PreprocessConfig:
    """How an image file becomes the vision tower's input.

    `resize`: `shortest` scales the short side to the image size and crops the centre (CLIP), `longest`
    scales the long side and pads, `squash` scales both sides (SigLIP). `crop_offset`: where an odd number of pixels
    is cropped away, the smaller half is cut `floor` at the left and top (transformers), or half is rounded to
    even (`round`: torchvision, OpenAI, open_clip). `fill` is the padding's grey level, 0-255.
    """

    resize: Literal["shortest", "longest", "squash"] = "shortest"
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    crop_offset: Literal["round", "floor"] = "round"
    mean: tuple[float, float, float] = OPENAI_MEAN
    std: tuple[float, float, float] = OPENAI_STD
    fill: int = 0

    def __post_init__(self) -> None:
        for mean in self.mean:
            _check_range("mean", mean, -HUGE, HUGE)
        for std in self.std:
            _check_range("std", std, TINY, HUGE)
        _check_range("fill", self.fill, 0, 255)


@dataclass(frozen=True)
class TokenizerConfig:
    """Which tokenizer the text tower was trained with.

    `clip_bpe` is OpenAI's byte-pair encoding, which comes with this package. The others read `file`, which lies
    beside the weights: a `sentencepiece` model or a `tokenizer_json` of the tokenizers library; `repository` on the
    Hugging Face hub has it too. `clean` is done to a text first: `clip` repairs encodings and entities, collapses white
    space and lowers case; `whitespace` is that without the last; `canonicalize` also removes punctuation (SigLIP in
    open_clip); `siglip` does so without repairs (SigLIP in transformers); `lower` only lowers case (SigLIP 2).
    `end_id` is appended by a sentencepiece tokenizer and kept when a text is cut, `pad_id` fills up, and `zeroed_id`
    becomes 0 wherever a tokenizer_json puts it (CLIPA's separator).
    """

    kind: Literal["clip_bpe", "sentencepiece", "tokenizer_json"] = "clip_bpe"
    clean: Cleaning = "clip"
    file: str | None = None
    repository: str | None = None
    pad_id: int = 0
    end_id: int | None = None
    zeroed_id: int | None = None

    def __post_init__(self) -> None:
        if (self.kind == "clip_bpe") != (self.file is None):
            raise UserError("a tokenizer's file belongs to the kinds sentencepiece and tokenizer_json, which need it")
        for name in ("pad_id", "end_id", "zeroed_id"):
            _check_range(name, getattr(self, name), 0, MAX_ID)


@dataclass(frozen=True)
class ClipConfig:
    """A whole CLIP model. `embed_dim` is the width of the space that both towers project into.

    `initial_logit_scale` is a logarithm. A model with an `initial_logit_bias` has a bias, and is a sigmoid model: its
    logits tell of each pair alone whether it belongs together (SigLIP).
    """

    embed_dim: int
    vision: VisionConfig | ResNetConfig
    text: TextConfig
    preprocess: PreprocessConfig = field(default_factory=PreprocessConfig)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    initial_logit_scale: float = INITIAL_LOGIT_SCALE
    initial_logit_bias: float | None = None

    def __post_init__(self) -> None:
        _check_range("embed_dim", self.embed_dim, 1, MAX_SIZE)
        _check_range("initial_logit_scale", self.initial_logit_scale, -HUGE, HUGE)
        _check_range("initial_logit_bias", self.initial_logit_bias, -HUGE, HUGE)
        towers = {"vision": self.vision, "text": self.text}
        for name, tower in towers.items():
            if isinstance(tower, ResNetConfig) or tower.projection != "none":
                continue
            if tower.transformer.width != self.embed_dim:
                raise UserError(
                    f"the {name} tower has no projection, so its width {tower.transformer.width} must be embed_dim "
                    f"{self.embed_dim}"
                )

    @property
    def is_sigmoid(self) -> bool:
        """Whether logits have a bias and pass through a sigmoid, rather than a softmax over the others."""
        return self.initial_logit_bias is not None

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
    the results of matrix products (`dots`). `attention`: XLA's, or cuDNN's fused one, for bfloat16 on NVIDIA GPUs.
    """

    dtype: Literal["float32", "bfloat16"] = "float32"
    layers: Literal["scan", "unroll"] = "unroll"
    remat: Literal["none", "block", "dots"] = "none"
    attention: AttentionKernel = "xla"
