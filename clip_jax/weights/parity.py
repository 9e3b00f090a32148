"""Two checkpoints on the same random inputs, compared layer by layer."""

from collections.abc import Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from clip_jax.config import ClipConfig, ComputeConfig
from clip_jax.errors import UserError
from clip_jax.models.two_tower import image_embedding, text_embedding
from clip_jax.weights.checkpoint import Checkpoint
from clip_jax.weights.tree import unflatten

Trace = Mapping[str, np.ndarray]
"""What a model computed, in order: 'image layer 1', ..., 'image features', 'text layer 1', ..., 'logits'."""

FLOAT32_TOLERANCE = 1e-5  # two float32 runs of a tower differ by about 2e-6, a wrong epsilon makes 4e-5 and more


@dataclass(frozen=True)
class Difference:
    """How far B is from A: largest absolute difference, and that relative to A's largest absolute value."""

    name: str
    absolute: float
    relative: float


@dataclass(frozen=True)
class Parity:
    """The differences of every layer, and the share of images for which both find the same text the likeliest."""

    differences: tuple[Difference, ...]
    same_top: float

    @property
    def largest(self) -> float:
        """The largest relative difference."""
        return float(np.max([difference.relative for difference in self.differences]))  # max() may miss a NaN


def check_comparable(a: ClipConfig, b: ClipConfig) -> None:
    """Raises UserError where two models do not take the same inputs."""
    inputs = [
        f"images of {config.vision.image_size} pixels and {config.text.context_length} tokens of "
        f"{config.text.vocab_size}"
        for config in (a, b)
    ]
    if inputs[0] != inputs[1]:
        raise UserError(f"the models cannot be compared: A takes {inputs[0]}, B takes {inputs[1]}")


def random_inputs(
    config: ClipConfig, batch: int, seed: int
) -> tuple[Float[np.ndarray, "b size size 3"], Int[np.ndarray, "b n"]]:
    """Normalised pixels, and token ids that end at different places, each row with the end token it is pooled by."""
    rng = np.random.default_rng(seed)
    text, size = config.text, config.vision.image_size
    end = text.vocab_size - 1 if text.end_token_id is None else min(text.end_token_id, text.vocab_size - 1)
    tokens = rng.integers(min(4, end), max(5, text.vocab_size - 2), (batch, text.context_length), np.int32)
    for row, length in enumerate(np.linspace(min(2, text.context_length - 1), text.context_length - 1, batch)):
        tokens[row, int(length)] = end
        tokens[row, int(length) + 1 :] = 0
    return rng.standard_normal((batch, size, size, 3)).astype(np.float32), tokens


def trace(checkpoint: Checkpoint, pixels: np.ndarray, tokens: np.ndarray) -> Trace:
    """Every layer's output, features and logits of a checkpoint, computed here in float32."""
    config, compute = checkpoint.config, ComputeConfig()
    params = unflatten({path: jnp.asarray(p.read(None), jnp.float32) for path, p in checkpoint.parameters.items()})
    with jax.default_matmul_precision("highest"):
        image, image_named = jax.jit(image_embedding, static_argnums=(2, 3))(params, pixels, config, compute)
        text, text_named = jax.jit(text_embedding, static_argnums=(2, 3))(params, tokens, config, compute)
    layers = image_named["layers"]
    if isinstance(layers, dict):  # jit sorts them
        stages = {name: layers[name] for name in ("stem", *sorted(layers.keys() - {"stem"}))}
    else:
        stages = {f"layer {i}": layer for i, layer in enumerate(layers, start=1)}
    texts = {f"layer {i}": layer for i, layer in enumerate(text_named["layers"], start=1)}
    bias = float(params.get("logit_bias", 0.0))
    return assemble(stages, image, texts, text, float(jnp.exp(params["logit_scale"])), bias)


def assemble(
    image_layers: Mapping[str, np.ndarray | jax.Array],
    image: np.ndarray | jax.Array,
    text_layers: Mapping[str, np.ndarray | jax.Array],
    text: np.ndarray | jax.Array,
    scale: float,
    bias: float,
) -> Trace:
    """A trace from what both towers computed; logits in float64."""
    found = {f"image {name}": np.asarray(layer) for name, layer in image_layers.items()}
    found["image features"] = np.asarray(image)
    found |= {f"text {name}": np.asarray(layer) for name, layer in text_layers.items()}
    found["text features"] = np.asarray(text)
    unit = [np.asarray(f, np.float64) for f in (image, text)]
    unit = [f / np.linalg.norm(f, axis=-1, keepdims=True) for f in unit]
    found["logits"] = scale * unit[0] @ unit[1].T + bias
    return found


def compare(a: Trace, b: Trace) -> Parity:
    """The differences of two traces. Raises UserError where they are of different architectures."""
    if a.keys() != b.keys() or any(a[name].shape != b[name].shape for name in a):
        raise UserError("the two models have different layers or sizes, so nothing can be compared layer by layer")
    differences = []
    for name in a:
        ours, theirs = a[name].astype(np.float64), b[name].astype(np.float64)
        absolute = float(np.abs(ours - theirs).max())
        differences.append(Difference(name, absolute, absolute / max(float(np.abs(ours).max()), 1e-30)))
    same_top = float(np.mean(a["logits"].argmax(axis=1) == b["logits"].argmax(axis=1)))
    return Parity(tuple(differences), same_top)
