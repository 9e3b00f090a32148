"""One update: both towers, the loss over the global batch, AdamW, the temperature's clamp."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, UInt8

from clip_jax.config import ClipConfig, PreprocessConfig
from clip_jax.losses import contrastive_loss
from clip_jax.models.two_tower import image_embedding, normalise, text_embedding, with_statistics
from clip_jax.sharding import batch_sharding, batch_shards
from clip_jax.training.config import TrainConfig
from clip_jax.training.microbatches import in_parts
from clip_jax.training.optimizer import clamp_logit_scale, make_schedule
from clip_jax.training.state import TrainState

Step = Callable[[TrainState, ArrayLike, ArrayLike], tuple[TrainState, dict[str, Array]]]


def make_step(
    config: TrainConfig, model: ClipConfig, optimizer: optax.GradientTransformation, mesh: Mesh, shardings: TrainState
) -> Step:
    """The update (state, uint8 pixels [b, size, size, 3], tokens [b, n]) -> (state, metrics), compiled when first run.

    The state is donated. Metrics are float32 scalars: loss, logit_scale (the multiplier), learning_rate,
    gradient_norm, and logit_bias where there is one.
    """
    jitted = jit_step(config, model, optimizer, mesh, shardings)

    def run(state, pixels, tokens):
        with jax.set_mesh(mesh):  # what `constrain` in the blocks looks for
            return jitted(state, pixels, tokens)

    return run


def jit_step(
    config: TrainConfig, model: ClipConfig, optimizer: optax.GradientTransformation, mesh: Mesh, shardings: TrainState
) -> jax.stages.Wrapped:
    """The update of `make_step` for those who set the mesh themselves, as the compiler's plans do."""
    compute = config.model.compute
    schedule = make_schedule(config.optimizer, config.steps)

    def embed(params, batch):
        pixels, tokens = batch
        image, named = image_embedding(params, normalise_pixels(pixels, model.preprocess), model, compute, train=True)
        text, _ = text_embedding(params, tokens, model, compute)
        return (normalise(image), normalise(text)), named.get("statistics", {})

    def loss_of(params, batch):
        if config.microbatches == 1:
            features, statistics = embed(params, batch)
        else:  # towers without batch norm only, which would see one part at a time
            statistics = {}
            features = in_parts(lambda part: embed(params, part)[0], batch, config.microbatches, batch_shards(mesh))
        image, text = (x.astype(config.loss.dtype) for x in features)
        loss = contrastive_loss(
            image,
            text,
            jnp.exp(params["logit_scale"]),
            params.get("logit_bias"),
            kind=config.loss.kind,
            method=config.loss.method,
            mesh=mesh if mesh.size > 1 else None,
        )
        return loss, statistics

    def step(state: TrainState, pixels: UInt8[Array, "b size size 3"], tokens: Int[Array, "b n"]):
        (loss, statistics), gradients = jax.value_and_grad(loss_of, has_aux=True)(state["params"], (pixels, tokens))
        updates, opt_state = optimizer.update(gradients, state["opt_state"], state["params"])
        params = clamp_logit_scale(
            optax.apply_updates(state["params"], updates),  # pyright: ignore[reportArgumentType]
            config.optimizer.max_logit_scale,
        )
        params = with_statistics(params, statistics)
        metrics = {
            "loss": loss,
            "logit_scale": jnp.exp(params["logit_scale"]),
            "learning_rate": jnp.asarray(schedule(state["step"]), jnp.float32),
            "gradient_norm": optax.tree.norm(gradients),
        }
        if "logit_bias" in params:
            metrics["logit_bias"] = params["logit_bias"]
        return {"params": params, "opt_state": opt_state, "step": state["step"] + 1}, metrics

    batch, replicated = batch_sharding(mesh), NamedSharding(mesh, P())
    return jax.jit(
        step, donate_argnums=0, in_shardings=(shardings, batch, batch), out_shardings=(shardings, replicated)
    )


def normalise_pixels(pixels: UInt8[Array, "b size size 3"], config: PreprocessConfig) -> Float[Array, "b size size 3"]:
    """(pixels / 255 - mean) / std on the device: images travel there as uint8, a quarter of float32's bytes."""
    mean, std = (jnp.asarray(values, jnp.float32).reshape(1, 1, 1, 3) for values in (config.mean, config.std))
    return (pixels.astype(jnp.float32) / 255 - mean) / std
