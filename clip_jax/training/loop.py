"""The training loop: resume, then read, update, log, evaluate and save, until the last step."""

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import jax
from etils import epath
from jax.sharding import Mesh

from clip_jax.clip import Clip
from clip_jax.config import ClipConfig
from clip_jax.data.pipeline import Batch
from clip_jax.data.spec import open_table
from clip_jax.data.table import Table
from clip_jax.evaluation.zero_shot import classify_table, embed_table
from clip_jax.sharding import batch_sharding, make_mesh
from clip_jax.training import attempt
from clip_jax.training import workdir as workdirs
from clip_jax.training.agreement import Vote, Votes
from clip_jax.training.bad_samples import BadSamples
from clip_jax.training.checkpointing import Checkpoints, check_best
from clip_jax.training.chips import peak_flops
from clip_jax.training.clock import Clock
from clip_jax.training.config import TrainConfig, in_steps
from clip_jax.training.distributed import is_first, meet, on_this_process, wait_for_all
from clip_jax.training.initial import initial_state, source_of, tokenizer_files
from clip_jax.training.metrics import MetricsLog
from clip_jax.training.model import check_mesh, training_model
from clip_jax.training.optimizer import make_optimizer
from clip_jax.training.preemption import Stopped, StopSignals
from clip_jax.training.progress import Progress
from clip_jax.training.resumption import Resumption
from clip_jax.training.run_data import draw_missing, open_tasks, training_pipeline
from clip_jax.training.state import TrainState, abstract_state
from clip_jax.training.step import leaves_patches_out, make_step, with_all_patches
from clip_jax.training.step_flops import mfu
from clip_jax.training.wandb_log import WandbLog
from clip_jax.training.watch import Watch
from clip_jax.weights.folders import CHECKPOINTS
from clip_jax.weights.loading import tokenizer_files_of


def train(config: TrainConfig, workdir: Path | epath.Path) -> Clip:
    """Trains as `config` says in `workdir`, or goes on where that run was stopped; returns the trained model.

    Losses, batches and parameters do not depend on whether and where the run was stopped. Where several processes
    train, each calls this, all see the same `workdir`, the first writes to it, and each gets the whole model. Raises
    UserError for a config, data or workdir at fault, and where the loss is no longer a number; Stopped where SIGTERM
    or SIGINT came to one of the processes, once the step that ran is saved.
    """
    meet()
    workdirs.check(workdir, config)
    folder = workdir / CHECKPOINTS
    resumption = Resumption(folder)
    start, found = resumption.describe()
    source = None if start else source_of(config)
    if start:  # nothing but the run itself is needed to go on with it
        model, files = ClipConfig.from_dict(found["model"]), tokenizer_files_of(workdir)
    else:
        model = training_model(config, None if source is None else source.config)
        files = tokenizer_files(model, source)
    mesh = make_mesh(config.mesh)
    check_mesh(config, model, mesh)
    optimizer = make_optimizer(config.optimizer, config.steps)
    abstract = abstract_state(model, optimizer, mesh, config.optimizer.ema is not None)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
    draw_missing(config, model, workdir)
    sources = {one.source: open_table(workdirs.locate(one.source, workdir)) for one in config.data.sources}
    pipeline = training_pipeline(config, model, files, mesh, sources)
    tables = open_tasks(config, workdir)
    check_best(config.checkpoint, config.evaluate, tables)
    if start:
        workdirs.check_data(workdir, sources)
    if is_first():
        workdirs.claim(workdir, config, files, sources)  # only now, so that a mistyped SPEC can be mended
    wait_for_all("the workdir is claimed")

    description = json.loads(json.dumps({"model": model.to_dict(), "config": asdict(config)}))
    if start:
        start, state = resumption.restore(abstract)
    else:
        state = initial_state(config, model, optimizer, shardings, source)
    if start and is_first():
        print(f"{workdir} is at step {start} of {config.steps}", file=sys.stderr)
    if start >= config.steps:
        return _clip(config, model, state, files)

    update = make_step(config, model, optimizer, mesh, shardings)
    log = MetricsLog(workdir, start, config.log.tensorboard, writes=is_first())
    wandb = WandbLog(config, workdir, writes=is_first())
    progress = Progress(start, config.steps, shown=is_first())
    clock, watch, bad = Clock(config.batch_size), Watch(), BadSamples(config, pipeline)
    checkpoints = Checkpoints(config.checkpoint, folder, description)
    profile = attempt.Profile(workdir, start, config.log.profile if is_first() else 0)
    if is_first():
        attempt.note(workdir, start, attempt.environment())
    signals, votes = StopSignals(), Votes(mesh)
    try:
        for batch in clock.waiting(pipeline.batches(start, config.steps)):
            if batch.step == 0 and config.log.first_batch and is_first():
                attempt.draw_first_batch(workdir, batch, pipeline.readers[0].tokenize)
            state, figures = update(state, *_to_devices(batch, mesh))
            step = batch.step + 1
            progress.step()
            watch.follow(step, figures)
            profile.follow(step, figures)
            vote = votes.cast(Vote.STOP if signals.received else checkpoints.vote(), (state, figures))
            bad.count(batch)
            if _due(config.log.every, step, config):
                watch.settle()
                on_host = {name: float(value) for name, value in figures.items()} | clock.rates(step)
                on_host |= _utilisation(config, model, batch.step, on_host["images_per_second"], mesh) | bad.figures()
                log.write(step, on_host | {"batch_digest": batch.digest})
                wandb.write(step, on_host)
                progress.show(step, on_host["loss"], on_host["images_per_second"])
            evaluated, results = bool(tables) and _due(config.evaluate.every, step, config), {}
            if evaluated:
                with clock.paused(state):
                    results = _evaluate(config, _clip(config, model, state, files), tables)
                log.write(step, results)
                wandb.write(step, results)
                top1 = {name.split("/")[1]: value for name, value in results.items() if name.endswith("/top1")}
                progress.say(f"step {step}: top-1 " + ", ".join(f"{name} {value:.1%}" for name, value in top1.items()))
            perhaps_best = evaluated and config.checkpoint.best is not None
            if vote or perhaps_best or _due(config.checkpoint.every, step, config):
                with clock.paused(state):
                    watch.settle()  # a run that diverged must not push out its last good checkpoints
                    log.keep()
                    checkpoints.save(step, state, results)
            if vote == Vote.STOP and step < config.steps:
                checkpoints.wait()
                progress.say(
                    f"stopped by {signals.received or 'a signal'} at step {step} of {config.steps}, which is saved"
                )
                raise Stopped
        checkpoints.wait()
    finally:
        signals.close()
        checkpoints.close()
        log.close()
        wandb.close()
        progress.close()
    return _clip(config, model, state, files)


def _clip(config: TrainConfig, model: ClipConfig, state: TrainState, files: Mapping[str, bytes]) -> Clip:
    """The model as it is now, or its average, on this process's devices."""
    params = on_this_process(state.get("ema", state["params"]))
    return Clip(model, params, config.model.compute, tokenizer_files=files)


def _evaluate(config: TrainConfig, clip: Clip, tables: dict[str, Table]) -> dict[str, float]:
    """The figures of every task; none on processes but the first, which alone evaluates, on its own devices."""
    results = {}
    if is_first():
        embedded = {data: embed_table(clip, table, batch_size=256) for data, table in tables.items()}
        for name, task in config.evaluate.zero_shot.items():
            result = classify_table(clip, tables[task.data], embedded[task.data], task.labels, task.templates)
            results |= {f"eval/{name}/{metric}": value for metric, value in result.metrics().items()}
    wait_for_all("the first process has evaluated")
    return results


def _to_devices(batch: Batch, mesh: Mesh) -> tuple[jax.Array, jax.Array]:
    """The global arrays of which this process holds its share."""
    sharding = batch_sharding(mesh)
    pixels, tokens = (jax.make_array_from_process_local_data(sharding, part) for part in (batch.pixels, batch.tokens))
    return pixels, tokens


def _utilisation(config: TrainConfig, model: ClipConfig, step: int, speed: float, mesh: Mesh) -> dict[str, float]:
    """Images a second on each device and, where its peak is known, the model FLOPs utilisation."""
    if not leaves_patches_out(config, step):
        config = with_all_patches(config)
    figures = {"images_per_second_per_device": speed / mesh.size}
    peak = peak_flops(mesh.devices.flat[0].device_kind)
    return figures if peak is None else figures | {"mfu": mfu(config, model, speed, mesh.size, peak)}


def _due(every: int | float, step: int, config: TrainConfig) -> bool:
    return step % in_steps(every, config.steps, least=1) == 0 or step == config.steps
