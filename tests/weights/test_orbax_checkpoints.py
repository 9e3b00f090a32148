"""Checkpoints that are written behind a run: what they hold, which stay, and what is said where one fails."""

import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import clip_jax
from clip_jax.errors import UserError
from clip_jax.weights.orbax_checkpoints import RESULTS, CheckpointWriter, complete_steps, describe, read_model, restore

STATE = {"params": np.arange(2000, dtype=np.float32), "step": np.int32(1)}


def on_devices() -> dict[str, jax.Array]:
    return jax.tree.map(jnp.asarray, STATE)


def abstract(state: dict) -> dict:
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), state)


def save(folder: Path, *steps: int, keep: int = 10, metric: str | None = None, values: dict | None = None) -> None:
    writer = CheckpointWriter(folder, keep, metric)
    for step in steps:
        results = {RESULTS: {metric: values[step]}} if values and step in values else {}
        writer.save(step, on_devices(), {"saved_at": step} | results)
    writer.wait()
    writer.close()


def test_a_state_may_be_donated_as_soon_as_save_returns(tmp_path):
    """Over eight devices, sharded and whole: noise, so large that it is still being written long after."""
    mesh = jax.make_mesh((8,), ("data",))
    noise = np.random.default_rng(0).standard_normal((2**12, 2**11), np.float32)
    layouts = {"sharded": P("data"), "whole": P()}
    state = {name: jax.device_put(noise, NamedSharding(mesh, spec)) for name, spec in layouts.items()}
    shapes = abstract(state)
    overwrite = jax.jit(lambda state: jax.tree.map(lambda leaf: -leaf - 7, state), donate_argnums=0)
    jax.block_until_ready(overwrite(jax.tree.map(jnp.copy, state)))  # compiled before

    writer = CheckpointWriter(tmp_path, keep=1)
    writer.save(3, state, {"saved_at": 3})
    for _ in range(4):
        state = overwrite(state)
    jax.block_until_ready(state)
    assert complete_steps(tmp_path) == []  # or this would show nothing
    writer.wait()
    writer.close()
    restored = restore(tmp_path, 3, shapes)
    for name in layouts:
        np.testing.assert_array_equal(restored[name], noise, err_msg=name)
    assert describe(tmp_path, 3) == {"saved_at": 3}


def test_the_newest_and_the_best_stay(tmp_path):
    values = {1: 0.5, 2: 0.9, 3: 0.1, 4: float("nan"), 6: 0.3}
    save(tmp_path, *range(1, 7), keep=2, metric="eval/a/top1", values=values)
    assert complete_steps(tmp_path) == [2, 5, 6]
    # A later process knows them; what has no value, or another figure's, is nobody's best.
    save(tmp_path, 7, keep=1, metric="eval/a/top1", values={7: 0.2})
    assert complete_steps(tmp_path) == [2, 7]
    save(tmp_path, 8, keep=1, metric="eval/b/top1", values={8: 0.1})
    save(tmp_path, 9, 10, keep=1, metric="eval/b/top1")
    assert complete_steps(tmp_path) == [8, 10]


def test_what_is_not_complete_is_not_there(tmp_path):
    save(tmp_path, 1)
    for name in ("2.orbax-checkpoint-tmp", "DAMAGED-3", "notes"):
        (tmp_path / name).mkdir()
    (tmp_path / "4").write_text("a file")
    assert complete_steps(tmp_path) == [1]
    assert complete_steps(tmp_path / "nowhere") == []


@pytest.mark.parametrize("how", ["missing", "short"])
@pytest.mark.parametrize(
    ("name", "of"), [("manifest.ocdbt", "both"), ("_METADATA", "both"), ("d/*", "both"), ("ocdbt*/d/*", "state")]
)
def test_damaged_files_are_found_out(tmp_path, name, of, how):
    save(tmp_path, 1)
    for part in ("description", "state") if of == "both" else (of,):
        (file,) = (tmp_path / "1" / part).glob(name)
        if how == "missing":
            file.unlink()
        else:
            file.write_bytes(file.read_bytes()[:10])
    readers = {
        "description": lambda: describe(tmp_path, 1),
        "state": lambda: restore(tmp_path, 1, abstract(on_devices())),
    }
    for part, read in readers.items():
        if of in (part, "both"):
            with pytest.raises(UserError, match=r"checkpoint 1 in .* cannot be read \(.+\)") as raised:
                read()
            assert "\n" not in str(raised.value)


@pytest.fixture(scope="module")
def model_checkpoints(tmp_path_factory, toy_config, toy_params) -> Path:
    folder = tmp_path_factory.mktemp("run") / "checkpoints"
    writer = CheckpointWriter(folder, keep=3)
    for step in (1, 2, 3):
        params = jax.tree.map(lambda leaf, step=step: jnp.asarray(leaf) + step, toy_params)
        writer.save(step, {"params": params}, {"model": toy_config.to_dict()})
    writer.wait()
    writer.close()
    return folder


def spoil(folder: Path, *steps: int) -> None:
    for step in steps:
        for file in (folder / str(step) / "state").rglob("*"):
            if file.is_file():
                file.write_bytes(file.read_bytes()[:10])


def test_a_model_is_read_from_the_newest_that_is_whole(model_checkpoints, tmp_path, toy_config, toy_params):
    folder = tmp_path / "run/checkpoints"
    shutil.copytree(model_checkpoints, folder)
    spoil(folder, 3)
    with pytest.warns(UserWarning, match=r"checkpoint 3 in .* cannot be read .*; checkpoint 2 is taken instead"):
        clip = clip_jax.load(tmp_path / "run")
    assert clip.config == toy_config
    for leaf, expected in zip(jax.tree.leaves(clip.params), jax.tree.leaves(toy_params), strict=True):
        np.testing.assert_array_equal(leaf, expected + 2)
    assert complete_steps(folder) == [1, 2, 3]  # reading moves nothing
    spoil(folder, 1, 2)
    with pytest.raises(UserError, match=r"checkpoint 3 in .* cannot be read .*; nor can the older ones"):
        read_model(folder)


def test_a_folder_that_cannot_be_written_to(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write checkpoints to .*: Not a directory$"):
        CheckpointWriter(tmp_path / "file" / "checkpoints", keep=1)


def test_a_disk_that_fails_while_one_is_written(tmp_path):
    """Files may not grow beyond 100 kB in this process, which is how a system without room answers: with an errno."""
    code = (
        "import resource, signal, sys, jax, pathlib\n"
        "from clip_jax.errors import UserError\n"
        "from clip_jax.weights.orbax_checkpoints import CheckpointWriter\n"
        "writer = CheckpointWriter(pathlib.Path(sys.argv[1]), 1)\n"
        "state = {'a': jax.random.normal(jax.random.key(0), (300_000,))}\n"
        "writer.save(1, state, {'a': 1})\n"
        "writer.wait()\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, {resource.RLIM_INFINITY}))\n"
        "writer.save(2, state, {'a': 1})\n"
        "try: writer.save(3, state, {'a': 1})\n"
        "except UserError as error: print(error)\n"
        "writer.close()\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({resource.RLIM_INFINITY}, {resource.RLIM_INFINITY}))\n"
        "writer = CheckpointWriter(pathlib.Path(sys.argv[1]), 1)\n"
        "writer.save(2, state, {'a': 1})\n"
        "writer.close()\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], env={**os.environ, "XLA_FLAGS": ""}, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == (
        f"cannot write checkpoint 2 to {tmp_path}: File too large; checkpoint 1 is whole, the run goes on from there\n"
    )
    assert "Traceback" not in ended.stderr
    assert complete_steps(tmp_path) == [2]  # once there is room again


def save_and_wait(writer: CheckpointWriter) -> None:
    writer.save(2, on_devices(), {"saved_at": 2})
    writer.wait()


def test_a_full_disk_is_named_and_the_older_checkpoint_stays(tmp_path, monkeypatch):
    writer = CheckpointWriter(tmp_path, keep=1)
    writer.save(1, on_devices(), {"saved_at": 1})
    writer.wait()
    full = OSError(28, "No space left on device")
    mkdir = os.mkdir

    def refuse(path, *arguments, **named):
        if "2.orbax" in os.fspath(path):
            raise full
        return mkdir(path, *arguments, **named)

    monkeypatch.setattr(os, "mkdir", refuse)
    with pytest.raises(UserError, match=r"cannot write checkpoint 2 to .*: No space left on device; checkpoint 1 is"):
        save_and_wait(writer)
    writer.close()
    assert complete_steps(tmp_path) == [1]
    restored = restore(tmp_path, 1, abstract(on_devices()))
    np.testing.assert_array_equal(restored["params"], STATE["params"])
