"""SigLIP's .npz files as big_vision names and shapes their arrays, made from transformers' SiglipModel."""

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from support.open_clip_shim import import_open_clip
from support.torch_clip import randomise

Arrays = dict[str, np.ndarray]

LAYERS = 2
IMAGE = {
    **{"hidden_size": 48, "intermediate_size": 100, "num_hidden_layers": LAYERS, "num_attention_heads": 3},
    **{"image_size": 32, "patch_size": 8},
}
WORDS = {
    **{"hidden_size": 40, "intermediate_size": 70, "num_hidden_layers": LAYERS, "num_attention_heads": 5},
    **{"vocab_size": 700, "max_position_embeddings": 9, "projection_size": 48, "bos_token_id": 1, "eos_token_id": 1},
}


@lru_cache
def siglip(vocab_size: int = 700) -> Any:
    """A small SiglipModel, every parameter random."""
    import_open_clip()  # transformers imports torchvision, which may need its help
    import transformers

    config = transformers.SiglipConfig(text_config={**WORDS, "vocab_size": vocab_size}, vision_config=IMAGE)
    return randomise(transformers.SiglipModel(config).eval(), seed=8)


def to_big_vision(tensors: dict[str, Any], scanned: bool) -> Arrays:
    """The arrays of big_vision's two_towers model by name; open_clip/convert.py reads the same."""
    values = {key: tensor.numpy() for key, tensor in tensors.items()}
    towers = (("vision", "img/Transformer", 3), ("text", "txt/Encoder_0", 5))
    arrays = {
        "img/embedding/kernel": values["vision_model.embeddings.patch_embedding.weight"].transpose(2, 3, 1, 0),
        "img/embedding/bias": values["vision_model.embeddings.patch_embedding.bias"],
        "img/pos_embedding": values["vision_model.embeddings.position_embedding.weight"][None],
        **_norm(values, "vision_model.post_layernorm", "img/Transformer/encoder_norm"),
        "img/MAPHead_0/probe": values["vision_model.head.probe"],
        **_attention_pool(values),
        "txt/Embed_0/embedding": values["text_model.embeddings.token_embedding.weight"],
        "txt/pos_embedding": values["text_model.embeddings.position_embedding.weight"][None],
        **_norm(values, "text_model.final_layer_norm", "txt/Encoder_0/encoder_norm"),
        **_dense(values, "text_model.head", "txt/head"),
        "t": values["logit_scale"],
        "b": values["logit_bias"],
    }
    for tower, key, heads in towers:
        layers = [_block(values, f"{tower}_model.encoder.layers.{layer}", heads) for layer in range(LAYERS)]
        if scanned:
            arrays |= {f"{key}/encoderblock/{name}": np.stack([layer[name] for layer in layers]) for name in layers[0]}
        else:
            for index, layer in enumerate(layers):
                arrays |= {f"{key}/encoderblock_{index}/{name}": array for name, array in layer.items()}
    return arrays


def _block(values: Arrays, key: str, heads: int) -> Arrays:
    attention = "MultiHeadDotProductAttention_0"
    block = {
        **_norm(values, f"{key}.layer_norm1", "LayerNorm_0"),
        **_norm(values, f"{key}.layer_norm2", "LayerNorm_1"),
        **_dense(values, f"{key}.mlp.fc1", "MlpBlock_0/Dense_0"),
        **_dense(values, f"{key}.mlp.fc2", "MlpBlock_0/Dense_1"),
    }
    for ours, theirs in (("query", "q_proj"), ("key", "k_proj"), ("value", "v_proj")):
        weight, bias = (values[f"{key}.self_attn.{theirs}.{kind}"] for kind in ("weight", "bias"))
        block[f"{attention}/{ours}/kernel"] = weight.T.reshape(len(weight), heads, -1)
        block[f"{attention}/{ours}/bias"] = bias.reshape(heads, -1)
    weight = values[f"{key}.self_attn.out_proj.weight"]
    block[f"{attention}/out/kernel"] = weight.T.reshape(heads, -1, len(weight))
    block[f"{attention}/out/bias"] = values[f"{key}.self_attn.out_proj.bias"]
    return block


def _attention_pool(values: Arrays, heads: int = 3) -> Arrays:
    head, attention = "vision_model.head", "img/MAPHead_0/MultiHeadDotProductAttention_0"
    pool = {
        **_norm(values, f"{head}.layernorm", "img/MAPHead_0/LayerNorm_0"),
        **_dense(values, f"{head}.mlp.fc1", "img/MAPHead_0/MlpBlock_0/Dense_0"),
        **_dense(values, f"{head}.mlp.fc2", "img/MAPHead_0/MlpBlock_0/Dense_1"),
    }
    weights = np.split(values[f"{head}.attention.in_proj_weight"], 3)
    biases = np.split(values[f"{head}.attention.in_proj_bias"], 3)
    for name, weight, bias in zip(("query", "key", "value"), weights, biases, strict=True):
        pool[f"{attention}/{name}/kernel"] = weight.T.reshape(len(weight), heads, -1)
        pool[f"{attention}/{name}/bias"] = bias.reshape(heads, -1)
    weight = values[f"{head}.attention.out_proj.weight"]
    pool[f"{attention}/out/kernel"] = weight.T.reshape(heads, -1, len(weight))
    pool[f"{attention}/out/bias"] = values[f"{head}.attention.out_proj.bias"]
    return pool


def _norm(values: Arrays, key: str, name: str) -> Arrays:
    return {f"{name}/scale": values[f"{key}.weight"], f"{name}/bias": values[f"{key}.bias"]}


def _dense(values: Arrays, key: str, name: str) -> Arrays:
    return {f"{name}/kernel": values[f"{key}.weight"].T, f"{name}/bias": values[f"{key}.bias"]}


def write_npz(path: Path, vocab_size: int = 700, scanned: bool = False, root: str = "params/") -> Path:
    """A file of that model, its layers stacked or one by one."""
    arrays = to_big_vision(siglip(vocab_size).state_dict(), scanned)
    np.savez(path, allow_pickle=False, **{root + name: array for name, array in arrays.items()})
    return path
