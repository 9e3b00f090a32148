"""Workdirs that can be written to, or not, and what they hold."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import pytest
from etils.epath import backend, gpath

from clip_jax.errors import UserError
from clip_jax.tpu.doctor.workdir import check_workdir
from clip_jax.training.config import DataConfig, ModelConfig, TrainConfig
from clip_jax.training.workdir import claim

TINY = TrainConfig(data=DataConfig("synthetic:64"), batch_size=64, model=ModelConfig("tiny", layers="scan"))


def test_workdirs(tmp_path):
    fresh = tmp_path / "a/b/run"
    assert check_workdir(str(fresh), TINY, None).seen == f"{fresh}: writable, holds no run yet"
    assert list(tmp_path.iterdir()) == []
    claim(fresh, TINY)
    assert "holds this run, not yet a checkpoint" in check_workdir(str(fresh), TINY, None).seen
    (fresh / "checkpoints").mkdir()
    with pytest.raises(UserError, match=r"holds another run: config\.seed is 0 there and 1 here"):
        check_workdir(str(fresh), replace(TINY, seed=1), None)
    assert check_workdir(str(fresh), None, None).seen == f"{fresh}: writable"


def test_a_workdir_that_cannot_be_written_to():
    """/proc is that to root, too."""
    with pytest.raises(UserError, match=r"cannot write to /proc: .*; choose another --workdir"):
        check_workdir("/proc/run", TINY, None)


class Bucket:
    """epath's backend for the files of a folder, named by gs://, and `refusal` for what would be written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.refusal: Exception | None = None

    def __getattr__(self, name: str) -> Any:
        def call(path: str, *arguments: Any, **named: Any) -> Any:
            if self.refusal and name == "open":
                raise self.refusal
            return getattr(backend.os_backend, name)(path.replace("gs://", f"{self.folder}/"), *arguments, **named)

        return call


def test_a_workdir_in_a_bucket(tmp_path, monkeypatch):
    (tmp_path / "bucket/run").mkdir(parents=True)
    bucket = Bucket(tmp_path)
    monkeypatch.setattr(gpath._GPath, "_backend", bucket)
    found = check_workdir("gs://bucket/run", TINY, None)
    assert found.seen == "gs://bucket/run: writable, holds no run yet"
    assert list((tmp_path / "bucket/run").iterdir()) == []
    bucket.refusal = RuntimeError("Forbidden: storage.objects.create")  # TensorFlow's are no OSErrors either
    with pytest.raises(UserError, match=r"cannot write to gs://bucket/run: .*storage\.objects\.create; choose another"):
        check_workdir("gs://bucket/run", TINY, None)


def test_a_url_that_train_does_not_write_to():
    with pytest.raises(UserError, match=r"a bucket is gs://BUCKET/FOLDER"):
        check_workdir("memory://bucket/run", TINY, None)


def test_a_workdir_that_is_not_shared(tmp_path, monkeypatch):
    """Seen from the second process, which looks for what the first has written on another disk."""
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    finding = check_workdir(str(tmp_path), TINY, lambda text: [".clip-jax-doctor-of-the-first", text])
    assert finding.status == "failed"
    assert "is not seen here" in finding.seen
