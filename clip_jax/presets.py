"""The named architectures: those of open_clip 3.3.0 whose towers are CLIP's or SigLIP's own, under its names.

The plain names use the exact GELU, as open_clip does; `-quickgelu` is what OpenAI trained. The `tiny` family is
ours: small enough to train on a laptop's CPU. Sources: Radford et al. 2021, tables 19 and 20; Zhai et al. 2022 for the
larger transformers; Li et al. 2023 (CLIPA), Zhai et al. 2023 (SigLIP), Tschannen et al. 2025 (SigLIP 2), Chuang et
al. 2025 (`worldwide`); and what timm and open_clip build by these names.
"""

from dataclasses import replace

from clip_jax.config import (
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
from clip_jax.listing import Listing
from clip_jax.model_size import flops, parameters
from clip_jax.schema import nearest

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)

# Transformers by letter: width, layers, heads, width of the MLP.
TRANSFORMERS = {
    "S": (384, 12, 6, 1536),
    "M": (512, 12, 8, 2048),
    "B": (768, 12, 12, 3072),
    "B+": (896, 12, 14, 3584),
    "L": (1024, 24, 16, 4096),
    "H": (1280, 32, 16, 5120),
    "g": (1408, 40, 16, 6144),
    "bigG": (1664, 48, 16, 8192),
    "e": (1792, 56, 16, 15360),
    "SO400M": (1152, 27, 16, 4304),
    "gopt": (1536, 40, 16, 6144),
}
# The text towers that go with them in CLIP: layers, and width, which is the embedding's too.
TEXT = {
    "S": (12, 384),
    "M": (12, 512),
    "B": (12, 512),
    "B+": (12, 640),
    "L": (12, 768),
    "H": (24, 1024),
    "g": (24, 1024),
    "bigG": (32, 1280),
    "e": (36, 1280),
}
# ResNets: blocks of the stages, width, image size, width of the text tower, embedding.
RESNETS = {
    "RN50": ((3, 4, 6, 3), 64, 224, 512, 1024),
    "RN101": ((3, 4, 23, 3), 64, 224, 512, 512),
    "RN50x4": ((4, 6, 10, 6), 80, 288, 640, 640),
    "RN50x16": ((6, 8, 18, 8), 96, 384, 768, 768),
    "RN50x64": ((3, 15, 36, 10), 128, 448, 1024, 1024),
}
# CLIP's vision transformers: letter, patch size, image size.
CLIP = {
    "ViT-S-32": ("S", 32, 224),
    "ViT-S-16": ("S", 16, 224),
    "ViT-M-32": ("M", 32, 224),
    "ViT-M-16": ("M", 16, 224),
    "ViT-B-32": ("B", 32, 224),
    "ViT-B-32-256": ("B", 32, 256),
    "ViT-B-32-plus-256": ("B+", 32, 256),
    "ViT-B-16": ("B", 16, 224),
    "ViT-B-16-plus": ("B+", 16, 224),
    "ViT-B-16-plus-240": ("B+", 16, 240),
    "ViT-L-16": ("L", 16, 224),
    "ViT-L-16-320": ("L", 16, 320),
    "ViT-L-14": ("L", 14, 224),
    "ViT-L-14-280": ("L", 14, 280),
    "ViT-L-14-336": ("L", 14, 336),
    "ViT-H-16": ("H", 16, 224),
    "ViT-H-14": ("H", 14, 224),
    "ViT-H-14-378": ("H", 14, 378),
    "ViT-g-14": ("g", 14, 224),
    "ViT-bigG-14": ("bigG", 14, 224),
    "ViT-e-14": ("e", 14, 224),
}
QUICK_GELU = (
    *("tiny", *RESNETS, "ViT-B-32", "ViT-B-16", "ViT-L-14", "ViT-L-14-336", "ViT-H-14", "ViT-H-14-378", "ViT-bigG-14"),
    *("ViT-L-14-worldwide", "ViT-H-14-worldwide"),
)
# SigLIP's vision transformers: generation, letter, patch size, image sizes.
SIGLIP = (
    ("SigLIP", "B", 16, (224, 256, 384, 512)),
    ("SigLIP", "L", 16, (256, 384)),
    ("SigLIP", "SO400M", 14, (224, 378, 384)),
    ("SigLIP-i18n", "B", 16, (256,)),
    ("SigLIP-i18n", "SO400M", 16, (256,)),
    ("SigLIP2", "B", 32, (256,)),
    ("SigLIP2", "B", 16, (224, 256, 384, 512)),
    ("SigLIP2", "L", 16, (256, 384, 512)),
    ("SigLIP2", "SO400M", 14, (224, 378)),
    ("SigLIP2", "SO400M", 16, (256, 384, 512)),
    ("SigLIP2", "gopt", 16, (256, 384)),
)
# Its text towers by generation: vocabulary, the tokenizer's repository (None: the model's own), padding, activation.
SIGLIP_TEXT: dict[str, tuple[int, str | None, int, Activation]] = {
    "SigLIP": (32_000, "timm/ViT-B-16-SigLIP", 1, "gelu"),
    "SigLIP-i18n": (250_000, "timm/ViT-B-16-SigLIP-i18n-256", 1, "gelu"),
    "SigLIP2": (256_000, None, 0, "gelu_tanh"),
}
# SigLIP was trained with the GELU's tanh form. timm builds only these vision towers so, and open_clip with it; the
# others have the exact form there, and here.
TANH_IN_TIMM = ("ViT-B-32-", "ViT-L-16-SigLIP2-512", "ViT-SO400M-16-", "ViT-gopt-16-")


def _presets() -> dict[str, ClipConfig]:
    presets = {"tiny": _tiny()}
    presets |= {name: _resnet(*row) for name, row in RESNETS.items()}
    presets |= {name: _vit(*row) for name, row in CLIP.items()}
    presets |= _alternatives(presets)
    for letter in ("L", "H", "bigG"):
        presets |= {_name(letter, 14, "CLIPA", size): _clipa(letter, size) for size in (224, 336)}
        sizes = (224,) if letter == "L" else (224, 378)
        presets |= {_name(letter, 14, "worldwide", size): _worldwide(letter, size) for size in sizes}
    presets |= {f"{name}-quickgelu": _quick_gelu(presets[name]) for name in QUICK_GELU}
    for generation, letter, patch_size, image_sizes in SIGLIP:
        for size in image_sizes:
            name = _name(letter, patch_size, generation, size)
            presets[name] = _siglip(name, generation, letter, patch_size, size)
    return presets


def _name(letter: str, patch_size: int, family: str, image_size: int) -> str:
    return f"ViT-{letter}-{patch_size}-{family}" + ("" if image_size == 224 else f"-{image_size}")


def _transformer(letter: str, activation: Activation = "gelu", epsilon: float = 1e-5) -> TransformerConfig:
    width, layers, heads, mlp_width = TRANSFORMERS[letter]
    return TransformerConfig(width, layers, heads, mlp_ratio(width, mlp_width), activation, epsilon)


def _text(layers: int, width: int) -> TextConfig:
    """CLIP's text tower, whose heads are 64 wide."""
    return TextConfig(TransformerConfig(width, layers, heads=width // 64, activation="gelu"))


def _vit(letter: str, patch_size: int, image_size: int) -> ClipConfig:
    layers, width = TEXT[letter]
    return ClipConfig(width, VisionConfig(image_size, patch_size, _transformer(letter)), _text(layers, width))


def _resnet(
    layers: tuple[int, int, int, int], width: int, image_size: int, text_width: int, embed_dim: int
) -> ClipConfig:
    """As in the paper, an attention pooling with heads as wide as the text tower's, 64."""
    return ClipConfig(embed_dim, ResNetConfig(image_size, layers, width, heads=width // 2), _text(12, text_width))


def _alternatives(presets: dict[str, ClipConfig]) -> dict[str, ClipConfig]:
    """S and M with narrower text towers, M/16 with layer scale as well."""
    alternatives = {}
    for name, layers, width in (("S-32", 10, 256), ("S-16", 10, 256), ("M-32", 12, 384), ("M-16", 12, 384)):
        alternatives[f"ViT-{name}-alt"] = replace(presets[f"ViT-{name}"], embed_dim=width, text=_text(layers, width))
    vision = presets["ViT-M-16"].vision
    assert isinstance(vision, VisionConfig)
    vision = replace(vision, transformer=replace(vision.transformer, layer_scale=1e-4))
    alternatives["ViT-M-16-alt"] = replace(alternatives["ViT-M-16-alt"], vision=vision)
    return alternatives


def _clipa(letter: str, image_size: int) -> ClipConfig:
    """CLIPA: mean pooling, no norm before the first block, short texts in BERT's vocabulary, all of them attended."""
    layers, width = TEXT[letter]
    return ClipConfig(
        width,
        VisionConfig(image_size, 14, _transformer(letter), pooling="mean", norm_pre=False),
        replace(_text(layers, width), context_length=32, vocab_size=32000, pooling="last", causal=False),
        PreprocessConfig(resize="squash", interpolation="bilinear", mean=IMAGENET_MEAN, std=IMAGENET_STD),
        TokenizerConfig("tokenizer_json", "whitespace", "tokenizer.json", "bert-base-uncased", zeroed_id=102),
    )


def _worldwide(letter: str, image_size: int) -> ClipConfig:
    """MetaCLIP 2: CLIP in many languages, with mT5's vocabulary for L and XLM-V's for the others."""
    if letter == "L":
        vocab_size, end_id = 250_100, 1
        tokenizer = TokenizerConfig("sentencepiece", "canonicalize", "spiece.model", "google/mt5-base", 0, end_id)
    else:
        vocab_size, end_id = 901_629, 2
        tokenizer = TokenizerConfig("tokenizer_json", "whitespace", "tokenizer.json", "facebook/xlm-v-base", pad_id=1)
    base = _vit(letter, 14, image_size)
    text = replace(base.text, vocab_size=vocab_size, pooling="end_token", end_token_id=end_id)
    return replace(base, text=text, tokenizer=tokenizer)


def _siglip(name: str, generation: str, letter: str, patch_size: int, image_size: int) -> ClipConfig:
    """SigLIP: attention pooling of the patches, a text tower as large as the vision tower, a sigmoid for each pair."""
    vocab_size, tokenizer, pad_id, text_activation = SIGLIP_TEXT[generation]
    vision = _transformer(letter, "gelu_tanh" if name.startswith(TANH_IN_TIMM) else "gelu", epsilon=1e-6)
    text = TextConfig(
        _transformer("SO400M" if letter == "gopt" else letter, text_activation, epsilon=1e-6),
        context_length=16 if name == "ViT-SO400M-14-SigLIP" else 64,
        vocab_size=vocab_size,
        pooling="last",
        causal=False,
        projection="none" if name == "ViT-SO400M-16-SigLIP-i18n-256" else "bias",
    )
    return ClipConfig(
        vision.width,
        VisionConfig(image_size, patch_size, vision, "map", False, norm_pre=False, patch_bias=True, projection="none"),
        text,
        PreprocessConfig(resize="squash", interpolation="bicubic", mean=HALF, std=HALF),
        TokenizerConfig("tokenizer_json", "canonicalize", "tokenizer.json", tokenizer or f"timm/{name}", pad_id),
        SIGLIP_LOGIT_SCALE,
        SIGLIP_LOGIT_BIAS,
    )


def _tiny() -> ClipConfig:
    """Patches of 16 on 48 pixels: nine tokens, which make it quick, and enough for shapes that fill the image."""
    return ClipConfig(
        embed_dim=128,
        vision=VisionConfig(48, 16, TransformerConfig(width=192, layers=2, heads=3, activation="gelu")),
        text=TextConfig(TransformerConfig(width=128, layers=1, heads=2, activation="gelu"), context_length=32),
        preprocess=PreprocessConfig(mean=HALF, std=HALF),
    )


def _quick_gelu(config: ClipConfig) -> ClipConfig:
    vision, text = config.vision, config.text
    if isinstance(vision, VisionConfig):
        vision = replace(vision, transformer=replace(vision.transformer, activation="quick_gelu"))
    text = replace(text, transformer=replace(text.transformer, activation="quick_gelu"))
    return replace(config, vision=vision, text=text)


PRESETS = _presets()


def list_models() -> Listing:
    """The names that `create` knows, sorted: a list of strings that prints as a table of their sizes."""
    columns = ("name", "image M", "text M", "total M", "image GFLOPs", "text GFLOPs", "pixels", "context", "tokenizer")
    return Listing(
        columns,
        {name: _row(PRESETS[name]) for name in sorted(PRESETS)},
        "M: millions of parameters. GFLOPs: one image, one text, forward; a multiply-add is two. Pixels: of a side.",
    )


def get_config(name: str) -> ClipConfig:
    """The config of a named architecture. Raises UserError for an unknown name, naming the nearest."""
    if name not in PRESETS:
        hint = nearest(name, PRESETS)
        raise UserError(f"unknown model '{name}'; {hint if '?' in hint else 'clip_jax.list_models() has the names'}")
    return PRESETS[name]


def _row(config: ClipConfig) -> tuple[str | int | float, ...]:
    size, work = parameters(config), flops(config)
    millions = (size.image / 1e6, size.text / 1e6, size.total / 1e6)
    return (
        *(*millions, work.image / 1e9, work.text / 1e9),
        *(config.vision.image_size, config.text.context_length, config.tokenizer.kind),
    )
