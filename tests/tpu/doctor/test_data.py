"""How fast data must come."""

import jax
import numpy as np
import pytest

from clip_jax.tpu.doctor import data
from clip_jax.tpu.doctor.config import Run
from clip_jax.training.config import DataConfig, ModelConfig, TrainConfig
from clip_jax.training.model import training_model

TINY = TrainConfig(data=DataConfig("synthetic:64"), batch_size=64, model=ModelConfig("tiny", layers="scan"))
RUN = Run(TINY, training_model(TINY), None)


def test_speed_that_a_tpu_wants(monkeypatch):
    """On devices whose peak is known, 40 % MFU counts: by hand, FLOPs of an update are 3 times the forward pass's."""
    from clip_jax.model_size import flops

    mesh = jax.sharding.Mesh(np.array(jax.devices()).reshape(8, 1, 1), ("data", "fsdp", "tensor"))
    assert data.needed_speed(RUN, mesh) is None
    monkeypatch.setattr(data, "peak_flops", lambda kind: 1e12)
    towers = flops(RUN.model)
    each = 3 * (towers.image + towers.text + 2 * 64 * RUN.model.embed_dim)
    assert data.needed_speed(RUN, mesh) == pytest.approx(0.4 * 8e12 / each)
