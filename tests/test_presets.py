"""The named architectures, field by field against open_clip's own configs and against what timm builds."""

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.open_clip_shim import import_open_clip

from clip_jax.config import (
    ClipConfig,
    PreprocessConfig,
    TextConfig,
    TokenizerConfig,
    TransformerConfig,
    VisionConfig,
)
from clip_jax.errors import UserError
from clip_jax.model_size import parameters
from clip_jax.presets import PRESETS, get_config, list_models

CONFIGS = Path(str(import_open_clip().__file__)).with_name("model_configs")
OURS = ("tiny", "tiny-quickgelu")
THEIRS = [name for name in PRESETS if name not in OURS]
# What no JSON tells: the padding token of each tokenizer on the hub, and files that are no tokenizer.json.
PADDING = {"bert-base-uncased": 0, "facebook/xlm-v-base": 1, "google/mt5-base": 0}
SENTENCEPIECE = {"google/mt5-base": ("spiece.model", 1)}
BERT_SEPARATOR = 102


@lru_cache
def their_config(name: str) -> dict:
    return json.loads((CONFIGS / f"{name}.json").read_text())


def their_activation(name: str) -> str:
    return "quick_gelu" if their_config(name).get("quick_gelu") else "gelu"


@lru_cache
def timm_model(name: str) -> Any:
    """The model of that name in timm, with attention pooling, built on the meta device: shapes without values."""
    import timm
    import torch

    with torch.device("meta"):
        return timm.create_model(name, num_classes=0, global_pool="map")


def is_native(config: dict) -> bool:
    """Whether both towers are open_clip's own, or the vision tower timm's for SigLIP."""
    vision, text = config["vision_cfg"], config["text_cfg"]
    if "multimodal_cfg" in config or "hf_model_name" in text:
        return False
    return "siglip" in vision.get("timm_model_name", "siglip")


def test_every_native_architecture_of_open_clip_is_a_preset():
    native = {path.stem for path in CONFIGS.glob("*.json") if is_native(their_config(path.stem))}
    assert set(THEIRS) == native
    assert len(native) > 75


@pytest.mark.parametrize("name", THEIRS)
def test_text_tower(name):
    text = their_config(name)["text_cfg"]
    assert text.keys() <= {
        *("width", "layers", "heads", "mlp_ratio", "act_kwargs", "norm_kwargs", "context_length", "vocab_size"),
        *("pool_type", "eos_id", "no_causal_mask", "proj_type", "proj_bias", "hf_tokenizer_name", "tokenizer_kwargs"),
    }
    tanh = text.get("act_kwargs") == {"approximate": "tanh"}
    assert get_config(name).to_dict()["text"] == {
        "transformer": {
            "width": text["width"],
            "layers": text["layers"],
            "heads": text["heads"],
            "mlp_ratio": text.get("mlp_ratio", 4.0),
            "activation": "gelu_tanh" if tanh else their_activation(name),
            "norm_epsilon": text.get("norm_kwargs", {}).get("eps", 1e-5),
            "layer_scale": None,
        },
        "context_length": text["context_length"],
        "vocab_size": text["vocab_size"],
        "pooling": {"argmax": "argmax", "eos": "end_token", "last": "last"}[text.get("pool_type", "argmax")],
        "end_token_id": text.get("eos_id"),
        "causal": not text.get("no_causal_mask", False),
        "projection": "none" if text.get("proj_type") == "none" else "bias" if text.get("proj_bias") else "no_bias",
    }


@pytest.mark.parametrize("name", [name for name in THEIRS if name.startswith("RN")])
def test_resnet(name):
    vision = their_config(name)["vision_cfg"]
    assert vision.keys() == {"image_size", "layers", "width", "patch_size"}
    assert get_config(name).to_dict()["vision"] == {
        "image_size": vision["image_size"],
        "layers": tuple(vision["layers"]),
        "width": vision["width"],
        "heads": 32 * vision["width"] // 64,
    }


@pytest.mark.parametrize("name", [name for name in THEIRS if name.startswith("ViT") and "SigLIP" not in name])
def test_vision_transformer(name):
    vision = their_config(name)["vision_cfg"]
    assert vision.keys() <= {
        *("image_size", "patch_size", "width", "layers", "head_width", "mlp_ratio", "ls_init_value"),
        *("pool_type", "no_ln_pre", "final_ln_after_pool"),
    }
    # Our mean is taken before the last norm.
    assert vision.get("final_ln_after_pool", False) == (vision.get("pool_type") == "avg")
    assert get_config(name).to_dict()["vision"] == {
        "image_size": vision["image_size"],
        "patch_size": vision["patch_size"],
        "transformer": {
            "width": vision["width"],
            "layers": vision["layers"],
            "heads": vision["width"] // vision.get("head_width", 64),
            "mlp_ratio": vision.get("mlp_ratio", 4.0),
            "activation": their_activation(name),
            "norm_epsilon": 1e-5,
            "layer_scale": vision.get("ls_init_value"),
        },
        "pooling": {"tok": "class_token", "avg": "mean"}[vision.get("pool_type", "tok")],
        "class_token": True,
        "norm_pre": not vision.get("no_ln_pre", False),
        "patch_bias": False,
        "projection": "no_bias",
    }


@pytest.mark.parametrize("name", [name for name in THEIRS if "SigLIP" in name])
def test_vision_transformer_of_timm(name):
    """What SigLIP's vision towers are, only timm's modules tell."""
    config, vision = get_config(name), their_config(name)["vision_cfg"]
    assert vision.keys() == {"image_size", "timm_model_name", "timm_model_pretrained", "timm_pool", "timm_proj"}
    assert (vision["timm_pool"], vision["timm_proj"]) == ("map", "none")
    trunk = timm_model(vision["timm_model_name"])
    block, pool = trunk.blocks[0], trunk.attn_pool
    stack = config.to_dict()["vision"]["transformer"]
    assert config.to_dict()["vision"] == {
        "image_size": vision["image_size"],
        "patch_size": trunk.patch_embed.patch_size[0],
        "transformer": {
            "width": trunk.embed_dim,
            "layers": len(trunk.blocks),
            "heads": block.attn.num_heads,
            "mlp_ratio": stack["mlp_ratio"],
            "activation": {"GELU": "gelu", "GELUTanh": "gelu_tanh"}[type(block.mlp.act).__name__],
            "norm_epsilon": block.norm1.eps,
            "layer_scale": None,
        },
        "pooling": "map",
        "class_token": trunk.cls_token is not None,
        "norm_pre": type(trunk.norm_pre).__name__ != "Identity",
        "patch_bias": trunk.patch_embed.proj.bias is not None,
        "projection": "none",
    }
    assert int(stack["width"] * stack["mlp_ratio"]) == block.mlp.fc1.out_features == pool.mlp.fc1.out_features
    assert config.vision.grid == trunk.patch_embed.grid_size[0]
    assert config.embed_dim == trunk.embed_dim
    assert (pool.num_heads, pool.norm.eps, trunk.norm.eps) == (stack["heads"], *[stack["norm_epsilon"]] * 2)
    assert type(block.mlp.act) is type(pool.mlp.act)


@pytest.mark.parametrize("name", THEIRS)
def test_what_is_around_the_towers(name):
    config, theirs = get_config(name), their_config(name)
    siglip = "init_logit_bias" in theirs
    assert config.embed_dim == theirs["embed_dim"]
    assert config.initial_logit_bias == theirs.get("init_logit_bias")
    # open_clip's configs leave the scale out; its training script sets ln 10 for SigLIP.
    assert config.initial_logit_scale == pytest.approx(np.log(10) if siglip else np.log(1 / 0.07), abs=1e-12)
    assert theirs.keys() <= {"embed_dim", "vision_cfg", "text_cfg", "quick_gelu", "init_logit_bias", "custom_text"}

    tokenizer, repository = config.tokenizer, theirs["text_cfg"].get("hf_tokenizer_name")
    if repository is None:
        assert tokenizer == TokenizerConfig()
        return
    options = theirs["text_cfg"].get("tokenizer_kwargs", {})
    file, end_id = SENTENCEPIECE.get(repository, ("tokenizer.json", None))
    assert tokenizer == TokenizerConfig(
        kind="sentencepiece" if repository in SENTENCEPIECE else "tokenizer_json",
        clean=options.get("clean", "whitespace"),
        file=file,
        repository=repository,
        pad_id=PADDING.get(repository, 0 if "SigLIP2" in repository else 1),
        end_id=end_id,
        zeroed_id=BERT_SEPARATOR if options.get("strip_sep_token") else None,
    )
    assert options.keys() <= {"clean", "strip_sep_token"}


@pytest.mark.parametrize("name", THEIRS)
def test_preprocessing_is_that_of_the_family(name):
    """As open_clip's table of weights has it by default; where a tag differs, the table of weights says so."""
    from open_clip.pretrained import _apcfg, _pcfg, _slpcfg

    family = _slpcfg if "SigLIP" in name else _apcfg if "CLIPA" in name else _pcfg
    expected = family()
    ours = get_config(name).preprocess
    assert (ours.mean, ours.std) == (expected["mean"], expected["std"])
    assert (ours.interpolation, ours.resize) == (expected["interpolation"], expected["resize_mode"])
    assert ours.crop_offset == "round"


def test_tiny_is_what_it_was():
    """Models of these names have been trained and saved."""
    for name, activation in zip(OURS, ("gelu", "quick_gelu"), strict=True):
        assert get_config(name) == ClipConfig(
            128,
            VisionConfig(48, 16, TransformerConfig(192, 2, 3, 4.0, activation)),
            TextConfig(TransformerConfig(128, 1, 2, 4.0, activation), 32),
            PreprocessConfig("shortest", "bicubic", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
        )


def test_configs_survive_json():
    for name in PRESETS:
        config = get_config(name)
        assert ClipConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_list_models_is_a_list_of_names():
    models = list_models()
    assert models == sorted(PRESETS)
    assert "ViT-B-32" in models
    assert (len(models), models[0], models[-1]) == (len(PRESETS), "RN101", "tiny-quickgelu")
    assert isinstance(models, list)


def test_list_models_prints_a_table():
    """The figures are those of open_clip's docs/model_profile.csv."""
    lines = str(list_models()).splitlines()
    assert lines[0].split() == [
        *("name", "image", "M", "text", "M", "total", "M", "image", "GFLOPs", "text", "GFLOPs"),
        *("pixels", "context", "tokenizer"),
    ]
    row = next(line for line in lines if line.startswith("ViT-B-32 "))
    assert row.split() == ["ViT-B-32", "87.85", "63.43", "151.28", "8.82", "5.96", "224", "77", "clip_bpe"]
    assert max(map(len, lines)) <= 120
    assert repr(list_models()) == str(list_models())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ViT-B/32", "unknown model 'ViT-B/32'; did you mean 'ViT-B-32'?"),
        ("vit-l-14-336-quickgelu", "unknown model 'vit-l-14-336-quickgelu'; did you mean 'ViT-L-14-336-quickgelu'?"),
        ("", "unknown model ''; clip_jax.list_models() has the names"),
    ],
)
def test_unknown_model(name, message):
    with pytest.raises(UserError) as caught:
        get_config(name)
    assert str(caught.value).startswith(message)


@pytest.mark.slow
@pytest.mark.parametrize("name", THEIRS)
def test_parameters_equal_open_clips(name):
    """open_clip's model, built on torch's meta device, where parameters have shapes but no values."""
    import torch
    from open_clip.model import CLIP, CustomTextCLIP

    theirs = json.loads(json.dumps(their_config(name)))
    build = CustomTextCLIP if theirs.pop("custom_text", False) else CLIP
    with torch.device("meta"):
        model = build(**theirs)
    total = sum(parameter.numel() for parameter in model.parameters())
    image = sum(parameter.numel() for parameter in model.visual.parameters())
    size = parameters(get_config(name))
    assert (size.image, size.total) == (image, total)
    scalars = [model.logit_scale] + ([] if model.logit_bias is None else [model.logit_bias])
    assert size.text == total - image - len(scalars)
