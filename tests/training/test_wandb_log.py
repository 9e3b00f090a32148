"""What is told to Weights & Biases, for whose package a stand-in keeps it."""

import inspect
import sys
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from clip_jax.errors import UserError
from clip_jax.training.config import DataConfig, LogConfig, TrainConfig
from clip_jax.training.preemption import Stopped
from clip_jax.training.run_log import RunLog
from clip_jax.training.wandb_log import WandbLog

CONFIG = TrainConfig(data=DataConfig("scenes:train"), log=LogConfig(tensorboard=False, wandb="project"))


class StandIn:
    """A module and the run that it begins."""

    def __init__(self) -> None:
        self.begun: list[dict[str, Any]] = []
        self.logged: list[tuple[int, dict[str, float]]] = []
        self.ended: list[int] = []

    def init(self, *, project: str, id: str, name: str, resume: str, config: dict, dir: str | None):
        self.begun.append({"project": project, "id": id, "name": name, "resume": resume, "seed": config["seed"]})
        return SimpleNamespace(
            log=lambda data, step: self.logged.append((step, data)),
            finish=lambda exit_code: self.ended.append(exit_code),
        )


@pytest.fixture
def wandb(monkeypatch) -> StandIn:
    stand_in = StandIn()
    monkeypatch.setitem(sys.modules, "wandb", stand_in)
    return stand_in


def test_attempts_go_on_with_one_run(tmp_path, wandb):
    (tmp_path / "run").mkdir()
    for step in (1, 2):
        with RunLog(CONFIG, tmp_path / "run", start=step - 1) as log:
            log.evaluation(step, {"eval/a/top1": 0.5, "eval/a/top5": float("nan")})
    first, second = wandb.begun
    assert first == second
    assert first == {"project": "project", "id": first["id"], "name": "run", "resume": "allow", "seed": 0}
    assert wandb.logged == [(1, {"eval/a/top1": 0.5}), (2, {"eval/a/top1": 0.5})]
    assert wandb.ended == [0, 0]


@pytest.mark.parametrize(
    ("error", "code"), [(ValueError(), 1), (UserError(), 1), (KeyboardInterrupt(), 1), (Stopped(), 0)]
)
def test_a_run_that_crashed_is_shown_so(tmp_path, wandb, error, code):
    with pytest.raises(type(error)), RunLog(CONFIG, tmp_path, start=0):
        raise error
    assert wandb.ended == [code]


def test_nothing_is_told_without_a_project_or_by_other_processes(tmp_path, wandb):
    for config, writes in ((CONFIG, False), (replace(CONFIG, log=LogConfig()), True)):
        log = WandbLog(config, tmp_path, writes)
        log.write(1, {"loss": 1.0})
        log.close(failed=False)
    assert wandb.begun == wandb.ended == list(tmp_path.iterdir()) == []


def test_a_failure_to_begin_is_one_line(tmp_path, wandb, monkeypatch):
    def refuse(**_: object) -> None:
        raise RuntimeError("api_key not configured\nand so on")

    monkeypatch.setattr(wandb, "init", refuse)
    with pytest.raises(
        UserError, match=r"^Weights & Biases cannot begin a run: api_key not configured; try `wandb login`$"
    ):
        RunLog(CONFIG, tmp_path, start=0)


def test_the_package_takes_what_it_is_told():
    wandb = pytest.importorskip("wandb")
    inspect.signature(wandb.init).bind(project="a", id="b", name="c", resume="allow", config={}, dir=None)
    inspect.signature(wandb.Run.log).bind(None, {}, step=1)
    inspect.signature(wandb.Run.finish).bind(None, exit_code=1)
