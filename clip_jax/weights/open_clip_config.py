"""open_clip's model and preprocessing configs (open_clip_config.json) to ours and back.

Source: open_clip 3.3.0, `CLIPVisionCfg`, `CLIPTextCfg`, `PreprocessCfg`; timm's names of SigLIP's vision towers.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from clip_jax.config import (
    INITIAL_LOGIT_SCALE,
    SIGLIP_LOGIT_SCALE,
    Activation,
    Cleaning,
    ClipConfig,
    PreprocessConfig,
    ResNetConfig,
    TextConfig,
    TokenizerConfig,
    TransformerConfig,
    VisionConfig,
)
from clip_jax.errors import UserError
from clip_jax.presets import PRESETS

# Keys of a tower that change what is computed, with the values that leave it as it is here.
PLAIN_TOWER: dict[str, Any] = {
    "attentional_pool": False,
    "pos_embed_type": "learnable",
    "block_type": None,
    "qk_norm": False,
    "scaled_cosine_attn": False,
    "scale_heads": False,
    "scale_attn_inner": False,
    "scale_attn": False,
    "scale_fc": False,
    "hf_model_name": None,
    "embed_cls": False,
    "tokenizer_mode": None,
    "use_pad_mask": False,
}
# Keys that matter in training or to code around the model only.
INERT = {
    "patch_dropout",
    "output_tokens",
    "attn_pooler_queries",
    "attn_pooler_heads",
    "timm_model_pretrained",
    "timm_drop",
    "timm_drop_path",
    "hf_model_pretrained",
    "hf_proj_type",
    "hf_pooler_type",
    "pad_id",
    "eos_id",
    "timm_proj_bias",
    "correct_cls_mask",
}
VISION_KEYS = {
    *("layers", "width", "head_width", "mlp_ratio", "patch_size", "image_size", "ls_init_value", "no_ln_pre"),
    *("final_ln_after_pool", "pool_type", "act_kwargs", "norm_kwargs", "timm_model_name", "timm_pool", "timm_proj"),
}
TEXT_KEYS = {
    *("context_length", "vocab_size", "hf_tokenizer_name", "tokenizer_kwargs", "width", "heads", "layers"),
    *("mlp_ratio", "ls_init_value", "no_causal_mask", "final_ln_after_pool", "pool_type", "proj_bias", "proj_type"),
    *("act_kwargs", "norm_kwargs"),
}
MODEL_KEYS = {
    *("embed_dim", "vision_cfg", "text_cfg", "quick_gelu", "custom_text", "init_logit_scale", "init_logit_bias"),
    *("nonscalar_logit_scale", "cast_dtype", "output_dict"),
}
BERT_SEPARATOR = 102  # [SEP] of bert-base-uncased, whose CLIPA models are the ones that strip it
KNOWN_TOKENIZERS = {preset.tokenizer.repository: preset.tokenizer for preset in PRESETS.values()}
POOLING = {"argmax": "argmax", "last": "last", "eos": "end_token"}

# timm's names of SigLIP's vision towers, by those of open_clip's models that have them.
TIMM_LETTERS = {"B": "base", "L": "large", "SO400M": "so400m", "gopt": "giantopt"}
TIMM_VISION: dict[str, VisionConfig] = {
    f"vit_{TIMM_LETTERS[name.split('-')[1]]}_patch{vision.patch_size}_siglip_{vision.image_size}": vision
    for name, vision in ((name, preset.vision) for name, preset in PRESETS.items())
    if isinstance(vision, VisionConfig) and vision.pooling == "map"
}
CLEANING: dict[str, Cleaning] = {"lower": "clip", "whitespace": "whitespace", "canonicalize": "canonicalize"}


def from_open_clip(model: Mapping[str, Any], preprocess: Mapping[str, Any] | None = None) -> ClipConfig:
    """Our config from `model_cfg` and `preprocess_cfg`. Raises UserError naming what no tower here computes."""
    _refuse_unknown("model_cfg", model, MODEL_KEYS)
    vision, text = _mapping(model, "vision_cfg"), _mapping(model, "text_cfg")
    _refuse_unknown("vision_cfg", vision, VISION_KEYS | INERT)
    _refuse_unknown("text_cfg", text, TEXT_KEYS | INERT)
    activation = "quick_gelu" if model.get("quick_gelu") else "gelu"
    image_size = _square(vision.get("image_size", 224))
    if vision.get("timm_model_name"):
        vision_config = _timm_vision(vision, image_size)
    elif isinstance(vision.get("layers"), list | tuple):
        width = vision.get("width", 64)
        heads = width * 32 // vision.get("head_width", 64)
        vision_config = ResNetConfig(image_size, tuple(vision["layers"]), width, heads)
    else:
        vision_config = _native_vision(vision, image_size, activation)
    bias = model.get("init_logit_bias")
    default_scale = INITIAL_LOGIT_SCALE if bias is None else SIGLIP_LOGIT_SCALE
    return ClipConfig(
        embed_dim=model["embed_dim"],
        vision=vision_config,
        text=_text(text, activation),
        preprocess=from_open_clip_preprocess(preprocess or {}),
        tokenizer=_tokenizer(text),
        initial_logit_scale=float(model.get("init_logit_scale", default_scale)),
        initial_logit_bias=None if bias is None else float(bias),
    )


def to_open_clip(config: ClipConfig, custom_text: bool = False) -> dict[str, Any]:
    """The contents of open_clip_config.json. Raises UserError for what open_clip cannot build."""
    quick = _activations(config) == {"quick_gelu"}
    if not quick and "quick_gelu" in _activations(config):
        raise UserError("open_clip has one activation for both towers where it is quick_gelu; write the layout hf")
    model: dict[str, Any] = {"embed_dim": config.embed_dim}
    if quick:
        model["quick_gelu"] = True
    timm = isinstance(config.vision, VisionConfig) and config.vision.pooling == "map"
    bias = config.initial_logit_bias
    if bias is not None:
        model["init_logit_bias"] = bias
    if config.initial_logit_scale != (INITIAL_LOGIT_SCALE if bias is None else SIGLIP_LOGIT_SCALE):
        model["init_logit_scale"] = config.initial_logit_scale
    if timm or custom_text:
        model["custom_text"] = True
    model["vision_cfg"] = _to_vision(config.vision)
    model["text_cfg"] = _to_text(config)
    return {"model_cfg": model, "preprocess_cfg": to_open_clip_preprocess(config)}


def from_open_clip_preprocess(values: Mapping[str, Any]) -> PreprocessConfig:
    """Our preprocessing from `preprocess_cfg`, whose defaults are OpenAI's."""
    default = PreprocessConfig()
    return PreprocessConfig(
        resize=values.get("resize_mode", default.resize),
        interpolation=values.get("interpolation", default.interpolation),
        mean=tuple(values.get("mean", default.mean)),
        std=tuple(values.get("std", default.std)),
        fill=values.get("fill_color", default.fill),
    )


def to_open_clip_preprocess(config: ClipConfig) -> dict[str, Any]:
    """`preprocess_cfg`, every key of it."""
    preprocess = config.preprocess
    return {
        "size": config.vision.image_size,
        "mode": "RGB",
        "mean": list(preprocess.mean),
        "std": list(preprocess.std),
        "interpolation": preprocess.interpolation,
        "resize_mode": preprocess.resize,
        "fill_color": preprocess.fill,
    }


def _native_vision(vision: Mapping[str, Any], image_size: int, activation: Activation) -> VisionConfig:
    width = vision.get("width", 768)
    pool = vision.get("pool_type", "tok")
    if pool not in ("tok", "avg") or (pool == "avg" and not vision.get("final_ln_after_pool", False)):
        raise UserError(
            f"vision_cfg pools by '{pool}' before its last norm; 'tok', and 'avg' with final_ln_after_pool, can be read"
        )
    return VisionConfig(
        image_size=image_size,
        patch_size=_square(vision.get("patch_size", 16)),
        transformer=TransformerConfig(
            width=width,
            layers=vision.get("layers", 12),
            heads=width // vision.get("head_width", 64),
            mlp_ratio=float(vision.get("mlp_ratio", 4.0)),
            activation=_activation(vision, activation),
            norm_epsilon=float((vision.get("norm_kwargs") or {}).get("eps", 1e-5)),
            layer_scale=vision.get("ls_init_value"),
        ),
        pooling="class_token" if pool == "tok" else "mean",
        norm_pre=not vision.get("no_ln_pre", False),
    )


def _timm_vision(vision: Mapping[str, Any], image_size: int) -> VisionConfig:
    name, projection = vision["timm_model_name"], vision.get("timm_proj", "linear")
    if name not in TIMM_VISION or vision.get("timm_pool") != "map":
        raise UserError(f"the vision tower is timm's '{name}'; of timm's, SigLIP's with pooling map can be read")
    if projection != "none":
        raise UserError(f"the projection '{projection}' of a timm tower cannot be read; 'none' can")
    return replace(TIMM_VISION[name], image_size=image_size)


def _text(text: Mapping[str, Any], activation: Activation) -> TextConfig:
    pool = text.get("pool_type", "argmax")
    if pool not in POOLING or text.get("final_ln_after_pool", False):
        raise UserError(f"text_cfg's pool_type '{pool}' is not known; {', '.join(POOLING)} are")
    projection = "none" if text.get("proj_type", "linear") == "none" else "bias" if text.get("proj_bias") else "no_bias"
    return TextConfig(
        transformer=TransformerConfig(
            width=text.get("width", 512),
            layers=text.get("layers", 12),
            heads=text.get("heads", 8),
            mlp_ratio=float(text.get("mlp_ratio", 4.0)),
            activation=_activation(text, activation),
            norm_epsilon=float((text.get("norm_kwargs") or {}).get("eps", 1e-5)),
            layer_scale=text.get("ls_init_value"),
        ),
        context_length=text.get("context_length", 77),
        vocab_size=text.get("vocab_size", 49408),
        pooling=POOLING[pool],  # pyright: ignore[reportArgumentType]
        end_token_id=text.get("eos_id", 2) if pool == "eos" else None,
        causal=not text.get("no_causal_mask", False),
        projection=projection,
    )


def _tokenizer(text: Mapping[str, Any]) -> TokenizerConfig:
    """What the config alone says; the tokenizer's own files say the rest (`tokenizer_config_from_files`)."""
    options = text.get("tokenizer_kwargs") or {}
    if unknown := {key: value for key, value in options.items() if key not in ("clean", "strip_sep_token") and value}:
        raise UserError(f"tokenizer_kwargs {unknown} are not known here; clean and strip_sep_token are")
    if not (repository := text.get("hf_tokenizer_name")):
        return TokenizerConfig(clean=_cleaning(options.get("clean", "lower")))
    known = KNOWN_TOKENIZERS.get(repository, TokenizerConfig("tokenizer_json", file="tokenizer.json"))
    return replace(
        known,
        clean=_cleaning(options.get("clean", "whitespace")),
        repository=repository,
        zeroed_id=BERT_SEPARATOR if options.get("strip_sep_token") else None,
    )


def _cleaning(mode: str) -> Cleaning:
    if mode not in CLEANING:
        raise UserError(f"tokenizer_kwargs clean texts by '{mode}'; known are {', '.join(CLEANING)}")
    return CLEANING[mode]


def _to_vision(vision: VisionConfig | ResNetConfig) -> dict[str, Any]:
    if isinstance(vision, ResNetConfig):
        values = {"image_size": vision.image_size, "layers": list(vision.layers), "width": vision.width}
        head_width = vision.pool_width // vision.heads
        return values | {"patch_size": None} | ({} if head_width == 64 else {"head_width": head_width})
    stack = vision.transformer
    if vision.pooling == "map":
        return {
            "image_size": vision.image_size,
            "timm_model_name": timm_name(vision),
            "timm_model_pretrained": False,
            "timm_pool": "map",
            "timm_proj": "none",
        }
    if not vision.class_token or vision.patch_bias or vision.projection != "no_bias":
        raise UserError("open_clip's own vision tower has a class token, no patch bias, and a projection without bias")
    values = {"image_size": vision.image_size, "layers": stack.layers, "width": stack.width}
    if stack.width // stack.heads != 64:
        values["head_width"] = stack.width // stack.heads
    values |= _to_stack(stack) | {"patch_size": vision.patch_size}
    if not vision.norm_pre:
        values["no_ln_pre"] = True
    if vision.pooling == "mean":
        values |= {"pool_type": "avg", "final_ln_after_pool": True}
    return values


def timm_name(vision: VisionConfig) -> str:
    """The name in timm of a SigLIP vision tower. Raises UserError where timm has none of these sizes.

    open_clip builds the tower for the image size in the name, whatever its own config says.
    """
    if name := next((name for name, tower in TIMM_VISION.items() if tower == vision), None):
        return name
    stack = vision.transformer
    raise UserError(
        f"open_clip builds SigLIP's vision tower by timm's names, and timm has none with width {stack.width}, "
        f"{stack.layers} layers, {stack.activation}, and patches of {vision.patch_size} in images of "
        f"{vision.image_size} pixels; write the layout hf"
    )


def _to_text(config: ClipConfig) -> dict[str, Any]:
    text, tokenizer = config.text, config.tokenizer
    stack = text.transformer
    values: dict[str, Any] = {"context_length": text.context_length, "vocab_size": text.vocab_size}
    own = tokenizer.kind == "clip_bpe"
    if not own:
        values["hf_tokenizer_name"] = tokenizer.repository or "."
    # A cleaning that open_clip lacks (SigLIP's by transformers, say) becomes the nearest that it has.
    clean = {ours: theirs for theirs, ours in CLEANING.items()} | {"siglip": "canonicalize", "lower": "lower"}
    options: dict[str, Any] = {}
    if (mode := clean.get(tokenizer.clean, "whitespace")) != ("lower" if own else "whitespace"):
        options["clean"] = mode
    if tokenizer.zeroed_id is not None:
        options["strip_sep_token"] = True
    if options:
        values["tokenizer_kwargs"] = options
    values |= {"width": stack.width, "heads": stack.heads, "layers": stack.layers, **_to_stack(stack)}
    if not text.causal:
        values["no_causal_mask"] = True
    if text.projection != "no_bias":
        values |= {"proj_bias": True} if text.projection == "bias" else {"proj_type": "none"}
    if text.pooling != "argmax":
        values["pool_type"] = next(theirs for theirs, ours in POOLING.items() if ours == text.pooling)
    if text.end_token_id is not None:
        values["eos_id"] = text.end_token_id
    return values


def _to_stack(stack: TransformerConfig) -> dict[str, Any]:
    values: dict[str, Any] = {}
    if stack.mlp_ratio != 4.0:
        values["mlp_ratio"] = stack.mlp_ratio
    if stack.layer_scale is not None:
        values["ls_init_value"] = stack.layer_scale
    if stack.norm_epsilon != 1e-5:
        values["norm_kwargs"] = {"eps": stack.norm_epsilon}
    if stack.activation == "gelu_tanh":
        values["act_kwargs"] = {"approximate": "tanh"}
    return values


def _activations(config: ClipConfig) -> set[str]:
    towers = [config.text.transformer.activation]
    if isinstance(config.vision, VisionConfig) and config.vision.pooling != "map":
        towers.append(config.vision.transformer.activation)
    return set(towers)


def _activation(tower: Mapping[str, Any], activation: Activation) -> Activation:
    options = tower.get("act_kwargs") or {}
    if options not in ({}, {"approximate": "none"}, {"approximate": "tanh"}):
        raise UserError(f"act_kwargs {options} are not known; approximate tanh is")
    return "gelu_tanh" if options.get("approximate") == "tanh" else activation


def _refuse_unknown(where: str, values: Mapping[str, Any], known: set[str]) -> None:
    problems = []
    for key, value in values.items():
        if key in PLAIN_TOWER:
            if value != PLAIN_TOWER[key] and value:
                problems.append(f"{key}={value!r}")
        elif key not in known:
            problems.append(f"{key}={value!r}")
    if problems:
        raise UserError(f"{where} asks for what no tower here computes: {', '.join(problems)}")


def _mapping(model: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = model.get(key)
    if not isinstance(value, Mapping) or "embed_dim" not in model:
        raise UserError(f"model_cfg lacks embed_dim, vision_cfg or text_cfg, or its {key} is no mapping")
    return value


def _square(size: Any) -> int:
    if isinstance(size, list | tuple):
        if len(set(size)) != 1:
            raise UserError(f"images and patches must be square, not {list(size)}")
        size = size[0]
    if isinstance(size, bool) or not isinstance(size, int):
        raise UserError(f"a size must be a number of pixels, not {size!r}")
    return size
