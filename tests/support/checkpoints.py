"""Checkpoints as other libraries write them: small models with random parameters, in folders and files of all kinds."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.open_clip_shim import import_open_clip
from support.tokenizer_models import bert_like, gemma_json, xlm_like
from support.torch_clip import randomise

from clip_jax.config import TransformerConfig, VisionConfig
from clip_jax.weights import open_clip_config

Config = Mapping[str, Any]

JPEGS = ((131, 97), (90, 137), (101, 100))  # width, height; some leave an odd number of pixels to crop

WORDS = {"context_length": 9, "vocab_size": 60, "width": 40, "heads": 5, "layers": 2}
IMAGE = {"image_size": 37, "patch_size": 8, "width": 32, "head_width": 16, "layers": 2}
RESNET = {"image_size": 64, "layers": [2, 1, 2, 1], "width": 16, "patch_size": None}
TOY = "vit_toy_patch8_siglip_32"  # a small SigLIP, which `toy_siglip` teaches timm and us
TIMM = {"timm_model_pretrained": False, "timm_pool": "map", "timm_proj": "none"}
MAP = {"image_size": 32, "timm_model_name": TOY, **TIMM}
SIGLIP_WORDS = {**WORDS, "no_causal_mask": True, "pool_type": "last", "norm_kwargs": {"eps": 1e-6}}
MAP_WORDS = {**SIGLIP_WORDS, "width": 48, "heads": 4}
SQUASH = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "interpolation": "bicubic", "resize_mode": "squash"}

# open_clip's model_cfg by the released model that has its peculiarities, every size smaller.
OPEN_CLIP: dict[str, Config] = {
    "ViT-B-32-quickgelu": {
        "embed_dim": 24,
        "quick_gelu": True,
        "vision_cfg": IMAGE,
        "text_cfg": {**WORDS, "context_length": 16, "vocab_size": 49408},
    },
    "ViT-M-16-alt": {"embed_dim": 24, "vision_cfg": {**IMAGE, "ls_init_value": 1e-4}, "text_cfg": WORDS},
    "ViT-g-14": {  # heads 88 wide, an MLP that is no whole multiple of the width
        "embed_dim": 24,
        "vision_cfg": {**IMAGE, "width": 176, "head_width": 88, "mlp_ratio": 4.3637},
        "text_cfg": WORDS,
    },
    "ViT-H-14-CLIPA": {
        "embed_dim": 24,
        "vision_cfg": {**IMAGE, "no_ln_pre": True, "pool_type": "avg", "final_ln_after_pool": True},
        "text_cfg": {
            **WORDS,
            "vocab_size": 300,
            "pool_type": "last",
            "no_causal_mask": True,
            "hf_tokenizer_name": "bert-base-uncased",
            "tokenizer_kwargs": {"strip_sep_token": True},
        },
    },
    "ViT-H-14-worldwide": {
        "embed_dim": 24,
        "vision_cfg": IMAGE,
        "text_cfg": {
            **WORDS,
            "vocab_size": 400,
            "pool_type": "eos",
            "eos_id": 2,
            "hf_tokenizer_name": "facebook/xlm-v-base",
        },
    },
    "RN50": {"embed_dim": 24, "vision_cfg": RESNET, "text_cfg": WORDS},
    "custom text": {
        "embed_dim": 24,
        "custom_text": True,
        "init_logit_scale": 2.5,
        "init_logit_bias": -3.0,
        "vision_cfg": {**IMAGE, "norm_kwargs": {"eps": 1e-3}, "act_kwargs": {"approximate": "tanh"}},
        "text_cfg": {**WORDS, "ls_init_value": 0.1, "proj_bias": True, "mlp_ratio": 2.5},
    },
    "custom text, no bias": {
        "embed_dim": 24,
        "custom_text": True,
        "nonscalar_logit_scale": True,
        "vision_cfg": IMAGE,
        "text_cfg": WORDS,
    },
    "custom text, RN50": {"embed_dim": 24, "custom_text": True, "vision_cfg": RESNET, "text_cfg": WORDS},
    "bias": {"embed_dim": 24, "vision_cfg": IMAGE, "text_cfg": {**WORDS, "proj_bias": True}},
    "ViT-B-16-SigLIP2": {
        "embed_dim": 48,
        "init_logit_bias": -10,
        "custom_text": True,
        "vision_cfg": MAP,
        "text_cfg": {
            **MAP_WORDS,
            "vocab_size": 700,
            "proj_bias": True,
            "act_kwargs": {"approximate": "tanh"},
            "hf_tokenizer_name": "timm/ViT-B-16-SigLIP2",
            "tokenizer_kwargs": {"clean": "canonicalize"},
        },
    },
    "ViT-SO400M-16-SigLIP-i18n-256": {
        "embed_dim": 48,
        "init_logit_bias": -10,
        "custom_text": True,
        "vision_cfg": MAP,
        "text_cfg": {**MAP_WORDS, "proj_type": "none", "mlp_ratio": 3.7362},
    },
}
PREPROCESS: dict[str, Config] = {
    "ViT-H-14-CLIPA": {
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "interpolation": "bilinear",
        "resize_mode": "squash",
    },
    "bias": {
        "size": 37,
        "mode": "RGB",
        "mean": [0.4, 0.5, 0.6],
        "std": [0.2, 0.25, 0.3],
        "interpolation": "bilinear",
        "resize_mode": "longest",
        "fill_color": 120,
    },
    "ViT-B-16-SigLIP2": SQUASH,
    "ViT-SO400M-16-SigLIP-i18n-256": SQUASH,
}
OPENAI_PREPROCESS: Config = {
    "mean": [0.48145466, 0.4578275, 0.40821073],
    "std": [0.26862954, 0.26130258, 0.27577711],
    "interpolation": "bicubic",
    "resize_mode": "shortest",
}
# The files of tokenizers that are not CLIP's own: tokenizer.json, and what tokenizer_config.json says of it.
TOKENIZERS: dict[str, tuple[Callable[[], bytes], Config]] = {
    "ViT-H-14-CLIPA": (bert_like, {"tokenizer_class": "BertTokenizer", "pad_token": "[PAD]", "sep_token": "[SEP]"}),
    "ViT-H-14-worldwide": (xlm_like, {"tokenizer_class": "XLMRobertaTokenizer", "pad_token": "<pad>"}),
    "ViT-B-16-SigLIP2": (gemma_json, {"tokenizer_class": "GemmaTokenizer", "pad_token": "<pad>", "eos_token": "<eos>"}),
}


def open_clip_model(config: Config, seed: int = 0) -> Any:
    """What open_clip builds by a model_cfg, every parameter, statistic and counter random."""
    import torch

    open_clip = import_open_clip()
    arguments = dict(config)
    build = open_clip.CustomTextCLIP if arguments.pop("custom_text", False) else open_clip.CLIP
    model = randomise(build(**arguments).eval(), seed)
    with torch.no_grad():
        for index, (name, buffer) in enumerate(model.named_buffers()):
            if name.endswith("num_batches_tracked"):
                buffer.fill_(2**40 + index)
        if hasattr(model.visual, "attnpool"):
            # Over feature maps as large as random ones, a softmax would be a maximum, which float32 cannot tell well.
            model.visual.attnpool.q_proj.weight.mul_(0.05)
    return model


def write_open_clip(
    folder: Path, name: str, seed: int = 0, config: Config | None = None, tensors: Mapping[str, Any] | None = None
) -> Any:
    """A folder of safetensors with all that open_clip's `local-dir:` needs, by the name in OPEN_CLIP; its model.

    `tensors` are written in place of the model's own.
    """
    from safetensors.torch import save_file

    config = OPEN_CLIP[name] if config is None else config
    model = open_clip_model(config, seed)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(dict(model.state_dict() if tensors is None else tensors), folder / "open_clip_model.safetensors")
    values = {"model_cfg": config, "preprocess_cfg": PREPROCESS.get(name, OPENAI_PREPROCESS)}
    write_json(folder / "open_clip_config.json", values)
    if name in TOKENIZERS:
        contents, settings = TOKENIZERS[name]
        (folder / "tokenizer.json").write_bytes(contents())
        write_json(folder / "tokenizer_config.json", {**settings, "padding_side": "right"})
    return model


def toy_siglip(patch: pytest.MonkeyPatch) -> None:
    """Teaches timm and our table of its names a SigLIP tower that is small enough for tests."""
    import_open_clip()
    from timm.models import _registry

    patch.setitem(_registry._model_entrypoints, TOY, _build_toy)
    stack = TransformerConfig(48, 2, 3, 2.5, "gelu", 1e-6)
    vision = VisionConfig(32, 8, stack, "map", False, norm_pre=False, patch_bias=True, projection="none")
    patch.setitem(open_clip_config.TIMM_VISION, TOY, vision)


def _build_toy(pretrained: bool = False, **options: Any) -> Any:
    from timm.models.vision_transformer import VisionTransformer

    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3, "mlp_ratio": 2.5}
    for unused in ("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"):
        options.pop(unused, None)
    assert not pretrained
    return VisionTransformer(**sizes, class_token=False, **options)


def write_json(path: Path, values: Any) -> None:
    path.write_text(json.dumps(values), encoding="utf-8")


def write_jpegs(folder: Path) -> list[Path]:
    """Noisy pictures, which show a shift by one pixel, of the sizes JPEGS."""
    rng = np.random.default_rng(5)
    paths = []
    for width, height in JPEGS:
        coarse = rng.integers(0, 256, (height // 5, width // 5, 3), np.uint8)
        paths.append(folder / f"{width}x{height}.jpg")
        Image.fromarray(coarse).resize((width, height)).save(paths[-1], quality=95)
    return paths


def random_tokens(context_length: int, vocab_size: int, end: int, batch: int = 3) -> np.ndarray:
    """Token ids [b, n], none of them the largest but for `end`, which ends each row elsewhere, before zeros."""
    tokens = np.random.default_rng(6).integers(3, vocab_size - 1, (batch, context_length), np.int32)
    for row, length in enumerate(np.linspace(1, context_length - 1, batch).astype(int)):
        tokens[row, length] = end
        tokens[row, length + 1 :] = 0
    return tokens


def random_pixels(image_size: int, batch: int = 3) -> np.ndarray:
    """Normalised pixels [b, size, size, 3]."""
    return np.random.default_rng(7).standard_normal((batch, image_size, image_size, 3)).astype(np.float32)


def channels_first(pixels: np.ndarray) -> Any:
    """Pixels as PyTorch's models take them."""
    import torch

    return torch.tensor(pixels.transpose(0, 3, 1, 2).copy())


def stored(path: Path) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """What a safetensors file holds, as the library itself reads it: type, shape and bytes of every tensor."""
    import torch
    from safetensors.torch import load_file

    return {
        name: (str(tensor.dtype), tuple(tensor.shape), tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
        for name, tensor in load_file(path).items()
    }
