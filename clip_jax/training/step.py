"""One update: both towers, the loss over the global batch, AdamW, the temperature's clamp."""

import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, UInt8

from clip_jax.config import ClipConfig, ComputeConfig, PreprocessConfig, VisionConfig
from clip_jax.losses import contrastive_loss
from clip_jax.models.two_tower import Params, image_embedding, normalise, text_embedding, with_statistics
from clip_jax.sharding import BATCH_AXES, batch_sharding, batch_shards, constrain
from clip_jax.training.config import TrainConfig
from clip_jax.training.health import health
from clip_jax.training.learning_rates import is_trained
from clip_jax.training.microbatches import in_parts
from clip_jax.training.optimizer import clamp_logit_scale, make_schedule
from clip_jax.training.share import in_steps
from clip_jax.training.spikes import left_out, skipped_updates
from clip_jax.training.state import TrainState
from clip_jax.training.step_flops import kept_patches

Step = Callable[[TrainState, ArrayLike, ArrayLike], tuple[TrainState, dict[str, Array]]]


def make_step(
    config: TrainConfig, model: ClipConfig, optimizer: optax.GradientTransformation, mesh: Mesh, shardings: TrainState
) -> Step:
    """The update (state, uint8 pixels [b, size, size, 3], tokens [b, n]) -> (state, metrics), compiled when first run.

    The state is donated. Metrics are float32 scalars: loss, logit_scale (the multiplier), learning_rate,
    gradient_norm (of all and by tower), those of `health`, and logit_bias and skipped_updates where there are such.
    """
    masked = jit_step(config, model, optimizer, mesh, shardings)
    if not config.model.patch_dropout:
        return partial(_run, masked, mesh)
    unmasked = jit_step(with_all_patches(config), model, optimizer, mesh, shardings)

    step = None  # counted here from the first update on: asking the device each time would wait for it

    def run(state, pixels, tokens):
        nonlocal step
        step = int(state["step"]) if step is None else step + 1
        return _run(masked if leaves_patches_out(config, step) else unmasked, mesh, state, pixels, tokens)

    return run


def leaves_patches_out(config: TrainConfig, step: int) -> bool:
    """Whether the update after `step` others sees a part of each image's patches; those of FLIP's tail see all."""
    tail = in_steps(config.model.unmasked_tail, config.steps)
    return config.model.patch_dropout > 0 and step < config.steps - tail


def with_all_patches(config: TrainConfig) -> TrainConfig:
    """The config as it is in the tail."""
    return replace(config, model=replace(config.model, patch_dropout=0.0))


def _compute(config: TrainConfig, mesh: Mesh) -> ComputeConfig:
    """As the config says, but that processes of CPUs which train together unroll the layers.

    XLA's CPU runtime begins collectives in the program's order, but does not wait for a loop's before it begins those
    behind the loop: two processes whose towers are scanned would at times take one's message for the other's.
    """
    if jax.process_count() > 1 and mesh.devices.flat[0].platform == "cpu":
        return replace(config.model.compute, layers="unroll")
    return config.model.compute


def _run(jitted, mesh, state, pixels, tokens):
    with jax.set_mesh(mesh):  # what `constrain` in the blocks looks for
        return jitted(state, pixels, tokens)


def jit_step(
    config: TrainConfig, model: ClipConfig, optimizer: optax.GradientTransformation, mesh: Mesh, shardings: TrainState
) -> jax.stages.Wrapped:
    """The update of `make_step` for those who set the mesh themselves, as the compiler's plans do."""
    compute = _compute(config, mesh)
    schedule = make_schedule(config.optimizer, config.steps)
    frozen = config.optimizer.frozen
    # A batch norm that is locked keeps its statistics too, and normalises by them.
    moves_statistics = frozen is None or not re.search(frozen, "visual/stem/norm_1/mean")

    def embed(params, batch):
        pixels, tokens, *kept = batch
        pixels = normalise_pixels(pixels, model.preprocess)
        image, named = image_embedding(
            params, pixels, model, compute, train=moves_statistics, kept=kept[0] if kept else None
        )
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
        return loss, (statistics, image, text)

    def step(state: TrainState, pixels: UInt8[Array, "b size size 3"], tokens: Int[Array, "b n"]):
        batch = (pixels, tokens)
        if config.model.patch_dropout:
            batch += (_kept_patches(config, model, state["step"], len(pixels)),)
        trained, fixed = _parted(state["params"], is_trained(state["params"], config.optimizer.frozen))

        def loss_of_trained(trained):
            return loss_of(_joined(trained, fixed), batch)

        (loss, aux), gradients = jax.value_and_grad(loss_of_trained, has_aux=True)(trained)
        statistics, image, text = aux
        gradients = _joined(gradients, jax.tree.map(jnp.zeros_like, fixed))
        updates, opt_state = optimizer.update(gradients, state["opt_state"], state["params"])
        params = clamp_logit_scale(
            optax.apply_updates(state["params"], updates),  # pyright: ignore[reportArgumentType]
            config.optimizer.max_logit_scale,
        )
        params = with_statistics(params, statistics)
        average = None
        if config.optimizer.ema is not None:
            average = optax.incremental_update(params, state["ema"], 1 - config.optimizer.ema)
        if config.optimizer.skip_above is not None:  # statistics and the average stay, too
            skipped = left_out(state["opt_state"], opt_state)
            params, average = jax.tree.map(
                partial(jnp.where, skipped), (state["params"], state.get("ema")), (params, average)
            )
        metrics = {
            "loss": loss,
            "logit_scale": jnp.exp(params["logit_scale"]),
            "learning_rate": jnp.asarray(schedule(state["step"]), jnp.float32),
            "gradient_norm": optax.tree.norm(gradients),
            "gradient_norm/visual": optax.tree.norm(gradients["visual"]),
            "gradient_norm/text": optax.tree.norm(gradients["text"]),
            **health(image, text, tokens, jnp.exp(state["params"]["logit_scale"]), state["params"].get("logit_bias")),
        }
        if config.optimizer.skip_above is not None:
            metrics["skipped_updates"] = jnp.asarray(skipped_updates(opt_state), jnp.float32)
        if "logit_bias" in params:
            metrics["logit_bias"] = params["logit_bias"]
        new_state = {"params": params, "opt_state": opt_state, "step": state["step"] + 1}
        return (new_state if average is None else new_state | {"ema": average}), metrics

    batch, replicated = batch_sharding(mesh), NamedSharding(mesh, P())
    return jax.jit(
        step, donate_argnums=0, in_shardings=(shardings, batch, batch), out_shardings=(shardings, replicated)
    )


def _kept_patches(config: TrainConfig, model: ClipConfig, step: Int[Array, ""], batch: int) -> Int[Array, "b kept"]:
    """The patches of each image that are seen, drawn anew each step from the run's seed."""
    assert isinstance(model.vision, VisionConfig)
    kept, all_patches = kept_patches(model, config.model.patch_dropout), model.vision.patches
    order = jax.random.uniform(jax.random.fold_in(jax.random.key(config.seed), step), (batch, all_patches))
    return constrain(jnp.argsort(order, axis=1)[:, :kept], BATCH_AXES, None)


def _parted(params: Params, trained: Params) -> tuple[Params, Params]:
    """The parameters that are trained and the others, each nested as before, without what the other has."""

    def part(params: Params, trained: Params, wanted: bool) -> Params:
        found = {}
        for name, leaf in params.items():
            if isinstance(leaf, dict):
                if inner := part(leaf, trained[name], wanted):
                    found[name] = inner
            elif trained[name] == wanted:
                found[name] = leaf
        return found

    return part(params, trained, True), part(params, trained, False)


def _joined(one: Params, other: Params) -> Params:
    """The inverse of `_parted`."""
    joined = dict(one)
    for name, leaf in other.items():
        joined[name] = _joined(one.get(name, {}), leaf) if isinstance(leaf, dict) else leaf
    return joined


def normalise_pixels(pixels: UInt8[Array, "b size size 3"], config: PreprocessConfig) -> Float[Array, "b size size 3"]:
    """(pixels / 255 - mean) / std on the device: images travel there as uint8, a quarter of float32's bytes."""
    mean, std = (jnp.asarray(values, jnp.float32).reshape(1, 1, 1, 3) for values in (config.mean, config.std))
    return (pixels.astype(jnp.float32) / 255 - mean) / std
