"""The dry step: what is too large for it, its losses and its batches."""

import math
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np

from clip_jax.tpu.doctor.config import Run, check_config
from clip_jax.tpu.doctor.examination import Finding
from clip_jax.tpu.doctor.machine import Machine
from clip_jax.tpu.doctor.step import judged, made_up, too_large
from clip_jax.training.chips import GIB
from clip_jax.training.config import DataConfig, ModelConfig, TrainConfig
from clip_jax.training.model import training_model

SCENES = Path(__file__).parents[3] / "configs/scenes.py"
TINY = TrainConfig(data=DataConfig("synthetic:64"), batch_size=64, model=ModelConfig("tiny", layers="scan"))
RUN = Run(TINY, training_model(TINY), None)


def test_what_a_cpu_should_not_try():
    config = check_config(str(SCENES.with_name("openai_vit_l14.py")), [("data.source", "synthetic:64")])
    mesh = jax.sharding.Mesh(np.array(jax.devices()).reshape(8, 1, 1), ("data", "fsdp", "tensor"))
    machine = Machine(2, 20 * GIB, None, -1, -1, False)
    late = too_large(config.found, mesh, machine, 1e11)
    assert late is not None
    assert "hours" in late.seen
    assert "--config.batch_size=8 for a try here" in late.advice  # what the mesh divides, and no less
    large = too_large(config.found, mesh, replace(machine, free_memory=4 * GIB), 1e30)
    assert large is not None
    assert "the model needs some 10 GiB" in large.seen  # 428 M float32 parameters, two moments, twice
    assert too_large(config.found, mesh, machine, 1e30) is None


def test_losses_that_are_judged():
    well = Finding("ok", "loss", found=1.0)
    assert judged(RUN, math.log(64) + 0.5, 4.0, well) is well
    assert judged(RUN, math.log(64) + 1.5, 4.0, well).status == "warning"
    assert judged(RUN, math.nan, 4.0, well).status == "failed"
    assert judged(RUN, 4.0, math.inf, well).status == "failed"
    begun = replace(RUN, config=replace(TINY, model=replace(TINY.model, init="somewhere")))
    assert judged(begun, 0.1, 0.1, well) is well


def test_made_up_batches():
    mesh = jax.sharding.Mesh(np.array(jax.devices()).reshape(4, 1, 2), ("data", "fsdp", "tensor"))
    pixels, tokens = made_up(TINY, RUN.model, mesh)
    size = RUN.model.vision.image_size
    assert pixels.shape == (64, size, size, 3)
    assert len(np.unique(np.asarray(pixels).reshape(64, -1), axis=0)) == 64
    assert (np.asarray(tokens)[:, -1] == np.asarray(tokens).max()).all()
