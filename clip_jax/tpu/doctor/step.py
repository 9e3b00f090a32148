"""One real update on made-up images: does it compile and fit, is the loss right, how long does it take."""

import math
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from clip_jax.config import ClipConfig
from clip_jax.model_size import parameters
from clip_jax.sharding import batch_sharding, batch_shards
from clip_jax.tpu.doctor.config import Run
from clip_jax.tpu.doctor.examination import Finding
from clip_jax.tpu.doctor.machine import Machine, checkpoint_bytes
from clip_jax.training.chips import GIB, peak_flops
from clip_jax.training.config import TrainConfig
from clip_jax.training.initial import initial_state
from clip_jax.training.optimizer import make_optimizer
from clip_jax.training.state import abstract_state
from clip_jax.training.step import jit_step
from clip_jax.training.step_flops import mfu, step_flops

LONGEST_STEP = 60  # seconds, as foretold, on devices that are not made for it
NEAR = 1.0  # nats from log(batch), where fresh towers know nothing
SIDE = 1_024
COPIES = 2  # gradients and room to work, beside what a checkpoint holds


def check_step(run: Run, mesh: Mesh, machine: Machine) -> Finding:
    """Compiles the update and runs it twice on a batch of random pixels and tokens; `found` is its images a second."""
    config, model = run.config, run.model
    peak = peak_flops(mesh.devices.flat[0].device_kind)
    if peak is None:
        needless = too_large(run, mesh, machine, measured_flops(mesh))
        if needless is not None:
            return needless
    optimizer = make_optimizer(config.optimizer, config.steps)
    abstract = abstract_state(model, optimizer, mesh, config.optimizer.ema is not None)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
    try:
        state = initial_state(config, model, optimizer, shardings, run.source)
        batch = made_up(config, model, mesh)
        started = time.monotonic()
        with jax.set_mesh(mesh):
            step = jit_step(config, model, optimizer, mesh, shardings).lower(state, *batch).compile()
            compiled = time.monotonic() - started
            state, figures = step(state, *batch)
            loss = float(figures["loss"])
            started = time.monotonic()
            state, figures = step(state, *batch)
            later = float(figures["loss"])
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        advice = "a smaller batch, microbatches, model.remat=block, or mesh.fsdp; clip-jax plan tells what would fit"
        return Finding("failed", f"out of memory: {' '.join(str(error).split())[:200]}", advice)
    seconds = time.monotonic() - started
    speed = config.batch_size / seconds
    memory = peak_memory(mesh, step)
    found: dict[str, Any] = {
        "loss": loss if math.isfinite(loss) else None,
        "compile_seconds": compiled,
        "step_seconds": seconds,
        "images_per_second": speed,
        "peak_memory": memory,
        "mfu": None if peak is None else mfu(config, model, speed, mesh.size, peak),
    }
    seen = f"loss {loss:.2f}, compiled in {compiled:.1f} s, a step {seconds:.3g} s, {speed:,.0f} images/s"
    seen += f", {memory / GIB:.2f} GiB a device" if memory else ""
    seen += f", {found['mfu']:.0%} MFU" if peak is not None else ""
    return judged(run, loss, later, Finding("ok", seen, "", found, speed))


def judged(run: Run, loss: float, later: float, finding: Finding) -> Finding:
    """The finding, or what is wrong where a loss is no number, or far from that of a model that knows nothing."""
    config = run.config
    if not (math.isfinite(loss) and math.isfinite(later)):
        seen = f"the loss is {loss:g}, then {later:g}"
        return Finding("failed", seen, "try model.dtype=float32; look at model.init", finding.figures)
    known = math.log(config.batch_size)
    if config.loss.kind == "softmax" and config.model.init is None and abs(loss - known) > NEAR:
        seen = f"{finding.seen}; log(batch) is {known:.2f}"
        advice = "a fresh model begins near log(batch); look at the architecture and its initial logit scale"
        return Finding("warning", seen, advice, finding.figures, finding.found)
    return finding


def too_large(run: Run, mesh: Mesh, machine: Machine, flops_per_second: float) -> Finding | None:
    """Why this machine had better not try, None where it may."""
    config = run.config
    seconds = step_flops(config, run.model) / flops_per_second
    memory = COPIES * checkpoint_bytes(config, parameters(run.model).total)
    if machine.free_memory is not None and memory > machine.free_memory:
        seen = f"the model needs some {memory / GIB:,.0f} GiB, and {machine.free_memory / GIB:,.0f} GiB are free"
        return Finding("skipped", seen, "try another --config.model.name here, or --no-step")
    if seconds <= LONGEST_STEP:
        return None
    unit = batch_shards(mesh) * config.microbatches
    smaller = unit * 2 ** max(0, int(math.log2(max(1.0, config.batch_size * LONGEST_STEP / seconds / 2 / unit))))
    told = f"{seconds:,.0f} s" if seconds < 3600 else f"{seconds / 3600:,.0f} hours"
    smaller_batch = f"--config.batch_size={smaller} for a try here, or " if smaller < config.batch_size else ""
    advice = f"{smaller_batch}--no-step"
    return Finding("skipped", f"a step would take about {told} on {mesh.devices.flat[0].device_kind}", advice)


def measured_flops(mesh: Mesh) -> float:
    """FLOP/s of this machine's processors in a product of float32 matrices, times the processes."""
    device = next(device for device in mesh.devices.flat if device.process_index == jax.process_index())
    x = jax.device_put(np.ones((SIDE, SIDE), np.float32), device)
    multiply = jax.jit(jnp.matmul)
    multiply(x, x).block_until_ready()
    started = time.monotonic()
    multiply(x, x).block_until_ready()
    return 2 * SIDE**3 / (time.monotonic() - started) * jax.process_count()


def made_up(config: TrainConfig, model: ClipConfig, mesh: Mesh) -> tuple[jax.Array, jax.Array]:
    """Random pixels and tokens, a global batch of which this process holds its share."""
    size, context, sharding = model.vision.image_size, model.text.context_length, batch_sharding(mesh)

    def pixels(index) -> np.ndarray:
        rows = range(config.batch_size)[index[0]]
        return np.random.default_rng(rows.start).integers(0, 256, (len(rows), size, size, 3), np.uint8)

    def tokens(index) -> np.ndarray:
        rows = range(config.batch_size)[index[0]]
        drawn = np.random.default_rng(rows.start).integers(1, model.text.vocab_size - 1, (len(rows), context), np.int32)
        drawn[:, -1] = model.text.vocab_size - 1  # which ends a text where its end is the largest token
        return drawn

    shape = (config.batch_size, size, size, 3)
    return (
        jax.make_array_from_callback(shape, sharding, pixels),
        jax.make_array_from_callback((config.batch_size, context), sharding, tokens),
    )


def peak_memory(mesh: Mesh, step: Any) -> int | None:
    """Bytes that a device of this process has used at most, by its own count, else by the compiler's."""
    device = next(device for device in mesh.devices.flat if device.process_index == jax.process_index())
    used = (device.memory_stats() or {}).get("peak_bytes_in_use")
    sizes = None if used else step.memory_analysis()
    if sizes is None:
        return used
    results = sizes.output_size_in_bytes - sizes.alias_size_in_bytes
    return sizes.argument_size_in_bytes + sizes.temp_size_in_bytes + results
