"""A workdir in a bucket, for which a folder stands in that takes no appending and is named by gs:// only."""

import os
import shutil
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import tensorflow as tf
from etils import epath
from etils.epath import backend, gpath
from support.short_run import SHORT

import clip_jax
from clip_jax.errors import IOFailure, UserError
from clip_jax.sharding import MeshConfig
from clip_jax.training import attempt, metrics
from clip_jax.training import workdir as workdirs
from clip_jax.training.config import (
    DataConfig,
    DrawConfig,
    TrainConfig,
)
from clip_jax.training.loop import train
from clip_jax.training.metrics import MetricsLog, metrics_files, read_metrics
from clip_jax.training.workdir import as_workdir, check, claim
from clip_jax.weights.folders import CHECKPOINTS
from clip_jax.weights.loading import tokenizer_files_of
from clip_jax.weights.orbax_checkpoints import CheckpointWriter, complete_steps, describe, restore

REFUSALS = [
    lambda: PermissionError(13, "Permission denied"),
    lambda: tf.errors.PermissionDeniedError(None, None, "Permission denied\nand so on"),  # as epath with TensorFlow
]
CONFIG = TrainConfig(data=DataConfig("scenes:train"))


class Bucket:
    """epath's backend for local files, with gs:// for a folder's name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.refusal: Callable[[], Exception] | None = None  # to whatever would be written

    def __getattr__(self, name: str) -> Any:
        return partial(self._call, getattr(backend.os_backend, name), name)

    def _call(self, function, name, *arguments, **named) -> Any:
        assert all(str(path).startswith(("gs://", "/")) for path in arguments[:1])  # JAX's cache lies on the disk
        if name == "open" and "a" in arguments[1]:
            raise AssertionError("an object cannot be appended to")
        if self.refusal and name == "open" and "w" in arguments[1]:
            raise self.refusal()
        moved = [os.fspath(path).replace("gs://", f"{self.folder}/", 1) for path in arguments]
        found = function(*moved, **named)
        return [path.replace(f"{self.folder}/", "gs://", 1) for path in found] if name == "glob" else found


@pytest.fixture
def bucket(tmp_path, monkeypatch) -> Bucket:
    stand_in = Bucket(tmp_path)
    monkeypatch.setattr(gpath._GPath, "_backend", stand_in)
    # What Orbax asks Google for: whether the bucket has real folders.
    monkeypatch.setattr("orbax.checkpoint._src.path.gcs_utils.is_hierarchical_namespace_enabled", lambda _: False)
    return stand_in


@pytest.fixture
def arrays(bucket, monkeypatch) -> Bucket:
    """The stand-in for the arrays of checkpoints too, which go past epath."""

    def folder(address: str) -> dict[str, str]:
        return {"driver": "file", "path": address.replace("gs://", f"{bucket.folder}/", 1)}

    monkeypatch.setattr("orbax.checkpoint._src.path.gcs_utils.get_kvstore_for_gcs", folder)
    return bucket


def log_steps(workdir: Path | epath.Path, resumed_step: int, *steps: int) -> MetricsLog:
    log = MetricsLog(workdir, resumed_step, tensorboard=False)
    for step in steps:
        log.write(step, {"loss": float(step + 100 * resumed_step)})
    return log


def test_attempts_are_merged(bucket):
    workdir = as_workdir("gs://bucket/run")
    workdir.mkdir(parents=True)
    log_steps(workdir, 0, 1, 2, 3, 4).close()
    log = log_steps(workdir, 2, 3, 4)
    log.keep()
    log.write(5, {"loss": 1.0})  # lost with the process
    log_steps(workdir, 4, 5, 6).close()
    assert [line["loss"] for line in read_metrics(workdir)] == [1, 2, 203, 204, 405, 406]
    # From an older checkpoint, as where a newer one is damaged: what came after it is made again.
    log_steps(workdir, 3, 4).close()
    assert [line["loss"] for line in read_metrics(workdir)] == [1, 2, 203, 304]
    assert metrics_files(workdir) == ["metrics-0.jsonl", "metrics-2.jsonl", "metrics-3.jsonl"]


def test_a_run_claims_its_workdir(bucket, tmp_path):
    workdir = as_workdir("gs://bucket/run")
    check(workdir, CONFIG)
    claim(workdir, CONFIG, {"words.model": b"pieces"})
    assert (tmp_path / "bucket/run/tokenizer/words.model").read_bytes() == b"pieces"
    log_steps(workdir, 0, 1).close()
    check(workdir, CONFIG)
    with pytest.raises(UserError, match=r"gs://bucket/run holds another run: config\.seed is 0 there and 1 here"):
        check(workdir, replace(CONFIG, seed=1))
    assert tokenizer_files_of(workdir) == {"words.model": b"pieces"}
    assert workdirs.locate("tar:{workdir}/a", workdir) == "tar:gs://bucket/run/a"


def test_complete_checkpoints_are_found(bucket, tmp_path):
    workdir = as_workdir("gs://bucket/run")
    assert complete_steps(workdir / CHECKPOINTS) == []
    for step in ("3", "12", "15"):
        (tmp_path / "bucket/run/checkpoints" / step).mkdir(parents=True)
    for step in ("3", "12"):  # of the third, not everything has been written
        (tmp_path / "bucket/run/checkpoints" / step / "commit_success.txt").write_text("")
    assert complete_steps(workdir / CHECKPOINTS) == [3, 12]


@pytest.mark.parametrize("refusal", REFUSALS, ids=["OSError", "TensorFlow"])
def test_what_a_bucket_does_not_take(bucket, refusal):
    workdir = as_workdir("gs://bucket/run")
    workdir.mkdir(parents=True)
    with pytest.warns(UserWarning, match=r"no TensorBoard files are written to gs://bucket/run"):
        MetricsLog(workdir, 0, tensorboard=True).close()
    with pytest.raises(UserError, match="scenes cannot be drawn"):
        check(workdir, replace(CONFIG, data=replace(CONFIG.data, draw=DrawConfig("{workdir}/scenes"))))
    log = log_steps(workdir, 0, 1)
    bucket.refusal = refusal
    with pytest.raises(IOFailure, match=r"^cannot write to the workdir gs://bucket/other: .*Permission denied$"):
        claim(as_workdir("gs://bucket/other"), CONFIG)
    with pytest.raises(IOFailure, match=r"^cannot write gs://bucket/run/attempts/\S+\.json: .*Permission denied$"):
        attempt.note(workdir, 0, {})
    with pytest.raises(IOFailure, match=r"^cannot write the metrics: .*Permission denied$"):
        log.keep()
    log.close()


def test_between_checkpoints_a_bucket_may_fail_for_a_while(bucket, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(metrics.time, "monotonic", lambda: now[0])
    workdir = as_workdir("gs://bucket/run")
    workdir.mkdir(parents=True)
    log = log_steps(workdir, 0, 1)
    bucket.refusal, now[0] = REFUSALS[1], now[0] + 31
    with pytest.warns(UserWarning, match=r"^cannot write the metrics: .*; they are written again later$"):
        log.write(2, {"loss": 2.0})
    bucket.refusal, now[0] = None, now[0] + 31
    log.write(3, {"loss": 3.0})
    assert [line["step"] for line in read_metrics(workdir)] == [1, 2, 3]


def save(writer: CheckpointWriter, step: int, array: jax.Array) -> None:
    writer.save(step, {"a": array}, {"saved_at": step})
    writer.wait()


def test_checkpoints_are_written_and_read(arrays, tmp_path):
    folder = as_workdir("gs://bucket/run") / CHECKPOINTS
    expected = np.random.default_rng(0).standard_normal((8, 300), np.float32)
    mesh = jax.make_mesh((8,), ("data",))
    over_devices = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    for steps in ((1, 2), (3,)):  # the second time beside those of an earlier attempt
        writer = CheckpointWriter(folder, keep=2)
        for step in steps:
            save(writer, step, jax.device_put(expected + step, over_devices))
        writer.close()
    assert complete_steps(folder) == [2, 3]
    assert sorted(path.name for path in (tmp_path / "bucket/run/checkpoints").iterdir()) == ["2", "3"]
    for step in (2, 3):
        assert describe(folder, step) == {"saved_at": step}
        shape = jax.ShapeDtypeStruct(expected.shape, expected.dtype, sharding=over_devices)
        np.testing.assert_array_equal(restore(folder, step, {"a": shape})["a"], expected + step)

    (tmp_path / "bucket/run/checkpoints/3/commit_success.txt").unlink()  # killed before its end
    writer = CheckpointWriter(folder, keep=2)
    assert complete_steps(folder) == [2]
    arrays.refusal = REFUSALS[1]
    message = r"^cannot write checkpoint 4 to gs://bucket/run/checkpoints: .*Permission denied; checkpoint 2 is whole"
    with pytest.raises(IOFailure, match=message), closing(writer):
        save(writer, 4, jax.device_put(expected, over_devices))


@pytest.mark.slow
def test_a_run_goes_on_from_its_bucket_on_another_mesh(arrays, tmp_path):
    config = replace(SHORT, steps=4)
    workdir = as_workdir("gs://bucket/run")
    train(config, workdir)
    whole = read_metrics(workdir)
    shutil.rmtree(tmp_path / "bucket/run/checkpoints/4")
    train(replace(config, mesh=MeshConfig(data=2, fsdp=4)), workdir)
    assert complete_steps(workdir / CHECKPOINTS) == [2, 4]
    again = read_metrics(workdir)
    assert metrics_files(workdir) == ["metrics-0.jsonl", "metrics-2.jsonl"]
    assert [line["batch_digest"] for line in again] == [line["batch_digest"] for line in whole]
    assert [line["loss"] for line in again] == pytest.approx([line["loss"] for line in whole], rel=1e-5)
    assert (tmp_path / "bucket/run/first_batch.png").read_bytes().startswith(b"\x89PNG")
    loaded, there = (clip_jax.load(place) for place in ("gs://bucket/run", tmp_path / "bucket/run"))
    assert loaded.config == there.config
    jax.tree.map(np.testing.assert_array_equal, loaded.params, there.params)


def test_models_in_buckets(bucket, monkeypatch):
    with pytest.raises(UserError, match=r"^gs://bucket/none holds no training run; .* read from disk"):
        clip_jax.load("gs://bucket/none")

    def refuse(*_: object, **__: object) -> bool:
        raise RuntimeError("no credentials\nand so on")

    monkeypatch.setattr(backend.os_backend, "isdir", refuse)
    with pytest.raises(IOFailure, match=r"^cannot read gs://bucket/run \(RuntimeError: no credentials\)$"):
        clip_jax.load("gs://bucket/run")


@pytest.mark.parametrize("name", ["s3://bucket/run", "http://host/run"])
def test_other_addresses_are_refused(name):
    with pytest.raises(UserError, match=f"{name} is neither a folder nor in a bucket; a bucket is gs://"):
        as_workdir(name)


def test_a_bucket_that_cannot_be_reached(bucket, monkeypatch):
    def refuse(*_: object, **__: object) -> bool:
        raise RuntimeError("no credentials\nand so on")

    monkeypatch.setattr(backend.os_backend, "exists", refuse)
    with pytest.raises(IOFailure, match=r"^cannot reach the workdir gs://bucket/run: RuntimeError: no credentials$"):
        as_workdir("gs://bucket/run")
