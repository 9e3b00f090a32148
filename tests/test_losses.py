"""The losses against PyTorch's own formulations in float64, whole and sharded over eight devices."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clip_jax.errors import UserError
from clip_jax.losses import contrastive_loss, sigmoid_loss, softmax_loss
from clip_jax.ring_loss import ring_loss
from clip_jax.sharding import MeshConfig, batch_sharding, make_mesh

torch = pytest.importorskip("torch")

KINDS, METHODS = ["softmax", "sigmoid"], ["gather", "ring"]
SCALE, BIAS = 10.0, -10.0  # where SigLIP starts
meshes = pytest.mark.parametrize("sizes", [(8, 1, 1), (4, 2, 1), (2, 2, 2), (1, 8, 1), (1, 1, 8)], ids=str)


def unit_features(seed: int, batch: int = 24, dim: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """Features of length one, texts somewhat like their images."""
    rng = np.random.default_rng(seed)
    image = rng.standard_normal((batch, dim))
    text = image + 1.5 * rng.standard_normal((batch, dim))
    return tuple((x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32) for x in (image, text))


def textbook(kind: str, image: np.ndarray, text: np.ndarray, scale: float, bias: float) -> float:
    """The papers' pseudocode in float64, term by term."""
    batch = len(image)
    logits = scale * image.astype(np.float64) @ text.astype(np.float64).T
    if kind == "softmax":
        rows = [np.log(np.exp(logits[i] - logits[i, i]).sum()) for i in range(batch)]
        columns = [np.log(np.exp(logits[:, i] - logits[i, i]).sum()) for i in range(batch)]
        return float(np.mean(rows) + np.mean(columns)) / 2
    return (
        sum(
            np.log1p(np.exp(-(1 if i == j else -1) * (logits[i, j] + bias))) for i in range(batch) for j in range(batch)
        )
        / batch
    )


def torch_gradients(kind: str, image: np.ndarray, text: np.ndarray, scale: float, bias: float) -> list[np.ndarray]:
    """By image, text, scale and bias, through torch's cross entropies and autograd in float64."""
    leaves = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (image, text, scale, bias)]
    images, texts, scales, biases = leaves
    logits, functional = scales * images @ texts.T, torch.nn.functional
    if kind == "softmax":
        targets = torch.arange(len(image))
        loss = (
            functional.cross_entropy(logits, targets) + functional.cross_entropy(logits.T, targets)
        ) / 2 + 0 * biases
    else:
        matching = torch.eye(len(image), dtype=torch.float64)
        loss = functional.binary_cross_entropy_with_logits(logits + biases, matching, reduction="sum") / len(image)
    return [gradient.numpy() for gradient in torch.autograd.grad(loss, leaves)]


def assert_gradients(ours, theirs) -> None:
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine, other, rtol=0, atol=1e-5 * np.abs(other).max())


def whole(kind: str):
    """The reference loss with arguments image, text, scale, bias."""
    return sigmoid_loss if kind == "sigmoid" else lambda image, text, scale, bias: softmax_loss(image, text, scale)


@pytest.mark.parametrize("scale", [1.0, SCALE, 100.0])
@pytest.mark.parametrize("kind", KINDS)
def test_whole_losses(kind, scale):
    image, text = unit_features(0)
    values = (jnp.asarray(image), jnp.asarray(text), jnp.float32(scale), jnp.float32(BIAS))
    value, gradients = jax.jit(jax.value_and_grad(whole(kind), argnums=(0, 1, 2, 3)))(*values)
    assert value.shape == ()
    assert value == pytest.approx(textbook(kind, image, text, scale, BIAS), rel=1e-6)
    assert_gradients(gradients, torch_gradients(kind, image, text, scale, BIAS))


@meshes
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", KINDS)
def test_sharded_loss(kind, method, sizes):
    image, text = unit_features(1)
    mesh = make_mesh(MeshConfig(*sizes))
    placed = [jax.device_put(x, batch_sharding(mesh)) for x in (image, text)]

    def loss(image, text, scale, bias):
        bias = bias if kind == "sigmoid" else None
        return contrastive_loss(image, text, scale, bias, kind=kind, method=method, mesh=mesh)

    value, gradients = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2, 3)))(
        *placed, jnp.float32(SCALE), jnp.float32(BIAS)
    )
    assert value == pytest.approx(textbook(kind, image, text, SCALE, BIAS), rel=1e-6)
    assert_gradients(gradients, torch_gradients(kind, image, text, SCALE, BIAS))
    assert gradients[0].sharding.is_equivalent_to(batch_sharding(mesh), 2)


@pytest.mark.parametrize("sizes", [None, (8, 1, 1), (2, 2, 2)], ids=str)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_small_loss_does_not_cancel(kind, method, sizes):
    """Pairs that match nearly, at CLIP's largest scale: the loss is a difference of logits of 100."""
    image, noise = unit_features(9, dim=16)
    text = image + 0.02 * noise
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    mesh = None if sizes is None else make_mesh(MeshConfig(*sizes))
    scale, bias = 100.0, -85.0
    value = contrastive_loss(
        jnp.asarray(image),
        jnp.asarray(text),
        scale,
        bias if kind == "sigmoid" else None,
        kind=kind,
        method=method,
        mesh=mesh,
    )
    exact = float(textbook(kind, image, text, scale, bias))
    assert exact < 1e-4
    assert value == pytest.approx(exact, rel=0, abs=1e-7)


@pytest.mark.parametrize("tile", [5, 26, 300])
@pytest.mark.parametrize("sizes", [None, (8, 1, 1), (2, 4, 1), (2, 2, 2)], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_tiles_of_the_ring(kind, sizes, tile):
    """26 rows a device, 52 or 208, in tiles of which the last is shorter, one exactly whole, or larger than all."""
    image, text = unit_features(5, batch=208)
    mesh = None if sizes is None else make_mesh(MeshConfig(*sizes))

    def loss(image, text, scale, bias):
        return ring_loss(image, text, scale, bias if kind == "sigmoid" else None, mesh, tile)

    values = (jnp.asarray(image), jnp.asarray(text), jnp.float32(SCALE), jnp.float32(BIAS))
    value, gradients = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2, 3)))(*values)
    assert value == pytest.approx(textbook(kind, image, text, SCALE, BIAS), rel=1e-6)
    assert_gradients(gradients, torch_gradients(kind, image, text, SCALE, BIAS))


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_the_ring_follow_what_comes_after(kind):
    """A loss that is a term of a larger one, halved and squared, as with weighted auxiliary losses."""
    image, text = unit_features(6)
    mesh = make_mesh(MeshConfig())

    def both(image, text, scale, bias, *, method):
        value = contrastive_loss(image, text, scale, bias, kind=kind, method=method, mesh=mesh)
        return (value / 2) ** 2 + image[0, 0] * scale

    values = (jnp.asarray(image), jnp.asarray(text), jnp.float32(SCALE), jnp.float32(BIAS))
    ring, gather = (jax.jit(jax.grad(partial(both, method=method), argnums=(0, 1, 2, 3))) for method in METHODS[::-1])
    for one, other in zip(ring(*values), gather(*values), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5 * np.abs(other).max())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", KINDS)
def test_no_overflow_at_clips_largest_scale(kind, method):
    """exp(100) overflows float32, so sums of plain exponentials would."""
    image, _ = unit_features(2)
    opposite = jnp.asarray(-image)
    for mesh in (None, make_mesh(MeshConfig())):
        loss = partial(contrastive_loss, text=opposite, scale=100.0, bias=0.0, kind=kind, method=method, mesh=mesh)
        value, gradient = jax.jit(jax.value_and_grad(loss))(jnp.asarray(image))
        assert value == pytest.approx(float(torch_value(kind, image, -image, 100.0)), rel=1e-6)
        assert np.isfinite(gradient).all()


def torch_value(kind: str, image: np.ndarray, text: np.ndarray, scale: float):
    logits = torch.tensor(scale * image.astype(np.float64) @ text.astype(np.float64).T)
    functional, targets = torch.nn.functional, torch.arange(len(image))
    if kind == "softmax":
        return (functional.cross_entropy(logits, targets) + functional.cross_entropy(logits.T, targets)) / 2
    return functional.binary_cross_entropy_with_logits(
        logits, torch.eye(len(image), dtype=torch.float64), reduction="sum"
    ) / len(image)


@pytest.mark.parametrize(
    "mesh", [None, pytest.param(MeshConfig(), marks=pytest.mark.slow)], ids=["one device", "eight"]
)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_features_are_scored_in_float32(kind, method, mesh):
    image, text = (jnp.asarray(x, jnp.bfloat16) for x in unit_features(3))
    placed = mesh and make_mesh(mesh)
    loss = partial(contrastive_loss, scale=SCALE, bias=BIAS, kind=kind, method=method, mesh=placed)
    value, gradients = jax.value_and_grad(loss, argnums=(0, 1))(image, text)
    assert value.dtype == jnp.float32
    images, texts = (np.asarray(x, np.float64) for x in (image, text))
    assert value == pytest.approx(textbook(kind, images, texts, SCALE, BIAS), rel=1e-6)
    for ours, exact in zip(gradients, torch_gradients(kind, images, texts, SCALE, BIAS), strict=False):
        assert ours.dtype == jnp.bfloat16
        np.testing.assert_allclose(np.asarray(ours, np.float64), exact, rtol=2**-8, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "hinge"}, "sigmoid, softmax"),
        ({"method": "magic"}, "gather, ring"),
        ({"method": "rings"}, "did you mean 'ring'"),
        ({"kind": "sigmoid"}, "needs a bias"),
    ],
)
def test_errors(untyped, options, message):
    image, text = map(jnp.asarray, unit_features(4))
    with pytest.raises(UserError, match=message):
        contrastive_loss(image, text, 1.0, **options)


@pytest.mark.parametrize("method", METHODS)
def test_a_batch_that_does_not_divide(method):
    image, text = map(jnp.asarray, unit_features(7, batch=20))
    with pytest.raises(UserError, match="batch of 20 does not divide over data x fsdp = 8 devices"):
        contrastive_loss(image, text, 1.0, method=method, mesh=make_mesh(MeshConfig()))
