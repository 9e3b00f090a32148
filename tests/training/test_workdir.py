"""A workdir belongs to one run; another one is refused and nothing there changes."""

import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from clip_jax.errors import UserError
from clip_jax.sharding import MeshConfig
from clip_jax.training.config import DataConfig, LossConfig, TrainConfig
from clip_jax.training.workdir import check, locate
from clip_jax.training.workdir import claim as claim_checked

CONFIG = TrainConfig(data=DataConfig("scenes:train"))


def claim(workdir, config) -> None:
    check(workdir, config)
    claim_checked(workdir, config)


def test_the_same_run_may_come_back(tmp_path):
    claim(tmp_path / "run", CONFIG)
    before = (tmp_path / "run" / "config.json").read_bytes()
    claim(tmp_path / "run", CONFIG)
    assert (tmp_path / "run" / "config.json").read_bytes() == before


def test_how_a_run_is_computed_may_change(tmp_path):
    claim(tmp_path, CONFIG)
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 1.0}\n')
    model = replace(CONFIG.model, remat="block")
    claim(
        tmp_path, replace(CONFIG, mesh=MeshConfig(fsdp=4), microbatches=2, model=model, loss=LossConfig(method="ring"))
    )
    for other in (replace(CONFIG, loss=LossConfig(kind="sigmoid")), replace(CONFIG, model=replace(model, name="tiny"))):
        with pytest.raises(UserError, match="another run"):
            claim(tmp_path, other)


def test_a_config_from_before_a_key_goes_on_with_its_default(tmp_path):
    claim(tmp_path, CONFIG)
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 1.0}\n')
    older = json.loads((tmp_path / "config.json").read_text())
    del older["model"]["patch_dropout"], older["optimizer"]["ema"]
    (tmp_path / "config.json").write_text(json.dumps(older))
    with pytest.raises(UserError, match=r"config\.optimizer\.ema is null there and 0\.9 here"):
        claim(tmp_path, replace(CONFIG, optimizer=replace(CONFIG.optimizer, ema=0.9)))
    claim(tmp_path, CONFIG)


def test_a_run_that_never_began_gives_way(tmp_path):
    claim(tmp_path, CONFIG)
    (tmp_path / "metrics.jsonl").write_text("")
    other = replace(CONFIG, data=DataConfig("scenes:held_out"))
    claim(tmp_path, other)
    assert "scenes:held_out" in (tmp_path / "config.json").read_text()


def test_another_run_is_refused_by_what_differs(tmp_path):
    claim(tmp_path, CONFIG)
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 1.0}\n')
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    other = replace(CONFIG, seed=1, optimizer=replace(CONFIG.optimizer, learning_rate=1.0))
    with pytest.raises(UserError) as raised:
        claim(tmp_path, other)
    message = str(raised.value)
    assert "config.seed is 0 there and 1 here" in message
    assert "config.optimizer.learning_rate is 0.0005 there and 1.0 here" in message
    assert "steps" not in message
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("name", ["metrics.jsonl", "checkpoints"])
def test_what_is_not_a_run_is_refused(tmp_path, name):
    (tmp_path / name).write_text("somebody's")
    with pytest.raises(UserError, match=name):
        claim(tmp_path, CONFIG)
    assert (tmp_path / name).read_text() == "somebody's"
    assert not (tmp_path / "config.json").exists()


def test_a_file_is_no_workdir(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="is a file"):
        claim(tmp_path / "file", CONFIG)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_place_where_nothing_can_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        claim(tmp_path / "file" / "run", CONFIG)


@pytest.fixture
def read_only() -> Iterator[Path]:
    """A folder that this user may not write to, who is not root for that long."""
    with tempfile.TemporaryDirectory() as folder:  # not tmp_path, which only its owner may enter
        Path(folder).chmod(0o555)
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)
        try:
            yield Path(folder)
        finally:
            os.seteuid(user)
            Path(folder).chmod(0o700)


def test_a_read_only_workdir(read_only):
    for workdir in (read_only, read_only / "run"):
        with pytest.raises(UserError, match=f"^cannot write to the workdir {workdir}: Permission denied$") as raised:
            claim(workdir, CONFIG)
        assert raised.value.exit_code == 2
    assert list(read_only.iterdir()) == []


def test_the_placeholder(tmp_path):
    assert locate("tar:{workdir}/a/{0..3}.tar", tmp_path) == f"tar:{tmp_path}/a/{{0..3}}.tar"
