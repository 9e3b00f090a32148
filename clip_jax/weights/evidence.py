"""The architecture of a bare state dict: sizes from its shapes, and the rest from a known name or the user.

Shapes do not tell the activation, the number of heads, the preprocessing or the tokenizer. Nothing is guessed: where
the named architectures of the same shapes differ in one of these, the user is asked to name one. LayerNorm's epsilon
goes with the family: 1e-6 where a probe pools the patches, as in every SigLIP, and 1e-5 in every other CLIP.
"""

from collections.abc import Mapping
from dataclasses import astuple, dataclass, replace
from math import isqrt
from typing import Any, get_args

from clip_jax.config import (
    SIGLIP_LOGIT_BIAS,
    SIGLIP_LOGIT_SCALE,
    Activation,
    ClipConfig,
    ResNetConfig,
    TextConfig,
    TokenizerConfig,
    TransformerConfig,
    VisionConfig,
    mlp_ratio,
)
from clip_jax.errors import UserError
from clip_jax.presets import PRESETS, get_config
from clip_jax.schema import nearest
from clip_jax.weights.keys import Shape

Shapes = Mapping[str, Shape]
OPENAI_HEAD_WIDTH = 64  # of every transformer that OpenAI released; its `build_model` counts on it
UNKNOWN_TOKENIZER = TokenizerConfig("tokenizer_json", file="tokenizer.json")  # asked for when there are strings
ANY_LAYER_SCALE = 1e-4  # shapes tell that there is one; its initial value matters to nothing that is loaded


@dataclass(frozen=True)
class Hints:
    """What a user, or the kind of file, says about weights that come without a config."""

    model: str | None = None
    activation: Activation | None = None
    vision_heads: int | None = None
    text_heads: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.model, str | None):
            raise UserError(f"model is the name of an architecture, not {self.model!r}")
        if self.activation is not None and self.activation not in get_args(Activation):
            hint = nearest(str(self.activation), get_args(Activation))
            raise UserError(f"there is no activation '{self.activation}'; {hint}")
        for heads in (self.vision_heads, self.text_heads):
            if heads is not None and (not isinstance(heads, int) or heads < 1):
                raise UserError(f"a tower has at least one head, not {heads!r}")

    def over(self, others: "Hints") -> "Hints":
        """These hints, and the others' where these say nothing."""
        pairs = zip(astuple(self), astuple(others), strict=True)
        return Hints(*(other if value is None else value for value, other in pairs))


def config_from_shapes(shapes: Shapes, hints: Hints, facts: Hints, where: str) -> ClipConfig:
    """The config of weights with these shapes of our parameters.

    `hints` come from the user, `facts` from the kind of file, as `openai_facts` does. Raises UserError naming the flags
    to give where something stays open.
    """
    try:
        sizes = _sizes(shapes)
    except KeyError as error:
        raise UserError(f"the weights in {where} do not make up both towers of a CLIP: {error} is missing") from error
    except (UserError, IndexError, ValueError, ZeroDivisionError) as error:
        raise UserError(f"the shapes of the weights in {where} are of no CLIP: {error}") from error
    hints = hints.over(facts)
    if hints.model is not None:
        return _override(_at_sizes(get_config(hints.model), sizes), hints)
    named = {name: config for name, config in PRESETS.items() if _skeleton(config) == _skeleton(sizes)}
    same_size = {name: config for name, config in named.items() if config.vision.grid == sizes.vision.grid}
    answers: dict[ClipConfig, str] = {}
    for name, config in (same_size or named).items():
        answers.setdefault(_override(_at_sizes(config, sizes), hints), name)
    if len(answers) == 1:
        return next(iter(answers))
    if answers:
        names = sorted(answers.values())
        raise UserError(
            f"the weights in {where} fit {', '.join(names[:-1])} and {names[-1]}, which differ in what shapes do not "
            f"tell (activation, preprocessing or tokenizer); say which with --model, as in --model {names[0]}"
        )
    flags = {
        "--activation": hints.activation,
        "--vision-heads": hints.vision_heads,
        "--text-heads": hints.text_heads,
    }
    if missing := [flag for flag, value in flags.items() if value is None]:
        raise UserError(
            f"the weights in {where} are of no named architecture, and shapes do not tell everything; give "
            f"{', '.join(missing)}, or --model with the name of an architecture of these shapes"
        )
    if isinstance(sizes.vision, VisionConfig) and sizes.vision.pooling != "map" and not sizes.vision.norm_pre:
        raise UserError(f"shapes do not tell how the vision tower in {where} pools; give --model")
    return _override(sizes, hints)


def openai_facts(shapes: Shapes) -> Hints:
    """What holds of every archive that OpenAI released: quick_gelu, and heads 64 wide.

    Source: openai/CLIP `build_model`, which takes the heads from the widths alike.
    """
    if "visual/attention_pool/positional_embedding" in shapes:
        vision_width = shapes["visual/attention_pool/positional_embedding"][1]
    else:
        vision_width = shapes["visual/positional_embedding"][1]
    text_width = shapes["text/positional_embedding"][1]
    heads = (max(1, vision_width // OPENAI_HEAD_WIDTH), max(1, text_width // OPENAI_HEAD_WIDTH))
    return Hints(None, "quick_gelu", *heads)


def as_openai_builds(config: ClipConfig) -> ClipConfig:
    """What OpenAI's code makes of the weights of a model; it computes something else where this is another config.

    That code knows of no preprocessing, tokenizer or initial logit scale, which are those of `config`.
    """
    vision, text = config.vision, config.text
    if isinstance(vision, ResNetConfig):
        tower: Any = replace(vision, image_size=32 * vision.grid, heads=max(1, vision.pool_width // OPENAI_HEAD_WIDTH))
    else:
        tower = VisionConfig(vision.patch_size * vision.grid, vision.patch_size, _as_openai_stacks(vision.transformer))
    end = text.vocab_size - 1  # the largest id, so that either pooling finds it
    pooling = text.pooling if text.end_token_id == end else "argmax"
    words = TextConfig(
        _as_openai_stacks(text.transformer),
        text.context_length,
        text.vocab_size,
        pooling,
        end if pooling == "end_token" else None,
    )
    return replace(config, vision=tower, text=words, initial_logit_bias=None)


def _as_openai_stacks(stack: TransformerConfig) -> TransformerConfig:
    return TransformerConfig(stack.width, stack.layers, max(1, stack.width // OPENAI_HEAD_WIDTH))


def big_vision_facts(file_shapes: Shapes) -> Hints:
    """What big_vision's files tell: their kernels keep heads apart, and its code has the tanh GELU only."""

    def heads(tower: str) -> int | None:
        kernels = (shape for key, shape in file_shapes.items() if key.startswith(tower) and "/query/kernel" in key)
        return next((shape[-2] for shape in kernels), None)

    return Hints(None, "gelu_tanh", heads("img/"), heads("txt/"))


def _override(config: ClipConfig, hints: Hints) -> ClipConfig:
    """The config with the user's activation and heads in it."""

    def stack(transformer: TransformerConfig, heads: int | None) -> TransformerConfig:
        return replace(
            transformer, heads=heads or transformer.heads, activation=hints.activation or transformer.activation
        )

    vision = config.vision
    if isinstance(vision, ResNetConfig):
        vision = replace(vision, heads=hints.vision_heads or vision.heads)
    else:
        vision = replace(vision, transformer=stack(vision.transformer, hints.vision_heads))
    text = replace(config.text, transformer=stack(config.text.transformer, hints.text_heads))
    return replace(config, vision=vision, text=text)


def _at_sizes(config: ClipConfig, sizes: ClipConfig) -> ClipConfig:
    """A named architecture at the resolution and context length that the weights have."""
    vision: Any = config.vision
    if vision.grid != sizes.vision.grid:
        vision = replace(vision, image_size=sizes.vision.image_size)
    return replace(
        config,
        vision=vision,
        text=replace(config.text, context_length=sizes.text.context_length),
    )


def _sizes(shapes: Shapes) -> ClipConfig:
    """All that shapes tell, in a config whose other fields (heads, activation, ...) are placeholders."""
    sigmoid = "logit_bias" in shapes
    vision = _vision_sizes(shapes)
    mapped = isinstance(vision, VisionConfig) and vision.pooling == "map"
    context, width = shapes["text/positional_embedding"]
    has_projection, has_bias = "text/projection" in shapes, "text/projection_bias" in shapes
    text = TextConfig(
        transformer=_stack_sizes(shapes, "text", width, 1e-6 if mapped else 1e-5),
        context_length=context,
        vocab_size=shapes["text/token_embedding"][0],
        pooling="last" if mapped else "argmax",
        causal=not mapped,
        projection="bias" if has_bias else "no_bias" if has_projection else "none",
    )
    family = PRESETS["ViT-B-16-SigLIP" if mapped else "ViT-B-32"]
    relatives = (preset for preset in PRESETS.values() if preset.is_sigmoid == family.is_sigmoid)
    tokenizers = {relative.text.vocab_size: relative.tokenizer for relative in relatives}
    config = ClipConfig(
        embed_dim=shapes["text/projection"][1] if has_projection else width,
        vision=vision,
        text=text,
        preprocess=family.preprocess,
        tokenizer=tokenizers.get(text.vocab_size, UNKNOWN_TOKENIZER),
    )
    if sigmoid:
        config = replace(config, initial_logit_scale=SIGLIP_LOGIT_SCALE, initial_logit_bias=SIGLIP_LOGIT_BIAS)
    return config


def _vision_sizes(shapes: Shapes) -> VisionConfig | ResNetConfig:
    if "visual/stem/conv_1/kernel" in shapes:
        blocks = [
            len({path.split("/")[2] for path in shapes if path.startswith(f"visual/stage_{stage}/")})
            for stage in (1, 2, 3, 4)
        ]
        positions, pool_width = shapes["visual/attention_pool/positional_embedding"]
        return ResNetConfig(32 * isqrt(positions - 1), tuple(blocks), pool_width // 32, heads=1)  # pyright: ignore[reportArgumentType]
    positions, width = shapes["visual/positional_embedding"]
    class_token, mapped = "visual/class_embedding" in shapes, "visual/pool/probe" in shapes
    patch = isqrt(shapes["visual/patch_embedding/kernel"][0] // 3)
    biased, projected = "visual/projection_bias" in shapes, "visual/projection" in shapes
    return VisionConfig(
        image_size=patch * isqrt(positions - class_token),
        patch_size=patch,
        transformer=_stack_sizes(shapes, "visual", width, 1e-6 if mapped else 1e-5),
        pooling="map" if mapped else "class_token",
        class_token=class_token,
        norm_pre="visual/norm_pre/scale" in shapes,
        patch_bias="visual/patch_embedding/bias" in shapes,
        projection="bias" if biased else "no_bias" if projected else "none",
    )


def _stack_sizes(shapes: Shapes, tower: str, width: int, epsilon: float) -> TransformerConfig:
    layers, _, mlp_width = shapes[f"{tower}/transformer/block/mlp/up/kernel"]
    scaled = f"{tower}/transformer/block/scale_1" in shapes
    return TransformerConfig(
        width=width,
        layers=layers,
        heads=1,
        mlp_ratio=mlp_ratio(width, mlp_width),
        norm_epsilon=epsilon,
        layer_scale=ANY_LAYER_SCALE if scaled else None,
    )


def _skeleton(config: ClipConfig) -> tuple[Any, ...]:
    """What two configs have in common if their shapes differ in the numbers of positions only."""
    vision = config.vision
    if isinstance(vision, ResNetConfig):
        tower: tuple[Any, ...] = (vision.layers, vision.width)
    else:
        options = (vision.class_token, vision.norm_pre, vision.patch_bias, vision.projection, vision.pooling == "map")
        tower = (_stack_skeleton(vision.transformer), vision.patch_size, *options)
    text = config.text
    return (
        config.embed_dim,
        tower,
        _stack_skeleton(text.transformer),
        (text.vocab_size, text.projection, config.is_sigmoid),
    )


def _stack_skeleton(stack: TransformerConfig) -> tuple[Any, ...]:
    return (stack.width, stack.layers, stack.mlp_width, stack.layer_scale is not None)
