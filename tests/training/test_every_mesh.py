"""The same losses over twenty updates on one device and on eight, however the eight are arranged."""

from dataclasses import replace

import pytest
from support.updates import CONFIG, run

from clip_jax.sharding import MeshConfig
from clip_jax.training.config import LossConfig, TrainConfig

UPDATES = 20
MESHES = [
    MeshConfig(data, fsdp, 8 // (data * fsdp))
    for data in (1, 2, 4, 8)
    for fsdp in (1, 2, 4, 8)
    if 8 % (data * fsdp) == 0
]


@pytest.fixture(scope="module")
def model(toy_config):
    """Eight heads in each tower, which a tensor axis of eight divides."""
    image, text = toy_config.vision, toy_config.text
    return replace(
        toy_config,
        vision=replace(image, transformer=replace(image.transformer, heads=8)),
        text=replace(text, transformer=replace(text.transformer, heads=8)),
    )


def losses(config: TrainConfig, model, mesh: MeshConfig, devices: int) -> list[float]:
    return [figures["loss"] for figures in run(replace(config, steps=UPDATES), model, mesh, devices, UPDATES)[1]]


@pytest.fixture(scope="module")
def on_one_device(model):
    found = losses(CONFIG, model, MeshConfig(), devices=1)
    assert found[-1] < found[0] - 0.1  # they are not the same for want of learning
    return found


@pytest.mark.slow
@pytest.mark.parametrize("mesh", MESHES, ids=str)
def test_gathered_losses(model, on_one_device, mesh):
    assert losses(CONFIG, model, mesh, devices=8) == pytest.approx(on_one_device, rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("mesh", [MeshConfig(8, 1, 1), MeshConfig(2, 4, 1), MeshConfig(2, 2, 2)], ids=str)
def test_losses_around_the_ring(model, on_one_device, mesh):
    ring = replace(CONFIG, loss=LossConfig(method="ring"))
    assert losses(ring, model, mesh, devices=8) == pytest.approx(on_one_device, rel=1e-5)
