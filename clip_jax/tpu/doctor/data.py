"""Can the data be read, and does it come as fast as the devices want it."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from etils import epath
from jax.sharding import Mesh

from clip_jax.data.draw_splits import is_drawn
from clip_jax.data.pipeline import Pipeline
from clip_jax.data.spec import open_table
from clip_jax.data.table import Table
from clip_jax.tpu.doctor.config import Run
from clip_jax.tpu.doctor.examination import Finding
from clip_jax.training import run_data
from clip_jax.training import workdir as workdirs
from clip_jax.training.chips import peak_flops
from clip_jax.training.distributed import batch_share
from clip_jax.training.evaluations import check_best, check_tasks
from clip_jax.training.initial import tokenizer_files
from clip_jax.training.step_flops import step_flops

SECONDS = 4.0  # of reading
SHARE = 128  # at most so many images at a time, so that a large batch is no long wait
SETTLED = 3  # batches that lie ready before any is asked for
MFU = 0.4  # what a good run reaches


@dataclass(frozen=True)
class Data:
    """The tables of the training data, and the files of the tokenizer."""

    sources: Mapping[str, Table]
    files: Mapping[str, bytes]


def check_data(run: Run, workdir: str) -> Finding:
    """Opens every source and every task's data, as train does before it begins. Raises UserError as that does."""
    config, place = run.config, epath.Path(workdir)
    undrawn = images_to_draw(run, workdir)
    if undrawn:
        return Finding("skipped", f"train draws {undrawn:,} images first")
    sources = {one.source: open_table(workdirs.locate(one.source, place)) for one in config.data.sources}
    tables = {data: open_table(workdirs.locate(data, place)) for data in config.evaluate.data}
    check_tasks(config.evaluate, tables)
    check_best(config.checkpoint, config.evaluate, tables)
    tokenizer = tokenizer_files(run.model, run.source)
    samples, parts = sum(map(len, sources.values())), sum(len(table.parts) for table in sources.values())
    epochs = config.steps * config.batch_size / max(samples, 1)
    seen = f"{samples:,} samples, files: {parts:,}, epochs: {epochs:,.1f}"
    if tables:
        seen += f"; evaluation: {sum(map(len, tables.values())):,} samples"
    figures = {"samples": samples, "files": parts, "epochs": epochs}
    return Finding("ok", seen, figures=figures, found=Data(sources, tokenizer))


def images_to_draw(run: Run, workdir: str) -> int:
    """Of the drawn scenes, those that are not there yet. Raises UserError where they are there, but others."""
    draw = run.config.data.draw
    if draw is None:
        return 0
    folder, shared = (
        Path(workdirs.locate(draw.folder, epath.Path(workdir))),
        {"seed": draw.seed, "image_size": run.model.vision.image_size},
    )
    counts = {"train": draw.train, "held_out": draw.held_out, "probe": draw.held_out}
    return sum(count for name, count in counts.items() if not is_drawn(folder / name, {"images": count, **shared}))


def needed_speed(run: Run, mesh: Mesh) -> float | None:
    """Images a second of all devices at 40 % MFU; None where their peak is not known."""
    peak = peak_flops(mesh.devices.flat[0].device_kind)
    if peak is None:
        return None
    return MFU * peak * mesh.size * run.config.batch_size / step_flops(run.config, run.model)


def check_speed(run: Run, mesh: Mesh, data: Data, step_speed: float | None) -> Finding:
    """How fast the real pipeline brings images to this process, against its share of what the devices want.

    That is what they do at 40 % MFU or, where their peak is not known, `step_speed`: what the dry step did.
    """
    _, parts = batch_share(mesh)
    share = max(1, min(run.config.batch_size // parts, SHARE))
    config = replace(run.config, batch_size=share * parts)
    pipeline = run_data.training_pipeline(config, run.model, data.files, mesh, data.sources)
    speed, bad = _measured(pipeline)
    wanted, why = needed_speed(run, mesh), f"{MFU:.0%} MFU"
    if wanted is None:
        wanted, why = step_speed, "the dry step"
    figures = {"images_per_second": speed, "needed": None if wanted is None else wanted / parts, "bad_share": bad}
    here = " on this host" if parts > 1 else ""
    seen = f"{speed:,.0f} images/s{here}" + (f", {bad:.1%} of the samples bad" if bad else "")
    if bad > config.data.most_bad:
        advice = f"more than config.data.most_bad, {config.data.most_bad:.0%}; see clip-jax data inspect"
        return Finding("failed", seen, advice, figures)
    if wanted is None:
        return Finding("ok", seen, "", figures)
    seen += f"; {why} wants {wanted / parts:,.0f}"
    if speed < wanted / parts:
        advice = "devices will wait for data: store smaller images, take more processors, or a nearer disk"
        return Finding("warning", seen, advice, figures)
    return Finding("ok", seen, "", figures)


def _measured(pipeline: Pipeline) -> tuple[float, float]:
    """Images a second, and the share of bad samples."""
    batches = pipeline.batches(0, 10**6)
    for _ in range(SETTLED):
        next(batches)
    started = time.monotonic()
    images = bad = 0
    while not images or time.monotonic() - started < SECONDS:
        batch = next(batches)
        images += len(batch.pixels)
        bad += sum(batch.bad.values())
    return images / (time.monotonic() - started), bad / images
