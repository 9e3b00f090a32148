"""CLIP in PyTorch, by transformers and by open_clip, and its parameters in the places where ours lie.

The mapping is written apart from the package's own converters, which it serves to check.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from support.open_clip_shim import import_open_clip

from clip_jax.config import ClipConfig, TransformerConfig
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


def transformers_clip(config: ClipConfig, seed: int) -> Any:
    """Transformers' CLIPModel of our config, every parameter random: no zero biases, no norms of one."""
    import torch

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
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if name == "logit_scale":
                parameter.copy_(2.0 + 0.3 * noise)
            elif "norm" in name and name.endswith("weight"):
                parameter.copy_(1 + 0.3 * noise)
            elif name.endswith("bias"):
                parameter.copy_(0.2 * noise)
            elif "embedding" in name and "patch" not in name:
                parameter.copy_(noise)
            else:  # kernels, large enough that attention is far from uniform
                parameter.copy_(1.5 * noise * parameter[0].numel() ** -0.5)
    return model


def params_from_transformers(tensors: Tensors) -> Params:
    """CLIPModel's state dict, or gradients by the same names, as our parameters."""
    vision, text = "vision_model.", "text_model."
    return {
        "visual": {
            "patch_embedding": {"kernel": _patch_kernel(tensors[vision + "embeddings.patch_embedding.weight"])},
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


def params_from_open_clip(tensors: Tensors) -> Params:
    """The state dict of open_clip's CLIP as our parameters."""
    return {
        "visual": {
            "patch_embedding": {"kernel": _patch_kernel(tensors["visual.conv1.weight"])},
            "class_embedding": _array(tensors["visual.class_embedding"]),
            "positional_embedding": _array(tensors["visual.positional_embedding"]),
            "norm_pre": _norm(tensors, "visual.ln_pre"),
            "transformer": _open_clip_stack(tensors, "visual.transformer.resblocks."),
            "norm_post": _norm(tensors, "visual.ln_post"),
            "projection": _array(tensors["visual.proj"]),
        },
        "text": {
            "token_embedding": _array(tensors["token_embedding.weight"]),
            "positional_embedding": _array(tensors["positional_embedding"]),
            "transformer": _open_clip_stack(tensors, "transformer.resblocks."),
            "norm_final": _norm(tensors, "ln_final"),
            "projection": _array(tensors["text_projection"]),
        },
        "logit_scale": _array(tensors["logit_scale"]),
    }


def _array(tensor: Any) -> np.ndarray:
    return tensor.detach().numpy()


def _norm(tensors: Tensors, name: str) -> Params:
    return {"scale": _array(tensors[name + ".weight"]), "bias": _array(tensors[name + ".bias"])}


def _linear(tensors: Tensors, name: str) -> Params:
    return {"kernel": _array(tensors[name + ".weight"]).T, "bias": _array(tensors[name + ".bias"])}


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
    def qkv(layer: str) -> Params:
        weight, bias = (_array(tensors[f"{layer}attn.in_proj_{leaf}"]) for leaf in ("weight", "bias"))
        return {"kernel": weight.T, "bias": bias}

    return _stack(tensors, prefix, OPEN_CLIP_TRANSFORMER, qkv)


def _stack(tensors: Tensors, prefix: str, names: Mapping[str, str], qkv) -> Params:
    import jax

    def block(layer: str) -> Params:
        return {
            "norm_1": _norm(tensors, layer + names["norm_1"]),
            "attention": {"qkv": qkv(layer), "out": _linear(tensors, layer + names["out"])},
            "norm_2": _norm(tensors, layer + names["norm_2"]),
            "mlp": {"up": _linear(tensors, layer + names["up"]), "down": _linear(tensors, layer + names["down"])},
        }

    count = len({name.removeprefix(prefix).split(".")[0] for name in tensors if name.startswith(prefix)})
    blocks = [block(f"{prefix}{index}.") for index in range(count)]
    return {"block": jax.tree.map(lambda *leaves: np.stack(leaves), *blocks)}
