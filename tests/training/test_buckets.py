"""A workdir in a bucket, for which a folder stands in that takes no appending and is named by gs:// only."""

import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from etils import epath
from etils.epath import backend, gpath

from clip_jax.errors import UserError
from clip_jax.training import workdir as workdirs
from clip_jax.training.config import DataConfig, DrawConfig, TrainConfig
from clip_jax.training.metrics import MetricsLog, metrics_files, read_metrics
from clip_jax.training.workdir import as_workdir, check, claim
from clip_jax.weights.folders import CHECKPOINTS
from clip_jax.weights.loading import tokenizer_files_of
from clip_jax.weights.orbax_checkpoints import complete_steps

CONFIG = TrainConfig(data=DataConfig("scenes:train"))


class Bucket:
    """epath's backend for local files, with gs:// for a folder's name."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.refuses = folder, False

    def __getattr__(self, name: str) -> Any:
        return partial(self._call, getattr(backend.os_backend, name), name)

    def _call(self, function, name, *arguments, **named) -> Any:
        assert all(str(path).startswith("gs://") for path in arguments[:1])
        if name == "open" and "a" in arguments[1]:
            raise AssertionError("an object cannot be appended to")
        if self.refuses and name == "open" and "w" in arguments[1]:
            raise PermissionError(13, "Permission denied")
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


def test_what_a_bucket_does_not_take(bucket):
    workdir = as_workdir("gs://bucket/run")
    workdir.mkdir(parents=True)
    with pytest.warns(UserWarning, match=r"no TensorBoard files are written to gs://bucket/run"):
        MetricsLog(workdir, 0, tensorboard=True).close()
    with pytest.raises(UserError, match="scenes cannot be drawn"):
        check(workdir, replace(CONFIG, data=replace(CONFIG.data, draw=DrawConfig("{workdir}/scenes"))))
    log = log_steps(workdir, 0, 1)
    bucket.refuses = True
    with pytest.raises(UserError, match=r"cannot write to the workdir gs://bucket/other: Permission denied"):
        claim(as_workdir("gs://bucket/other"), CONFIG)
    with pytest.raises(UserError, match="cannot write the metrics: Permission denied"):
        log.keep()


@pytest.mark.parametrize("name", ["s3://bucket/run", "http://host/run"])
def test_other_addresses_are_refused(name):
    with pytest.raises(UserError, match=f"{name} is neither a folder nor in a bucket; a bucket is gs://"):
        as_workdir(name)


def test_a_bucket_that_cannot_be_reached(bucket, monkeypatch):
    def refuse(*_: object, **__: object) -> bool:
        raise RuntimeError("no credentials\nand so on")

    monkeypatch.setattr(backend.os_backend, "exists", refuse)
    with pytest.raises(UserError, match=r"cannot reach the workdir gs://bucket/run \(RuntimeError: no credentials\)"):
        as_workdir("gs://bucket/run")
