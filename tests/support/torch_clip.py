"""CLIP and SigLIP in PyTorch, by transformers, open_clip and timm, and their parameters in the places where ours lie.

The mapping is written apart from the package's own converters, which it serves to check.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from support.open_clip_shim import import_open_clip

from clip_jax.config import ClipConfig, TransformerConfig, VisionConfig
from clip_jax.models.two_tower import Params

Tensors = Mapping[str, Any]
"""Names to torch tensors: a state dict, or the gradients of its entries."""

HF_ACTIVATIONS = {"quick_gelu": "quick_gelu", "gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh"}
HF_TRANSFORMER = {
    "norm_1": "layer_norm1",
    "norm_2": "layer_norm2",
    "out": "self_attn.out_proj",
    "up": "mlp.fc1",
    "down": "mlp.fc2",
}
OPEN_CLIP_TRANSFORMER = {
    "norm_1": "ln_1",
    "norm_2": "ln_2",
    "out": "attn.out_proj",
    "up": "mlp.c_fc",
    "down": "mlp.c_proj",
}
TIMM_TRANSFORMER = {"norm_1": "norm1", "norm_2": "norm2", "out": "attn.proj", "up": "mlp.fc1", "down": "mlp.fc2"}


def transformers_clip(config: ClipConfig, seed: int) -> Any:
    """Transformers' CLIPModel of our config, every parameter random: no zero biases, no norms of one."""

    import_open_clip()  # transformers imports torchvision, which may need its help
    from transformers import CLIPConfig, CLIPModel

    def tower(stack: TransformerConfig) -> dict[str, Any]:
        return {
            "hidden_size": stack.width,
            "intermediate_size": stack.mlp_width,
            "num_hidden_layers": stack.layers,
            "num_attention_heads": stack.heads,
            "hidden_act": HF_ACTIVATIONS[stack.activation],
            "layer_norm_eps": stack.norm_epsilon,
            "projection_dim": config.embed_dim,
        }

    vision, text = config.vision, config.text
    assert isinstance(vision, VisionConfig)
    end_token = text.vocab_size - 1
    hf_config = CLIPConfig(
        projection_dim=config.embed_dim,
        vision_config=tower(vision.transformer) | {"image_size": vision.image_size, "patch_size": vision.patch_size},
        text_config=tower(text.transformer)
        | {
            "vocab_size": text.vocab_size,
            "max_position_embeddings": text.context_length,
            "bos_token_id": end_token - 1,
            "eos_token_id": end_token,
            "pad_token_id": 0,
        },
    )
    model = CLIPModel(hf_config).eval()
    return randomise(model, seed)


def transformers_siglip(config: ClipConfig, seed: int) -> Any:
    """Transformers' SiglipModel of our config, every parameter random."""
    import_open_clip()  # transformers imports torchvision, which may need its help
    from transformers import SiglipConfig, SiglipModel

    def tower(stack: TransformerConfig) -> dict[str, Any]:
        return {
            "hidden_size": stack.width,
            "intermediate_size": stack.mlp_width,
            "num_hidden_layers": stack.layers,
            "num_attention_heads": stack.heads,
            "hidden_act": HF_ACTIVATIONS[stack.activation],
            "layer_norm_eps": stack.norm_epsilon,
        }

    vision, text = config.vision, config.text
    assert isinstance(vision, VisionConfig)
    hf_config = SiglipConfig(
        vision_config=tower(vision.transformer) | {"image_size": vision.image_size, "patch_size": vision.patch_size},
        text_config=tower(text.transformer)
        | {
            "vocab_size": text.vocab_size,
            "max_position_embeddings": text.context_length,
            "projection_size": config.embed_dim,
            "bos_token_id": 0,
            "eos_token_id": 1,
            "pad_token_id": 1,
        },
    )
    return randomise(SiglipModel(hf_config).eval(), seed)


def randomise(model: Any, seed: int) -> Any:
    """The model with every parameter and statistic random: no zero biases, no gains of one."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if name == "logit_scale":
                parameter.copy_(2.0 + 0.3 * noise)
            elif name.endswith(("weight", "gamma")) and parameter.ndim == 1:
                parameter.copy_(1 + 0.3 * noise)
            elif name.endswith("bias"):
                parameter.copy_(0.2 * noise)
            elif "patch" not in name and any(word in name for word in ("embed", "probe", "latent")):
                parameter.copy_(noise)
            else:  # kernels, large enough that attention is far from uniform
                parameter.copy_(1.5 * noise * parameter[0].numel() ** -0.5)
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.copy_(torch.randn(buffer.shape, generator=generator))
            elif name.endswith("running_var"):
                buffer.copy_(0.5 + 1.5 * torch.rand(buffer.shape, generator=generator))
    return model


def params_from_transformers(tensors: Tensors) -> Params:
    """CLIPModel's state dict, or gradients by the same names, as our parameters."""
    vision, text = "vision_model.", "text_model."
    return {
        "visual": {
            "patch_embedding": _patch_embedding(tensors, vision + "embeddings.patch_embedding"),
            "class_embedding": _array(tensors[vision + "embeddings.class_embedding"]),
            "positional_embedding": _array(tensors[vision + "embeddings.position_embedding.weight"]),
            "norm_pre": _norm(tensors, vision + "pre_layrnorm"),
            "transformer": _transformers_stack(tensors, vision + "encoder.layers."),
            "norm_post": _norm(tensors, vision + "post_layernorm"),
            "projection": _array(tensors["visual_projection.weight"]).T,
        },
        "text": {
            "token_embedding": _array(tensors[text + "embeddings.token_embedding.weight"]),
            "positional_embedding": _array(tensors[text + "embeddings.position_embedding.weight"]),
            "transformer": _transformers_stack(tensors, text + "encoder.layers."),
            "norm_final": _norm(tensors, text + "final_layer_norm"),
            "projection": _array(tensors["text_projection.weight"]).T,
        },
        "logit_scale": _array(tensors["logit_scale"]),
    }


def params_from_transformers_siglip(tensors: Tensors) -> Params:
    """SiglipModel's state dict, or gradients by the same names, as our parameters."""
    vision, text, head = "vision_model.", "text_model.", "vision_model.head."
    return {
        "visual": {
            "patch_embedding": _patch_embedding(tensors, vision + "embeddings.patch_embedding"),
            "positional_embedding": _array(tensors[vision + "embeddings.position_embedding.weight"]),
            "transformer": _transformers_stack(tensors, vision + "encoder.layers."),
            "norm_post": _norm(tensors, vision + "post_layernorm"),
            "pool": {
                "probe": _array(tensors[head + "probe"])[0, 0],
                "qkv": _in_projection(tensors, head + "attention"),
                "out": _linear(tensors, head + "attention.out_proj"),
                "norm": _norm(tensors, head + "layernorm"),
                "mlp": {"up": _linear(tensors, head + "mlp.fc1"), "down": _linear(tensors, head + "mlp.fc2")},
            },
        },
        "text": {
            "token_embedding": _array(tensors[text + "embeddings.token_embedding.weight"]),
            "positional_embedding": _array(tensors[text + "embeddings.position_embedding.weight"]),
            "transformer": _transformers_stack(tensors, text + "encoder.layers."),
            "norm_final": _norm(tensors, text + "final_layer_norm"),
            "projection": _array(tensors[text + "head.weight"]).T,
            "projection_bias": _array(tensors[text + "head.bias"]),
        },
        "logit_scale": _array(tensors["logit_scale"])[0],
        "logit_bias": _array(tensors["logit_bias"])[0],
    }


def params_from_open_clip(tensors: Tensors) -> Params:
    """The state dict of open_clip's CLIP, or gradients and statistics by the same names, as our parameters."""
    tower = _resnet if "visual.attnpool.positional_embedding" in tensors else _open_clip_vision
    scalars = {name: _array(tensors[name]) for name in ("logit_scale", "logit_bias") if name in tensors}
    return {"visual": tower(tensors), "text": _open_clip_text(tensors), **scalars}


def vision_params_from_timm(tensors: Tensors) -> Params:
    """The state dict of timm's VisionTransformer with attention pooling as our image tower's parameters."""
    query, key_value = _linear(tensors, "attn_pool.q"), _linear(tensors, "attn_pool.kv")
    return {
        "patch_embedding": _patch_embedding(tensors, "patch_embed.proj"),
        "positional_embedding": _array(tensors["pos_embed"])[0],
        "transformer": _stack(tensors, "blocks.", TIMM_TRANSFORMER, lambda layer: _linear(tensors, layer + "attn.qkv")),
        "norm_post": _norm(tensors, "norm"),
        "pool": {
            "probe": _array(tensors["attn_pool.latent"])[0, 0],
            "qkv": {leaf: np.concatenate([query[leaf], key_value[leaf]], axis=-1) for leaf in ("kernel", "bias")},
            "out": _linear(tensors, "attn_pool.proj"),
            "norm": _norm(tensors, "attn_pool.norm"),
            "mlp": {name: _linear(tensors, f"attn_pool.mlp.{fc}") for name, fc in (("up", "fc1"), ("down", "fc2"))},
        },
    }


def _open_clip_vision(tensors: Tensors) -> Params:
    params = {
        "patch_embedding": _patch_embedding(tensors, "visual.conv1"),
        "class_embedding": _array(tensors["visual.class_embedding"]),
        "positional_embedding": _array(tensors["visual.positional_embedding"]),
        "transformer": _open_clip_stack(tensors, "visual.transformer.resblocks."),
        "norm_post": _norm(tensors, "visual.ln_post"),
        "projection": _array(tensors["visual.proj"]),
    }
    return params | ({"norm_pre": _norm(tensors, "visual.ln_pre")} if "visual.ln_pre.weight" in tensors else {})


def _open_clip_text(tensors: Tensors) -> Params:
    params = {
        "token_embedding": _array(tensors["token_embedding.weight"]),
        "positional_embedding": _array(tensors["positional_embedding"]),
        "transformer": _open_clip_stack(tensors, "transformer.resblocks."),
        "norm_final": _norm(tensors, "ln_final"),
    }
    if "text_projection" in tensors:
        return params | {"projection": _array(tensors["text_projection"])}
    if "text_projection.weight" in tensors:
        linear = _linear(tensors, "text_projection")
        return params | {"projection": linear["kernel"], "projection_bias": linear["bias"]}
    return params


def _resnet(tensors: Tensors) -> Params:
    def convolutions(prefix: str) -> Params:
        params: Params = {}
        for number in (1, 2, 3):
            params[f"conv_{number}"] = _convolution(tensors, f"{prefix}conv{number}")
            params[f"norm_{number}"] = _batch_norm(tensors, f"{prefix}bn{number}")
        return params

    def block(prefix: str) -> Params:
        params = convolutions(prefix)
        if prefix + "downsample.0.weight" in tensors:
            conv, norm = _convolution(tensors, prefix + "downsample.0"), _batch_norm(tensors, prefix + "downsample.1")
            params["downsample"] = {"conv": conv, "norm": norm}
        return params

    def stage(prefix: str) -> Params:
        count = len({name.removeprefix(prefix).split(".")[0] for name in tensors if name.startswith(prefix)})
        return {f"block_{index}": block(f"{prefix}{index}.") for index in range(count)}

    pool = "visual.attnpool."
    parts = [_linear(tensors, f"{pool}{part}_proj") for part in "qkv"]
    return {
        "stem": convolutions("visual."),
        **{f"stage_{number}": stage(f"visual.layer{number}.") for number in (1, 2, 3, 4)},
        "attention_pool": {
            "positional_embedding": _array(tensors[pool + "positional_embedding"]),
            "qkv": {leaf: np.concatenate([part[leaf] for part in parts], axis=-1) for leaf in ("kernel", "bias")},
            "out": _linear(tensors, pool + "c_proj"),
        },
    }


def _array(tensor: Any) -> np.ndarray:
    return tensor.detach().numpy()


def _norm(tensors: Tensors, name: str) -> Params:
    return {"scale": _array(tensors[name + ".weight"]), "bias": _array(tensors[name + ".bias"])}


def _linear(tensors: Tensors, name: str) -> Params:
    return {"kernel": _array(tensors[name + ".weight"]).T, "bias": _array(tensors[name + ".bias"])}


def _convolution(tensors: Tensors, name: str) -> Params:
    return {"kernel": _array(tensors[name + ".weight"]).transpose(2, 3, 1, 0)}


def _batch_norm(tensors: Tensors, name: str) -> Params:
    statistics = {"mean": _array(tensors[name + ".running_mean"]), "variance": _array(tensors[name + ".running_var"])}
    return _norm(tensors, name) | statistics


def _in_projection(tensors: Tensors, name: str) -> Params:
    return {"kernel": _array(tensors[name + ".in_proj_weight"]).T, "bias": _array(tensors[name + ".in_proj_bias"])}


def _patch_embedding(tensors: Tensors, name: str) -> Params:
    params = {"kernel": _patch_kernel(tensors[name + ".weight"])}
    return params | ({"bias": _array(tensors[name + ".bias"])} if name + ".bias" in tensors else {})


def _patch_kernel(tensor: Any) -> np.ndarray:
    """A convolution's [width, 3, rows, columns] as the matrix of flattened patches, [rows * columns * 3, width]."""
    kernel = _array(tensor)
    return kernel.transpose(2, 3, 1, 0).reshape(-1, len(kernel))


def _transformers_stack(tensors: Tensors, prefix: str) -> Params:
    def qkv(layer: str) -> Params:
        parts = [_linear(tensors, f"{layer}self_attn.{part}_proj") for part in "qkv"]
        return {leaf: np.concatenate([part[leaf] for part in parts], axis=-1) for leaf in ("kernel", "bias")}

    return _stack(tensors, prefix, HF_TRANSFORMER, qkv)


def _open_clip_stack(tensors: Tensors, prefix: str) -> Params:
    return _stack(tensors, prefix, OPEN_CLIP_TRANSFORMER, lambda layer: _in_projection(tensors, layer + "attn"))


def _stack(tensors: Tensors, prefix: str, names: Mapping[str, str], qkv) -> Params:
    import jax

    def block(layer: str) -> Params:
        params = {
            "norm_1": _norm(tensors, layer + names["norm_1"]),
            "attention": {"qkv": qkv(layer), "out": _linear(tensors, layer + names["out"])},
            "norm_2": _norm(tensors, layer + names["norm_2"]),
            "mlp": {"up": _linear(tensors, layer + names["up"]), "down": _linear(tensors, layer + names["down"])},
        }
        gains = {f"scale_{number}": f"{layer}ls_{number}.gamma" for number in (1, 2)}
        return params | {ours: _array(tensors[theirs]) for ours, theirs in gains.items() if theirs in tensors}

    count = len({name.removeprefix(prefix).split(".")[0] for name in tensors if name.startswith(prefix)})
    blocks = [block(f"{prefix}{index}.") for index in range(count)]
    return {"block": jax.tree.map(lambda *leaves: np.stack(leaves), *blocks)}
