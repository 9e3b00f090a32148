"""The tables of every layout: which tensor of a file is which of our parameters.

PyTorch keeps a linear layer's weight as [out, in] and a convolution's as [out, in, h, w]; ours are [in, out] and
[h, w, in, out]. Letters in the patterns: o out, i in, w width, k embedding, n tokens, (p, q) a patch of c channels,
h heads of e, l layers.
"""

from clip_jax.config import ClipConfig, ResNetConfig
from clip_jax.errors import UserError
from clip_jax.weights.keys import COUNTER, Row, Table

Q, K, V, KEY_VALUE = (0, 1, 3), (1, 2, 3), (2, 3, 3), (1, 3, 3)
TRANSPOSE = "o i -> i o"
PATCHES = "w c p q -> (p q c) w"
UNBATCHED = "1 n w -> n w"
PROBE = "1 1 w -> w"


def _norm(key: str, path: str) -> tuple[Row, ...]:
    return (Row(f"{key}.weight", f"{path}/scale"), Row(f"{key}.bias", f"{path}/bias"))


def _linear(key: str, path: str, part: tuple[int, int, int] | None = None) -> tuple[Row, ...]:
    return (
        Row(f"{key}.weight", f"{path}/kernel", TRANSPOSE, part),
        Row(f"{key}.bias", f"{path}/bias", part=part),
    )


def _fused(key: str, path: str) -> tuple[Row, ...]:
    """nn.MultiheadAttention's projection of query, key and value in one."""
    return (Row(f"{key}.in_proj_weight", f"{path}/kernel", TRANSPOSE), Row(f"{key}.in_proj_bias", f"{path}/bias"))


def _batch_norm(key: str, path: str) -> tuple[Row, ...]:
    return (
        *_norm(key, path),
        Row(f"{key}.running_mean", f"{path}/mean"),
        Row(f"{key}.running_var", f"{path}/variance"),
        Row(f"{key}.num_batches_tracked", f"{path}/{COUNTER}"),
    )


def _convolution(key: str, path: str) -> tuple[Row, ...]:
    return (Row(f"{key}.weight", f"{path}/kernel", "o i h w -> h w i o"),)


SCALARS = (Row("logit_scale", "logit_scale"), Row("logit_bias", "logit_bias"))


# OpenAI and open_clip: one naming, since open_clip took OpenAI's over.


def _resblocks(key: str, path: str) -> tuple[Row, ...]:
    return (
        *_norm(f"{key}.ln_1", f"{path}/norm_1"),
        *_fused(f"{key}.attn", f"{path}/attention/qkv"),
        *_linear(f"{key}.attn.out_proj", f"{path}/attention/out"),
        Row(f"{key}.ls_1.gamma", f"{path}/scale_1"),
        *_norm(f"{key}.ln_2", f"{path}/norm_2"),
        *_linear(f"{key}.mlp.c_fc", f"{path}/mlp/up"),
        *_linear(f"{key}.mlp.c_proj", f"{path}/mlp/down"),
        Row(f"{key}.ls_2.gamma", f"{path}/scale_2"),
    )


VISION_TRANSFORMER = (
    Row("visual.conv1.weight", "visual/patch_embedding/kernel", PATCHES),
    Row("visual.class_embedding", "visual/class_embedding"),
    Row("visual.positional_embedding", "visual/positional_embedding"),
    *_norm("visual.ln_pre", "visual/norm_pre"),
    *_resblocks("visual.transformer.resblocks.{i}", "visual/transformer/block"),
    *_norm("visual.ln_post", "visual/norm_post"),
    Row("visual.proj", "visual/projection"),
)
MODIFIED_RESNET = (
    *_convolution("visual.conv{n}", "visual/stem/conv_{n}"),
    *_batch_norm("visual.bn{n}", "visual/stem/norm_{n}"),
    *_convolution("visual.layer{s}.{b}.conv{n}", "visual/stage_{s}/block_{b}/conv_{n}"),
    *_batch_norm("visual.layer{s}.{b}.bn{n}", "visual/stage_{s}/block_{b}/norm_{n}"),
    *_convolution("visual.layer{s}.{b}.downsample.0", "visual/stage_{s}/block_{b}/downsample/conv"),
    *_batch_norm("visual.layer{s}.{b}.downsample.1", "visual/stage_{s}/block_{b}/downsample/norm"),
    Row("visual.attnpool.positional_embedding", "visual/attention_pool/positional_embedding"),
    *_linear("visual.attnpool.q_proj", "visual/attention_pool/qkv", Q),
    *_linear("visual.attnpool.k_proj", "visual/attention_pool/qkv", K),
    *_linear("visual.attnpool.v_proj", "visual/attention_pool/qkv", V),
    *_linear("visual.attnpool.c_proj", "visual/attention_pool/out"),
)


def _text(prefix: str) -> tuple[Row, ...]:
    return (
        Row(f"{prefix}token_embedding.weight", "text/token_embedding"),
        Row(f"{prefix}positional_embedding", "text/positional_embedding"),
        *_resblocks(prefix + "transformer.resblocks.{i}", "text/transformer/block"),
        *_norm(f"{prefix}ln_final", "text/norm_final"),
    )


def _text_projection(prefix: str, bias: bool) -> tuple[Row, ...]:
    """A bare matrix [width, embedding], or a linear layer where there is a bias."""
    if not bias:
        return (Row(f"{prefix}text_projection", "text/projection"),)
    return (
        Row(f"{prefix}text_projection.weight", "text/projection", "k w -> w k"),
        Row(f"{prefix}text_projection.bias", "text/projection_bias"),
    )


# timm's vision transformer with attention pooling, inside open_clip: SigLIP.

TIMM_TRUNK = (
    Row("visual.trunk.patch_embed.proj.weight", "visual/patch_embedding/kernel", PATCHES),
    Row("visual.trunk.patch_embed.proj.bias", "visual/patch_embedding/bias"),
    Row("visual.trunk.pos_embed", "visual/positional_embedding", UNBATCHED),
    *_norm("visual.trunk.blocks.{i}.norm1", "visual/transformer/block/norm_1"),
    *_linear("visual.trunk.blocks.{i}.attn.qkv", "visual/transformer/block/attention/qkv"),
    *_linear("visual.trunk.blocks.{i}.attn.proj", "visual/transformer/block/attention/out"),
    *_norm("visual.trunk.blocks.{i}.norm2", "visual/transformer/block/norm_2"),
    *_linear("visual.trunk.blocks.{i}.mlp.fc1", "visual/transformer/block/mlp/up"),
    *_linear("visual.trunk.blocks.{i}.mlp.fc2", "visual/transformer/block/mlp/down"),
    *_norm("visual.trunk.norm", "visual/norm_post"),
    Row("visual.trunk.attn_pool.latent", "visual/pool/probe", PROBE),
    *_linear("visual.trunk.attn_pool.q", "visual/pool/qkv", Q),
    *_linear("visual.trunk.attn_pool.kv", "visual/pool/qkv", KEY_VALUE),
    *_linear("visual.trunk.attn_pool.proj", "visual/pool/out"),
    *_norm("visual.trunk.attn_pool.norm", "visual/pool/norm"),
    *_linear("visual.trunk.attn_pool.mlp.fc1", "visual/pool/mlp/up"),
    *_linear("visual.trunk.attn_pool.mlp.fc2", "visual/pool/mlp/down"),
)


# transformers: CLIPModel and SiglipModel.


def _encoder(key: str, path: str) -> tuple[Row, ...]:
    return (
        *_norm(f"{key}.layer_norm1", f"{path}/norm_1"),
        *_linear(f"{key}.self_attn.q_proj", f"{path}/attention/qkv", Q),
        *_linear(f"{key}.self_attn.k_proj", f"{path}/attention/qkv", K),
        *_linear(f"{key}.self_attn.v_proj", f"{path}/attention/qkv", V),
        *_linear(f"{key}.self_attn.out_proj", f"{path}/attention/out"),
        *_norm(f"{key}.layer_norm2", f"{path}/norm_2"),
        *_linear(f"{key}.mlp.fc1", f"{path}/mlp/up"),
        *_linear(f"{key}.mlp.fc2", f"{path}/mlp/down"),
    )


HF_TOWERS = (
    Row("vision_model.embeddings.patch_embedding.weight", "visual/patch_embedding/kernel", PATCHES),
    Row("vision_model.embeddings.position_embedding.weight", "visual/positional_embedding"),
    *_encoder("vision_model.encoder.layers.{i}", "visual/transformer/block"),
    *_norm("vision_model.post_layernorm", "visual/norm_post"),
    Row("text_model.embeddings.token_embedding.weight", "text/token_embedding"),
    Row("text_model.embeddings.position_embedding.weight", "text/positional_embedding"),
    *_encoder("text_model.encoder.layers.{i}", "text/transformer/block"),
    *_norm("text_model.final_layer_norm", "text/norm_final"),
    *SCALARS,
)
HF_CLIP = (
    *HF_TOWERS,
    Row("vision_model.embeddings.class_embedding", "visual/class_embedding"),
    *_norm("vision_model.pre_layrnorm", "visual/norm_pre"),  # their spelling
    Row("visual_projection.weight", "visual/projection", "k w -> w k"),
    Row("text_projection.weight", "text/projection", "k w -> w k"),
)
HF_SIGLIP = (
    *HF_TOWERS,
    Row("vision_model.embeddings.patch_embedding.bias", "visual/patch_embedding/bias"),
    Row("vision_model.head.probe", "visual/pool/probe", PROBE),
    *_fused("vision_model.head.attention", "visual/pool/qkv"),
    *_linear("vision_model.head.attention.out_proj", "visual/pool/out"),
    *_norm("vision_model.head.layernorm", "visual/pool/norm"),
    *_linear("vision_model.head.mlp.fc1", "visual/pool/mlp/up"),
    *_linear("vision_model.head.mlp.fc2", "visual/pool/mlp/down"),
    Row("text_model.head.weight", "text/projection", "k w -> w k"),
    Row("text_model.head.bias", "text/projection_bias"),
)


# big_vision: Flax linen names, heads apart, each layer by itself or all layers stacked by a scan.


def _linen(key: str, path: str) -> tuple[Row, ...]:
    return (Row(f"{key}/kernel", f"{path}/kernel"), Row(f"{key}/bias", f"{path}/bias"))


def _linen_norm(key: str, path: str) -> tuple[Row, ...]:
    return (Row(f"{key}/scale", f"{path}/scale"), Row(f"{key}/bias", f"{path}/bias"))


def _linen_attention(key: str, qkv: str, out: str, stack: str = "") -> tuple[Row, ...]:
    parts = (("query", Q), ("key", K), ("value", V))
    return (
        *(Row(f"{key}/{n}/kernel", f"{qkv}/kernel", f"{stack}w h e -> {stack}w (h e)", part) for n, part in parts),
        *(Row(f"{key}/{n}/bias", f"{qkv}/bias", f"{stack}h e -> {stack}(h e)", part) for n, part in parts),
        Row(f"{key}/out/kernel", f"{out}/kernel", f"{stack}h e w -> {stack}(h e) w"),
        Row(f"{key}/out/bias", f"{out}/bias"),
    )


def _linen_blocks(key: str, path: str, scanned: bool) -> tuple[Row, ...]:
    key = f"{key}/encoderblock" + ("" if scanned else "_{i}")
    return (
        *_linen_norm(f"{key}/LayerNorm_0", f"{path}/norm_1"),
        *_linen_attention(
            f"{key}/MultiHeadDotProductAttention_0",
            f"{path}/attention/qkv",
            f"{path}/attention/out",
            "l " if scanned else "",
        ),
        *_linen_norm(f"{key}/LayerNorm_1", f"{path}/norm_2"),
        *_linen(f"{key}/MlpBlock_0/Dense_0", f"{path}/mlp/up"),
        *_linen(f"{key}/MlpBlock_0/Dense_1", f"{path}/mlp/down"),
    )


def _big_vision(scanned: bool) -> tuple[Row, ...]:
    return (
        Row("img/embedding/kernel", "visual/patch_embedding/kernel", "p q c w -> (p q c) w"),
        Row("img/embedding/bias", "visual/patch_embedding/bias"),
        Row("img/pos_embedding", "visual/positional_embedding", UNBATCHED),
        *_linen_blocks("img/Transformer", "visual/transformer/block", scanned),
        *_linen_norm("img/Transformer/encoder_norm", "visual/norm_post"),
        Row("img/MAPHead_0/probe", "visual/pool/probe", PROBE),
        *_linen_attention("img/MAPHead_0/MultiHeadDotProductAttention_0", "visual/pool/qkv", "visual/pool/out"),
        *_linen_norm("img/MAPHead_0/LayerNorm_0", "visual/pool/norm"),
        *_linen("img/MAPHead_0/MlpBlock_0/Dense_0", "visual/pool/mlp/up"),
        *_linen("img/MAPHead_0/MlpBlock_0/Dense_1", "visual/pool/mlp/down"),
        Row("txt/Embed_0/embedding", "text/token_embedding"),
        Row("txt/pos_embedding", "text/positional_embedding", UNBATCHED),
        *_linen_blocks("txt/Encoder_0", "text/transformer/block", scanned),
        *_linen_norm("txt/Encoder_0/encoder_norm", "text/norm_final"),
        Row("txt/head/kernel", "text/projection"),
        Row("txt/head/bias", "text/projection_bias"),
        Row("t", "logit_scale"),
        Row("b", "logit_bias"),
    )


# Buffers that follow from the architecture, and sizes that OpenAI's archives keep as tensors.
POSITIONS = r".*\bposition_ids"
MASK = r"(.*\.)?attn_mask"
OPENAI_SIZES = r"input_resolution|context_length|vocab_size"


def _open_clip(name: str, vision: tuple[Row, ...], prefix: str, bias: bool) -> Table:
    rows = (*vision, *_text(prefix), *_text_projection(prefix, bias), *SCALARS)
    return Table(name, rows, ignored=(POSITIONS, MASK, OPENAI_SIZES))


TABLES = {
    table.name: table
    for table in (
        _open_clip("open_clip", VISION_TRANSFORMER, "", bias=False),
        _open_clip("open_clip_biased", VISION_TRANSFORMER, "", bias=True),
        _open_clip("open_clip_resnet", MODIFIED_RESNET, "", bias=False),
        _open_clip("custom_text", VISION_TRANSFORMER, "text.", bias=False),
        _open_clip("custom_text_biased", VISION_TRANSFORMER, "text.", bias=True),
        _open_clip("custom_text_resnet", MODIFIED_RESNET, "text.", bias=False),
        _open_clip("timm", TIMM_TRUNK, "text.", bias=False),
        _open_clip("timm_biased", TIMM_TRUNK, "text.", bias=True),
        Table("hf_clip", HF_CLIP, ignored=(POSITIONS,)),
        Table("hf_siglip", HF_SIGLIP, ignored=(POSITIONS,), scalar_shape=(1,)),
        Table("big_vision", _big_vision(scanned=False), scalar_shape=(1,)),
        Table("big_vision_scanned", _big_vision(scanned=True), scalar_shape=(1,)),
    )
}


def table_of(keys: set[str]) -> Table:
    """The table that the keys of a file belong to. Raises UserError where none fits."""
    if "img/embedding/kernel" in keys:
        return TABLES["big_vision_scanned" if _any(keys, "img/Transformer/encoderblock/") else "big_vision"]
    if "vision_model.head.probe" in keys:
        return TABLES["hf_siglip"]
    if "vision_model.embeddings.patch_embedding.weight" in keys:
        return TABLES["hf_clip"]
    biased = "_biased" if keys & {"text_projection.weight", "text.text_projection.weight"} else ""
    if _any(keys, "visual.trunk.attn_pool."):
        return TABLES[f"timm{biased}"]
    if "visual.conv1.weight" in keys:
        kind = "custom_text" if "text.token_embedding.weight" in keys else "open_clip"
        resnet = "_resnet" if "visual.layer1.0.conv1.weight" in keys else ""
        return TABLES[kind + (resnet or biased)]
    sample = ", ".join(sorted(keys)[:3]) or "none"
    raise UserError(
        f"the tensors' names ({sample}, ...) are those of no CLIP that is known; open_clip's, OpenAI's, transformers' "
        "CLIPModel and SiglipModel and big_vision's SigLIP are"
    )


def open_clip_table(config: ClipConfig, custom_text: bool = False) -> Table:
    """The table by which open_clip builds this architecture."""
    biased = "_biased" if config.text.projection == "bias" else ""
    kind = "custom_text" if custom_text else "open_clip"
    if isinstance(config.vision, ResNetConfig):
        return TABLES[f"{kind}_resnet"]
    return TABLES[("timm" if config.vision.pooling == "map" else kind) + biased]


def _any(keys: set[str], prefix: str) -> bool:
    return any(key.startswith(prefix) for key in keys)
