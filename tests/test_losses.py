"""The losses against PyTorch's own formulations in float64, whole and sharded over eight devices."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clip_jax.errors import UserError
from clip_jax.losses import contrastive_loss, sigmoid_loss, softmax_loss
from clip_jax.sharding import MeshConfig, batch_sharding, make_mesh

torch = pytest.importorskip("torch")

KINDS = ["softmax", "sigmoid"]
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
@pytest.mark.parametrize("kind", KINDS)
def test_sharded_loss(kind, sizes):
    image, text = unit_features(1)
    mesh = make_mesh(MeshConfig(*sizes))
    placed = [jax.device_put(x, batch_sharding(mesh)) for x in (image, text)]

    def loss(image, text, scale, bias):
        return contrastive_loss(image, text, scale, bias if kind == "sigmoid" else None, kind=kind, mesh=mesh)

    value, gradients = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2, 3)))(
        *placed, jnp.float32(SCALE), jnp.float32(BIAS)
    )
    assert value == pytest.approx(textbook(kind, image, text, SCALE, BIAS), rel=1e-6)
    assert_gradients(gradients, torch_gradients(kind, image, text, SCALE, BIAS))
    assert gradients[0].sharding.is_equivalent_to(batch_sharding(mesh), 2)


@pytest.mark.parametrize("kind", KINDS)
def test_no_overflow_at_clips_largest_scale(kind):
    """exp(100) overflows float32, so sums of plain exponentials would."""
    image, _ = unit_features(2)
    opposite = jnp.asarray(-image)
    for mesh in (None, make_mesh(MeshConfig())):
        loss = partial(contrastive_loss, text=opposite, scale=100.0, bias=0.0, kind=kind, mesh=mesh)
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


@pytest.mark.parametrize("mesh", [None, MeshConfig()], ids=["one device", "eight"])
@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_features_are_scored_in_float32(kind, mesh):
    image, text = (jnp.asarray(x, jnp.bfloat16) for x in unit_features(3))
    value = contrastive_loss(image, text, SCALE, BIAS, kind=kind, mesh=mesh and make_mesh(mesh))
    assert value.dtype == jnp.float32
    expected = textbook(kind, np.asarray(image, np.float64), np.asarray(text, np.float64), SCALE, BIAS)
    assert value == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "hinge"}, "softmax, sigmoid"),
        ({"method": "magic"}, "gather"),
        ({"kind": "sigmoid"}, "needs a bias"),
    ],
)
def test_errors(untyped, options, message):
    image, text = map(jnp.asarray, unit_features(4))
    with pytest.raises(UserError, match=message):
        contrastive_loss(image, text, 1.0, **options)
