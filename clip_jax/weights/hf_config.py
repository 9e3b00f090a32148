"""transformers' CLIPConfig and SiglipConfig (config.json) and its image processors to ours and back.

Those files leave out what equals the library's defaults, so the defaults stand here. Source: transformers 5.23,
`CLIPTextConfig`, `CLIPVisionConfig`, `SiglipTextConfig`, `SiglipVisionConfig`, `CLIPImageProcessor`,
`SiglipImageProcessor`.
"""

from collections.abc import Mapping
from typing import Any

from clip_jax.config import (
    OPENAI_MEAN,
    OPENAI_STD,
    SIGLIP_LOGIT_BIAS,
    SIGLIP_LOGIT_SCALE,
    Activation,
    ClipConfig,
    PreprocessConfig,
    ResNetConfig,
    TextConfig,
    TokenizerConfig,
    TransformerConfig,
    VisionConfig,
    mlp_ratio,
)
from clip_jax.errors import UserError

Values = Mapping[str, Any]

CLIP_STACK = {"hidden_act": "quick_gelu", "layer_norm_eps": 1e-5, "num_hidden_layers": 12}
CLIP_TEXT = CLIP_STACK | {
    "vocab_size": 49408,
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_attention_heads": 8,
    "max_position_embeddings": 77,
    "eos_token_id": 49407,
}
CLIP_VISION = CLIP_STACK | {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_attention_heads": 12,
    "image_size": 224,
    "patch_size": 32,
}
SIGLIP_STACK = {
    "hidden_act": "gelu_pytorch_tanh",
    "layer_norm_eps": 1e-6,
    "num_hidden_layers": 12,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_attention_heads": 12,
}
SIGLIP_TEXT = SIGLIP_STACK | {"vocab_size": 32000, "max_position_embeddings": 64, "projection_size": None}
SIGLIP_VISION = SIGLIP_STACK | {"image_size": 224, "patch_size": 16, "vision_use_head": True}

CLIP_LOGIT_SCALE = 2.6592  # CLIPConfig's logit_scale_init_value, ln(1 / 0.07) cut to four digits
ARGMAX_END_TOKEN = 2  # CLIPTextModel pools at the largest id where eos_token_id is 2, else at the first end token

ACTIVATIONS: dict[str, Activation] = {
    "quick_gelu": "quick_gelu",
    "gelu": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
}
HF_ACTIVATIONS: dict[Activation, str] = {
    "quick_gelu": "quick_gelu",
    "gelu": "gelu",
    "gelu_tanh": "gelu_pytorch_tanh",
}
RESAMPLE = {2: "bilinear", 3: "bicubic"}  # PIL's numbers
HALF = (0.5, 0.5, 0.5)


def from_hf(config: Values, processor: Values | None, tokenizer: TokenizerConfig) -> ClipConfig:
    """Our config from config.json and preprocessor_config.json, None where there is none.

    Raises UserError for models that are neither CLIPModel nor SiglipModel, and for options not computed here.
    """
    kind = config.get("model_type")
    if kind == "clip":
        return _from_clip(config, processor, tokenizer)
    if kind == "siglip":
        return _from_siglip(config, processor, tokenizer)
    raise UserError(f"config.json is of model_type {kind!r}; 'clip' and 'siglip' can be read")


def to_hf(config: ClipConfig) -> dict[str, Any]:
    """The contents of config.json. Raises UserError for architectures that transformers does not have."""
    if isinstance(config.vision, ResNetConfig):
        raise UserError("transformers has no CLIP with a ResNet; write the layout open_clip or openai")
    if is_siglip(config):
        return _to_siglip(config, config.vision)
    return _to_clip(config, config.vision)


def is_siglip(config: ClipConfig) -> bool:
    """Whether the layout hf means SiglipModel for this config, rather than CLIPModel."""
    return isinstance(config.vision, VisionConfig) and config.vision.pooling == "map"


def _from_clip(config: Values, processor: Values | None, tokenizer: TokenizerConfig) -> ClipConfig:
    text, vision = _tower(config, "text", CLIP_TEXT), _tower(config, "vision", CLIP_VISION)
    end = text["eos_token_id"]
    if isinstance(end, list):
        raise UserError(f"config.json's eos_token_id is {end}; one end token can be read")
    argmax = end in (ARGMAX_END_TOKEN, None)
    vision_config = VisionConfig(_square(vision["image_size"]), _square(vision["patch_size"]), _stack(vision))
    return ClipConfig(
        embed_dim=config.get("projection_dim", 512),
        vision=vision_config,
        text=TextConfig(
            _stack(text),
            text["max_position_embeddings"],
            text["vocab_size"],
            pooling="argmax" if argmax else "end_token",
            end_token_id=None if argmax else end,
        ),
        preprocess=from_hf_processor(processor, vision_config.image_size, siglip=False),
        tokenizer=tokenizer,
        initial_logit_scale=float(config.get("logit_scale_init_value", CLIP_LOGIT_SCALE)),
    )


def _to_clip(config: ClipConfig, vision: VisionConfig) -> dict[str, Any]:
    text = config.text
    plain = VisionConfig(vision.image_size, vision.patch_size, vision.transformer)
    plain_text = TextConfig(text.transformer, text.context_length, text.vocab_size, text.pooling, text.end_token_id)
    scales = (vision.transformer.layer_scale, text.transformer.layer_scale)
    if vision != plain or text != plain_text or text.pooling == "last" or scales != (None, None) or config.is_sigmoid:
        raise UserError(
            "transformers' CLIPModel has a class token, a norm before the first block, a causal text tower, "
            "projections without bias, no layer scale and no logit bias; this model differs; write the layout open_clip"
        )
    return {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "dtype": "float32",
        "projection_dim": config.embed_dim,
        "logit_scale_init_value": config.initial_logit_scale,
        "text_config": {
            "model_type": "clip_text_model",
            **_to_stack(text.transformer),
            "vocab_size": text.vocab_size,
            "max_position_embeddings": text.context_length,
            "projection_dim": config.embed_dim,
            "bos_token_id": text.vocab_size - 2,
            "eos_token_id": ARGMAX_END_TOKEN if text.end_token_id is None else text.end_token_id,
            "pad_token_id": config.tokenizer.pad_id,
        },
        "vision_config": {
            "model_type": "clip_vision_model",
            **_to_stack(vision.transformer),
            "image_size": vision.image_size,
            "patch_size": vision.patch_size,
            "projection_dim": config.embed_dim,
        },
    }


def _from_siglip(config: Values, processor: Values | None, tokenizer: TokenizerConfig) -> ClipConfig:
    text, vision = _tower(config, "text", SIGLIP_TEXT), _tower(config, "vision", SIGLIP_VISION)
    if not vision["vision_use_head"]:
        raise UserError("config.json's vision tower has no pooling head (vision_use_head is false)")
    vision_config = VisionConfig(
        _square(vision["image_size"]),
        _square(vision["patch_size"]),
        _stack(vision),
        pooling="map",
        class_token=False,
        norm_pre=False,
        patch_bias=True,
        projection="none",
    )
    return ClipConfig(
        embed_dim=vision["hidden_size"],
        vision=vision_config,
        text=TextConfig(
            _stack(text),
            text["max_position_embeddings"],
            text["vocab_size"],
            pooling="last",
            causal=False,
            projection="bias",
        ),
        preprocess=from_hf_processor(processor, vision_config.image_size, siglip=True),
        tokenizer=tokenizer,
        initial_logit_scale=SIGLIP_LOGIT_SCALE,
        initial_logit_bias=SIGLIP_LOGIT_BIAS,
    )


def _to_siglip(config: ClipConfig, vision: VisionConfig) -> dict[str, Any]:
    text = config.text
    plain = _from_siglip({"vision_config": {"image_size": vision.image_size}}, None, config.tokenizer)
    here = (vision.class_token, vision.norm_pre, vision.patch_bias, vision.projection)
    theirs = (text.pooling, text.causal, text.projection)
    assert isinstance(plain.vision, VisionConfig)
    there = (plain.vision.class_token, plain.vision.norm_pre, plain.vision.patch_bias, plain.vision.projection)
    if (here, theirs, config.is_sigmoid) != (there, ("last", False, "bias"), True):
        raise UserError(
            "transformers' SiglipModel projects text with a bias, pools its last position, and has a logit bias; this "
            "model differs; write the layout open_clip"
        )
    return {
        "architectures": ["SiglipModel"],
        "model_type": "siglip",
        "dtype": "float32",
        "text_config": {
            "model_type": "siglip_text_model",
            **_to_stack(text.transformer),
            "vocab_size": text.vocab_size,
            "max_position_embeddings": text.context_length,
            "projection_size": config.embed_dim,
            "pad_token_id": config.tokenizer.pad_id,
            "bos_token_id": None,
            "eos_token_id": 1 if config.tokenizer.end_id is None else config.tokenizer.end_id,
        },
        "vision_config": {
            "model_type": "siglip_vision_model",
            **_to_stack(vision.transformer),
            "image_size": vision.image_size,
            "patch_size": vision.patch_size,
        },
    }


def from_hf_processor(processor: Values | None, image_size: int, siglip: bool) -> PreprocessConfig:
    """Our preprocessing from an image processor's config, its library's defaults where that is None or silent.

    Raises UserError for a processor that leaves out a step, or does one that we have not.
    """
    values: Values = processor or {}
    shrinks = values.get("do_resize", True) and values.get("do_rescale", True) and values.get("do_normalize", True)
    if not shrinks or abs(values.get("rescale_factor", 1 / 255) * 255 - 1) > 1e-6:
        raise UserError("preprocessor_config.json leaves out resizing, scaling by 1/255 or normalising; all are done")
    crops = values.get("do_center_crop", not siglip)
    default = {"height": image_size, "width": image_size} if siglip else {"shortest_edge": image_size}
    size = values.get("size", default)
    if isinstance(size, int):
        size = {"shortest_edge": size}
    crop = values.get("crop_size", image_size)
    crop = (crop, crop) if isinstance(crop, int) else (crop.get("height"), crop.get("width"))
    sides = set(size.values()) | (set(crop) if crops else set())
    square = size.keys() == {"height", "width"} or (size.keys() == {"shortest_edge"} and crops)
    if sides != {image_size} or not square:
        raise UserError(
            f"preprocessor_config.json resizes to {size}" + (f" and crops to {crop}" if crops else "") + f"; the "
            f"tower takes squares of {image_size} pixels, scaled to that size or cropped after the short side was"
        )
    resample = values.get("resample", 3)
    if resample not in RESAMPLE:
        raise UserError(f"preprocessor_config.json's resample is {resample}; 2 (bilinear) and 3 (bicubic) are known")
    shortest = "shortest_edge" in size
    return PreprocessConfig(
        resize="shortest" if shortest else "squash",
        interpolation=RESAMPLE[resample],  # pyright: ignore[reportArgumentType]
        mean=tuple(values.get("image_mean", HALF if siglip else OPENAI_MEAN)),
        std=tuple(values.get("image_std", HALF if siglip else OPENAI_STD)),
        crop_offset="floor" if shortest else "round",
    )


def to_hf_processor(config: ClipConfig) -> dict[str, Any]:
    """The contents of preprocessor_config.json. Raises UserError for padding, which these processors do not do."""
    preprocess, size = config.preprocess, config.vision.image_size
    if preprocess.resize == "longest":
        raise UserError("transformers' image processors do not pad to a square; write the layout open_clip")
    square = {"height": size, "width": size}
    name = "SiglipImageProcessor" if is_siglip(config) else "CLIPImageProcessor"
    values: dict[str, Any] = {"image_processor_type": name, "do_convert_rgb": True, "do_resize": True}
    if preprocess.resize == "shortest":
        values |= {"size": {"shortest_edge": size}, "do_center_crop": True, "crop_size": square}
    else:
        values |= {"size": square} | ({} if is_siglip(config) else {"do_center_crop": False})
    return values | {
        "resample": next(number for number, name in RESAMPLE.items() if name == preprocess.interpolation),
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(preprocess.mean),
        "image_std": list(preprocess.std),
    }


def _tower(config: Values, name: str, defaults: Values) -> dict[str, Any]:
    given, overruling = (config.get(f"{name}_{kind}") for kind in ("config", "config_dict"))
    given = given or {}
    if overruling is not None:  # in files from before 2023; even what it leaves out overrules
        given = given | dict(defaults) | overruling
    return dict(defaults) | {key: value for key, value in given.items() if value is not None or key not in defaults}


def _stack(tower: Values) -> TransformerConfig:
    if tower["hidden_act"] not in ACTIVATIONS:
        raise UserError(f"config.json's hidden_act '{tower['hidden_act']}' is not known; {', '.join(ACTIVATIONS)} are")
    width = tower["hidden_size"]
    return TransformerConfig(
        width=width,
        layers=tower["num_hidden_layers"],
        heads=tower["num_attention_heads"],
        mlp_ratio=mlp_ratio(width, tower["intermediate_size"]),
        activation=ACTIVATIONS[tower["hidden_act"]],
        norm_epsilon=float(tower["layer_norm_eps"]),
    )


def _to_stack(stack: TransformerConfig) -> dict[str, Any]:
    return {
        "hidden_size": stack.width,
        "intermediate_size": stack.mlp_width,
        "num_hidden_layers": stack.layers,
        "num_attention_heads": stack.heads,
        "hidden_act": HF_ACTIVATIONS[stack.activation],
        "layer_norm_eps": stack.norm_epsilon,
    }


def _square(size: Any) -> int:
    if isinstance(size, list | tuple):
        if len(set(size)) != 1:
            raise UserError(f"images and patches must be square, not {list(size)}")
        return size[0]
    return size
