"""The training loop: read, update, log, evaluate and save, until the last step."""

import json
import sys
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import jax
from etils import epath
from jax.sharding import Mesh

from clip_jax.clip import Clip
from clip_jax.data.pipeline import Batch
from clip_jax.processes import everywhere, is_first, on_this_process
from clip_jax.sharding import batch_sharding
from clip_jax.training import attempt
from clip_jax.training.agreement import Vote, Votes
from clip_jax.training.bad_samples import BadSamples
from clip_jax.training.checkpointing import Checkpoints
from clip_jax.training.chips import peak_flops
from clip_jax.training.clock import Clock
from clip_jax.training.config import TrainConfig
from clip_jax.training.distributed import meet
from clip_jax.training.evaluations import evaluate
from clip_jax.training.preemption import Stopped, StopSignals
from clip_jax.training.preparation import Preparation, prepare
from clip_jax.training.run_log import RunLog
from clip_jax.training.share import in_steps
from clip_jax.training.state import TrainState
from clip_jax.training.step import leaves_patches_out, make_step, with_all_patches
from clip_jax.training.step_flops import mfu
from clip_jax.training.watch import Watch
from clip_jax.weights.folders import CHECKPOINTS


def train(config: TrainConfig, workdir: Path | epath.Path) -> Clip:
    """Trains as `config` says in `workdir`, or goes on where that run was stopped; returns the trained model.

    Losses, batches and parameters do not depend on whether and where the run was stopped. Where several processes
    train, each calls this, all see the same `workdir`, the first writes to it, and each gets the whole model. Raises
    UserError for a config, data or workdir at fault, and where the loss is no longer a number; IOFailure where a disk
    or bucket fails; Stopped where SIGTERM or SIGINT came to one of the processes, once the step that ran is saved.
    """
    attempt.check_profile(config.log.profile, config.steps)
    meet()
    with closing(StopSignals()) as signals:
        run, state = prepare(config, workdir)
        if run.start < config.steps:
            if not everywhere(signals.received is None):
                if is_first():
                    by = signals.received or "a signal"
                    print(f"stopped by {by} at step {run.start} of {config.steps}, before an update", file=sys.stderr)
                raise Stopped
            state = _train(config, workdir, run, state, signals)
    return _clip(config, run, state)


def _train(
    config: TrainConfig, workdir: Path | epath.Path, run: Preparation, state: TrainState, signals: StopSignals
) -> TrainState:
    """The state after the last update."""
    update = make_step(config, run.model, run.optimizer, run.mesh, run.shardings)
    clock, watch, bad = Clock(config.batch_size), Watch(), BadSamples(config, run.pipeline)
    votes, traced = Votes(run.mesh), config.log.profile if is_first() else 0
    description = json.loads(json.dumps({"model": run.model.to_dict(), "config": asdict(config)}))
    with (
        RunLog(config, workdir, run.start) as log,
        closing(Checkpoints(config.checkpoint, workdir / CHECKPOINTS, description)) as checkpoints,
        closing(attempt.Profile(workdir, run.start, config.steps, traced)) as profile,
    ):
        if is_first():
            attempt.note(workdir, run.start, attempt.environment())
        for batch in clock.waiting(run.pipeline.batches(run.start, config.steps)):
            if batch.step == 0 and config.log.first_batch and is_first():
                attempt.draw_first_batch(workdir, batch, run.pipeline.readers[0].tokenize)
            state, figures = update(state, *_to_devices(batch, run.mesh))
            step = batch.step + 1
            log.advance()
            watch.follow(step, figures)
            profile.follow(step, figures)
            bad.count(batch)
            vote = votes.cast(Vote.STOP if signals.received else checkpoints.vote())
            if _due(config.log.every, step, config):
                watch.settle()
                on_host = {name: float(value) for name, value in figures.items()} | clock.rates(step)
                on_host |= _utilisation(config, run, batch.step, on_host["images_per_second"]) | bad.figures()
                log.update(step, on_host, batch.digest)
            evaluates, results = bool(run.tables) and _due(run.evaluate_every, step, config), {}
            if evaluates:
                with clock.paused(state):
                    results = evaluate(config.evaluate, _clip(config, run, state), run.tables)
                log.evaluation(step, results)
            perhaps_best = evaluates and config.checkpoint.best is not None
            if vote or perhaps_best or _due(config.checkpoint.every, step, config):
                with clock.paused(state):
                    watch.settle()  # a run that diverged must not push out its last good checkpoints
                    log.keep()
                    checkpoints.save(step, state, results)
            if vote == Vote.STOP and step < config.steps:
                checkpoints.wait()
                log.say(f"stopped by {signals.received or 'a signal'} at step {step} of {config.steps}, which is saved")
                raise Stopped
        checkpoints.wait()
    return state


def _clip(config: TrainConfig, run: Preparation, state: TrainState) -> Clip:
    """The model as it is now, or its average, on this process's devices."""
    params = on_this_process(state.get("ema", state["params"]))
    return Clip(run.model, params, config.model.compute, tokenizer_files=run.tokenizer_files)


def _to_devices(batch: Batch, mesh: Mesh) -> tuple[jax.Array, jax.Array]:
    """The global arrays of which this process holds its share."""
    sharding = batch_sharding(mesh)
    pixels, tokens = (jax.make_array_from_process_local_data(sharding, part) for part in (batch.pixels, batch.tokens))
    return pixels, tokens


def _utilisation(config: TrainConfig, run: Preparation, step: int, speed: float) -> dict[str, float]:
    """Images a second on each device and, where its peak is known, the model FLOPs utilisation."""
    if not leaves_patches_out(config, step):
        config = with_all_patches(config)
    devices = run.mesh.size
    figures = {"images_per_second_per_device": speed / devices}
    peak = peak_flops(run.mesh.devices.flat[0].device_kind)
    return figures if peak is None else figures | {"mfu": mfu(config, run.model, speed, devices, peak)}


def _due(every: int | float, step: int, config: TrainConfig) -> bool:
    return step % in_steps(every, config.steps, least=1) == 0 or step == config.steps
