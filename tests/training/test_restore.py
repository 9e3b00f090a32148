"""What a run goes on from: its state on another mesh, and checkpoints that cannot be read at the moment."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clip_jax.errors import IOFailure
from clip_jax.sharding import MeshConfig, make_mesh
from clip_jax.training import resumption
from clip_jax.training.config import OptimizerConfig
from clip_jax.training.optimizer import make_optimizer
from clip_jax.training.resumption import Resumption
from clip_jax.training.state import TrainState, abstract_state
from clip_jax.weights import orbax_checkpoints
from clip_jax.weights.orbax_checkpoints import CheckpointWriter, complete_steps

MESHES = {"data=8": (MeshConfig(data=8), 8), "fsdp=4,tensor=2": (MeshConfig(1, 4, 2), 8), "one": (MeshConfig(), 1)}


def shapes_on(mesh: str, config) -> TrainState:
    layout, devices = MESHES[mesh]
    optimizer = make_optimizer(OptimizerConfig(ema=0.9), steps=10)
    return abstract_state(config, optimizer, make_mesh(layout, jax.devices()[:devices]), ema=True)


@pytest.mark.parametrize(
    ("saved_on", "restored_on"),
    [
        ("data=8", "fsdp=4,tensor=2"),
        ("data=8", "one"),
        pytest.param("fsdp=4,tensor=2", "data=8", marks=pytest.mark.slow),
    ],
)
def test_a_state_is_restored_on_another_mesh(tmp_path, toy_config, saved_on, restored_on):
    """Noise in every place, so that no two parts of the state are alike."""
    rng, shapes = np.random.default_rng(0), shapes_on(saved_on, toy_config)
    noise = jax.tree.map(lambda leaf: (100 * rng.standard_normal(leaf.shape)).astype(leaf.dtype), shapes)
    saved = jax.tree.map(lambda values, leaf: jax.device_put(values, leaf.sharding), noise, shapes)
    writer = CheckpointWriter(tmp_path, keep=1)
    writer.save(7, saved, {"saved_at": 7})
    writer.wait()
    writer.close()

    wanted = shapes_on(restored_on, toy_config)
    step, restored = Resumption(tmp_path).restore(wanted)
    assert step == 7
    assert jax.tree.structure(restored) == jax.tree.structure(noise)
    for found, expected, layout in zip(*map(jax.tree.leaves, (restored, noise, wanted)), strict=True):
        np.testing.assert_array_equal(found, expected)
        assert found.dtype == expected.dtype
        assert found.sharding == layout.sharding
    if restored_on == "fsdp=4,tensor=2":  # no device holds all of it
        (split, *_) = (leaf for leaf in jax.tree.leaves(restored) if not leaf.sharding.is_fully_replicated)
        assert split.addressable_shards[0].data.size < split.size


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """Two checkpoints, of which the value of each is its step."""
    monkeypatch.setattr(resumption, "PAUSES", (0.0, 0.0))
    writer = CheckpointWriter(tmp_path, keep=2)
    for step in (1, 2):
        writer.save(step, {"a": jnp.full(4, float(step))}, {"saved_at": step})
    writer.wait()
    writer.close()
    return tmp_path


def restored(folder: Path) -> tuple[int, float]:
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    step, state = Resumption(folder).restore({"a": jax.ShapeDtypeStruct((4,), jnp.float32, sharding=here)})
    return step, float(state["a"][0])


def fail_reads(monkeypatch, error: Exception, times: int) -> None:
    """Has the next reads of checkpoints fail."""
    read, left = orbax_checkpoints.ocp.load_checkpointables, iter(range(times))

    def reading(*arguments):
        if next(left, None) is not None:
            raise error
        return read(*arguments)

    monkeypatch.setattr(orbax_checkpoints.ocp, "load_checkpointables", reading)


PASSING = [
    TimeoutError(),
    TimeoutError(110, "Connection timed out"),
    ValueError("UNAVAILABLE: Error reading gs://bucket/a: HTTP response code: 503"),
    jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 5 bytes"),
    MemoryError(),
]


@pytest.mark.parametrize("error", PASSING, ids=[str(error) or type(error).__name__ for error in PASSING])
def test_what_passes_costs_no_checkpoint(folder, monkeypatch, error):
    fail_reads(monkeypatch, error, times=3)
    with pytest.raises(IOFailure, match=r"^checkpoint 2 in \S+ cannot be read \(.+\)$") as raised:
        restored(folder)
    assert raised.value.exit_code == 74
    assert complete_steps(folder) == [1, 2]
    assert restored(folder) == (2, 2.0)
    fail_reads(monkeypatch, error, times=2)  # and is waited for
    assert restored(folder) == (2, 2.0)


def test_what_looks_like_damage_is_read_again(folder, monkeypatch):
    fail_reads(monkeypatch, ValueError("DATA_LOSS: checksum"), times=2)
    assert restored(folder) == (2, 2.0)
    fail_reads(monkeypatch, ValueError("DATA_LOSS: checksum"), times=3)
    with pytest.warns(UserWarning, match=r"checkpoint 2 .* \(ValueError: DATA_LOSS: checksum\); it is now DAMAGED-2"):
        assert restored(folder) == (1, 1.0)
    assert complete_steps(folder) == [1]
