"""A ResNet's and SigLIP's loss, gradients and batch statistics on a mesh, against one device without."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clip_jax.config import ClipConfig, ComputeConfig, ResNetConfig, TextConfig, TransformerConfig, VisionConfig
from clip_jax.losses import contrastive_loss
from clip_jax.models.two_tower import Params, image_embedding, init_params, normalise, text_embedding
from clip_jax.sharding import MeshConfig, batch_sharding, make_mesh, parameter_specs

WORDS = TransformerConfig(width=24, layers=2, heads=2)
RESNET = ClipConfig(
    embed_dim=20,
    vision=ResNetConfig(64, layers=(1, 1, 1, 1), width=4, heads=4),
    text=TextConfig(WORDS, context_length=6, vocab_size=30),
)
SIGLIP = ClipConfig(
    embed_dim=32,
    vision=VisionConfig(
        20,
        6,
        TransformerConfig(width=32, layers=2, heads=4, layer_scale=0.5),
        pooling="map",
        class_token=False,
        norm_pre=False,
        patch_bias=True,
        projection="none",
    ),
    text=TextConfig(WORDS, context_length=6, vocab_size=30, pooling="last", causal=False, projection="bias"),
    initial_logit_bias=-10.0,
)
# What one device of a (2, 2, 2) mesh holds.
SHARDS = {
    RESNET: {
        "stem/conv_1/kernel": (3, 3, 3, 1),
        "stage_2/block_0/conv_2/kernel": (3, 3, 8, 4),
        "stage_1/block_0/downsample/conv/kernel": (1, 1, 4, 8),
        "stage_4/block_0/norm_3/mean": (128,),
        "attention_pool/qkv/kernel": (64, 192),
        "attention_pool/out/kernel": (64, 10),
    },
    SIGLIP: {
        "pool/qkv/kernel": (16, 48),
        "pool/out/kernel": (16, 16),
        "pool/mlp/up/kernel": (16, 64),
        "pool/mlp/down/kernel": (64, 16),
        "pool/probe": (32,),
        "transformer/block/scale_1": (2, 32),
    },
}


def random_params(config: ClipConfig) -> Params:
    """Kernels that keep the size of what passes through, all else about one."""
    rng = np.random.default_rng(12)

    def draw(path, shape) -> np.ndarray:
        noise = rng.standard_normal(shape.shape, np.float32)
        if path[-1].key == "kernel":
            return noise * np.prod(shape.shape[-4:-1]) ** -0.5
        return np.abs(noise) + 0.5 if path[-1].key in ("variance", "scale") else noise

    shapes = jax.eval_shape(lambda: init_params(config, jax.random.key(0)))
    return jax.tree_util.tree_map_with_path(draw, shapes)


@pytest.mark.parametrize(
    "config", [pytest.param(RESNET, id="resnet", marks=pytest.mark.slow), pytest.param(SIGLIP, id="siglip")]
)
def test_same_loss_gradients_and_statistics(config):
    rng = np.random.default_rng(13)
    size = config.vision.image_size
    batch = rng.standard_normal((16, size, size, 3)).astype(np.float32), rng.integers(0, 30, (16, 6), np.int32)
    params = random_params(config)
    compute = ComputeConfig(layers="scan")

    def loss(params, pixels, tokens, mesh):
        image, named = image_embedding(params, pixels, config, compute, train=True)
        text, _ = text_embedding(params, tokens, config, compute)
        value = contrastive_loss(
            normalise(image),
            normalise(text),
            jnp.exp(params["logit_scale"]),
            params.get("logit_bias"),
            kind="sigmoid" if config.is_sigmoid else "softmax",
            mesh=mesh,
        )
        return value, named.get("statistics", {})

    step = jax.jit(jax.value_and_grad(loss, has_aux=True), static_argnums=3)
    (expected, expected_statistics), expected_gradients = step(params, *batch, None)
    mesh = make_mesh(MeshConfig(2, 2, 2))
    placed = jax.device_put(params, parameter_specs(params, mesh))
    for path, shape in SHARDS[config].items():
        leaf = placed["visual"]
        for key in path.split("/"):
            leaf = leaf[key]
        assert {shard.data.shape for shard in leaf.addressable_shards} == {shape}
    with jax.set_mesh(mesh):
        (value, statistics), gradients = step(placed, *(jax.device_put(x, batch_sharding(mesh)) for x in batch), mesh)
    assert value == pytest.approx(float(expected), rel=1e-6)
    assert bool(statistics) is (config is RESNET)
    for (path, ours), reference in zip(
        jax.tree.leaves_with_path((gradients, statistics)),
        jax.tree.leaves((expected_gradients, expected_statistics)),
        strict=True,
    ):
        # Batch norm takes differences of sums, which meshes add in another order.
        np.testing.assert_allclose(ours, reference, rtol=0, atol=2e-5 * np.abs(reference).max(), err_msg=str(path))
