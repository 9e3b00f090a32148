"""Meshes over eight fake devices, where parameters lie on them, and that the model computes the same on all."""

import re
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from clip_jax.config import ComputeConfig
from clip_jax.errors import UserError
from clip_jax.losses import contrastive_loss
from clip_jax.models.two_tower import Params, image_embedding, init_params, normalise, text_embedding
from clip_jax.presets import get_config, list_models
from clip_jax.sharding import MeshConfig, batch_sharding, make_mesh, parameter_specs
from clip_jax.weights.tree import flatten

SIZES = [(8, 1, 1), (2, 4, 1), (2, 2, 2)]


@pytest.mark.parametrize(
    ("config", "devices", "sizes"),
    [
        (MeshConfig(), 8, (8, 1, 1)),
        (MeshConfig(fsdp=2), 8, (4, 2, 1)),
        (MeshConfig(data=2, fsdp=2, tensor=2), 8, (2, 2, 2)),
        (MeshConfig(data=1, fsdp=-1, tensor=2), 8, (1, 4, 2)),
        (MeshConfig(data=3, fsdp=1, tensor=-1), 6, (3, 1, 2)),
        (MeshConfig(), 1, (1, 1, 1)),
    ],
)
def test_mesh_sizes(config, devices, sizes):
    mesh = make_mesh(config, jax.devices()[:devices])
    assert dict(mesh.shape) == dict(zip(("data", "fsdp", "tensor"), sizes, strict=True))
    assert set(mesh.devices.ravel()) == set(jax.devices()[:devices])


@pytest.mark.parametrize(
    "config",
    [
        MeshConfig(data=3),
        MeshConfig(data=4),
        MeshConfig(data=16),
        MeshConfig(data=-1, fsdp=-1),
        MeshConfig(data=-1, fsdp=0),
        MeshConfig(data=-2, fsdp=-4),
        MeshConfig(fsdp=5),
    ],
)
def test_meshes_that_do_not_fit(config):
    with pytest.raises(UserError, match=r"^mesh data=.* does not fit 8 devices; the sizes must multiply") as caught:
        make_mesh(config)
    assert "\n" not in str(caught.value)


@lru_cache
def shapes_of(name: str) -> Params:
    return jax.eval_shape(lambda: init_params(get_config(name), jax.random.key(0)))


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("name", [name for name in list_models() if not name.endswith("-quickgelu")])
def test_specs_fit_every_preset(name, sizes):
    mesh = make_mesh(MeshConfig(*sizes))
    shapes = flatten(shapes_of(name))
    shardings = flatten(parameter_specs(shapes_of(name), mesh))
    held = {path: np.prod(shardings[path].shard_shape(leaf.shape)) for path, leaf in shapes.items()}
    # All but biases, norms and positional embeddings is split by fsdp, and the blocks' kernels by tensor as well.
    assert sum(held.values()) < 1.02 * sum(leaf.size for leaf in shapes.values()) / mesh.shape["fsdp"]
    for path, leaf in shapes.items():
        if "transformer/block" in path and path.endswith("kernel") and not name.startswith("tiny"):
            assert held[path] * mesh.shape["fsdp"] * mesh.shape["tensor"] == leaf.size


def test_kernels_are_split_and_the_rest_is_whole():
    mesh = make_mesh(MeshConfig(2, 2, 2))
    params = jax.eval_shape(lambda: init_params(get_config("tiny"), jax.random.key(0)))
    specs = jax.tree.map(lambda sharding: sharding.spec, parameter_specs(params, mesh))
    for tower in ("visual", "text"):
        block = specs[tower]["transformer"]["block"]
        assert block["attention"]["qkv"]["kernel"] == block["mlp"]["up"]["kernel"] == P(None, "fsdp", "tensor")
        assert block["attention"]["out"]["kernel"] == block["mlp"]["down"]["kernel"] == P(None, "tensor", "fsdp")
        assert block["norm_1"]["scale"] == block["mlp"]["up"]["bias"] == P()
        assert specs[tower]["projection"] == P("fsdp", None)
    assert specs["text"]["token_embedding"] == P(None, "fsdp")
    assert specs["visual"]["patch_embedding"]["kernel"] == P(None, "fsdp")
    assert specs["text"]["positional_embedding"] == specs["logit_scale"] == P()


def test_indivisible_dimensions_stay_whole():
    mesh = make_mesh(MeshConfig(1, 8, 1))
    specs = parameter_specs({"projection": jax.ShapeDtypeStruct((12, 16), jnp.float32)}, mesh)
    assert specs["projection"].shard_shape((12, 16)) == (12, 16)


@pytest.fixture(scope="module")
def step(toy_config):
    """Loss and gradients of both towers, given parameters, pixels, tokens and the mesh."""
    compute = ComputeConfig(layers="scan")

    def loss(params, pixels, tokens, mesh):
        image, _ = image_embedding(params, pixels, toy_config, compute)
        text, _ = text_embedding(params, tokens, toy_config, compute)
        scale = jnp.exp(params["logit_scale"])
        return contrastive_loss(normalise(image), normalise(text), scale, mesh=mesh)

    return jax.jit(jax.value_and_grad(loss), static_argnums=3)


@pytest.fixture(scope="module")
def batch() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    return rng.standard_normal((16, 16, 16, 3)).astype(np.float32), rng.integers(0, 700, (16, 12), np.int32)


@pytest.fixture(scope="module")
def on_one_device(step, toy_params, batch):
    return step(toy_params, *map(jnp.asarray, batch), None)


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_same_loss_and_gradients_on_every_mesh(step, toy_params, batch, on_one_device, sizes):
    """Parameters placed and activations constrained as in training, against one device without a mesh."""
    expected, expected_gradients = on_one_device
    mesh = make_mesh(MeshConfig(*sizes))
    params = jax.device_put(toy_params, parameter_specs(toy_params, mesh))
    kernel = params["visual"]["transformer"]["block"]["mlp"]["up"]["kernel"]
    _, fsdp, tensor = sizes
    assert {shard.data.shape for shard in kernel.addressable_shards} == {(2, 32 // fsdp, 128 // tensor)}
    with jax.set_mesh(mesh):
        value, gradients = step(params, *(jax.device_put(x, batch_sharding(mesh)) for x in batch), mesh)
    assert value == pytest.approx(float(expected), rel=1e-6)
    for ours, reference in zip(jax.tree.leaves(gradients), jax.tree.leaves(expected_gradients), strict=True):
        np.testing.assert_allclose(ours, reference, rtol=0, atol=1e-5 * np.abs(reference).max())


def test_no_device_holds_more_words_than_its_share(toy_config, toy_params):
    """Of the sixty-four texts of twelve words: all columns of its texts', or its columns of several devices' texts."""
    mesh = make_mesh(MeshConfig(2, 4, 1))
    params = jax.device_put(toy_params, parameter_specs(toy_params, mesh))
    tokens = jax.device_put(np.ones((64, 12), np.int32), batch_sharding(mesh))

    def loss(params, tokens):
        return text_embedding(params, tokens, toy_config, ComputeConfig())[0].sum()

    with jax.set_mesh(mesh):
        program = jax.jit(jax.grad(loss)).lower(params, tokens).compile().as_text()
    shapes = {tuple(map(int, shape.split(","))) for shape in re.findall(r"f32\[(\d+,12,\d+)\]", program or "")}
    assert {(8, 12, 40), (32, 12, 10)} <= shapes
    assert not [shape for shape in shapes if shape[2] <= 40 and np.prod(shape) > 8 * 12 * 40]


@pytest.mark.parametrize("shape", [{"x": 8}, {"data": 2, "fsdp": 2, "tensor": 2}])
def test_a_users_own_mesh_is_left_alone(toy, shape):
    """Whatever mesh is set, of other axes or with explicit types as jax.make_mesh makes it, embedding works."""
    pixels = jax.numpy.ones((2, 16, 16, 3))
    expected = toy.apply_image(toy.params, pixels)
    with jax.set_mesh(jax.make_mesh(tuple(shape.values()), tuple(shape))):
        found = jax.jit(toy.apply_image)(toy.params, pixels)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
