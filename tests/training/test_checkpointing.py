"""When checkpoints are saved and which stay; and what a run that is asked to stop leaves behind."""

import os
import signal
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from support.short_run import SHORT
from support.tables import ListTable

import clip_jax
from clip_jax.data.scenes import ScenesTable
from clip_jax.errors import UserError
from clip_jax.training import checkpointing, loop
from clip_jax.training.agreement import Vote
from clip_jax.training.checkpointing import Checkpoints
from clip_jax.training.config import CheckpointConfig
from clip_jax.training.evaluate_config import EvaluateConfig, ZeroShotTask
from clip_jax.training.evaluations import check_best
from clip_jax.training.loop import train
from clip_jax.training.metrics import read_metrics
from clip_jax.training.preemption import Stopped, StopSignals
from clip_jax.weights.folders import CHECKPOINTS
from clip_jax.weights.orbax_checkpoints import complete_steps
from clip_jax.weights.tree import flatten

HELD_OUT = "scenes:held_out?images=48&size=48"
CONFIG = replace(
    SHORT,
    checkpoint=CheckpointConfig(every=6, keep=1, best="eval/seen/top1"),
    evaluate=EvaluateConfig(every=1, zero_shot={"seen": ZeroShotTask(HELD_OUT)}),
)
VALUES = [0.2, 0.7, 0.1, 0.3, 0.7, 0.4]
WALL_TIME = {"images_per_second", "images_per_second_per_device", "data_wait"}


def evaluate_as_told(monkeypatch) -> None:
    """Figures that are there at once, for each evaluation the next."""
    made = iter(VALUES)
    monkeypatch.setattr(loop, "evaluate", lambda *_: {"eval/seen/top1": next(made)})


def figures(workdir: Path) -> list[dict]:
    return [{key: line[key] for key in line.keys() - WALL_TIME} for line in read_metrics(workdir)]


def at_step(monkeypatch, step: int, act: Callable[[], None]) -> None:
    """Has something happen while the update of `step` is on its way."""
    steps, follow = iter(range(1, 99)), loop.Watch.follow

    def following(*arguments):
        follow(*arguments)
        if next(steps) == step:
            act()

    monkeypatch.setattr(loop.Watch, "follow", following)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_run_goes_on_as_if_it_had_not_been(tmp_path, monkeypatch, capsys, number):
    """The best checkpoint stays too, though it is not the newest, and lay where none was due."""
    handlers = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)]
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    evaluate_as_told(monkeypatch)
    train(CONFIG, whole)
    assert complete_steps(whole / CHECKPOINTS) == [5, 6]

    with pytest.MonkeyPatch.context() as patch:
        evaluate_as_told(patch)
        at_step(patch, 3, lambda: os.kill(os.getpid(), number))
        with pytest.raises(Stopped) as raised:
            train(CONFIG, stopped)
        assert raised.value.code == 75
        assert f"stopped by {number.name} at step 3 of 6" in capsys.readouterr().err
        assert complete_steps(stopped / CHECKPOINTS) == [2, 3]
        assert [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)] == handlers
        train(CONFIG, stopped)
    assert complete_steps(stopped / CHECKPOINTS) == [5, 6]
    assert figures(stopped) == figures(whole)
    ours, theirs = (flatten(clip_jax.load(workdir).params) for workdir in (stopped, whole))
    for name, leaf in ours.items():
        np.testing.assert_array_equal(leaf, theirs[name], err_msg=name)


def test_a_run_that_is_stopped_before_its_first_update(tmp_path, monkeypatch, capsys):
    """It has nothing to save, and ends as one that has."""
    handler, prepare = signal.getsignal(signal.SIGTERM), loop.prepare

    def preparing(*arguments):
        signal.raise_signal(signal.SIGTERM)
        return prepare(*arguments)

    monkeypatch.setattr(loop, "prepare", preparing)
    monkeypatch.setattr(loop, "make_step", None)  # nothing is trained
    with pytest.raises(Stopped) as raised:
        train(CONFIG, tmp_path)
    assert raised.value.code == 75
    assert "stopped by SIGTERM at step 0 of 6, before an update" in capsys.readouterr().err
    assert complete_steps(tmp_path / CHECKPOINTS) == []
    assert signal.getsignal(signal.SIGTERM) == handler


def test_a_second_signal_does_what_it_always_did():
    before = signal.getsignal(signal.SIGINT)  # ignored, where the tests run behind a shell
    signals = StopSignals()
    try:
        assert signals.received is None
        signal.raise_signal(signal.SIGTERM)
        assert signals.received == "SIGTERM"
        assert signal.getsignal(signal.SIGTERM) == signal.getsignal(signal.SIGINT) == signal.SIG_DFL
    finally:
        signals.close()
    assert signal.getsignal(signal.SIGINT) == before != signal.SIG_DFL


def test_signals_are_left_alone_outside_of_the_main_thread():
    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=lambda: StopSignals().close())
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGTERM) == before


def test_minutes_are_counted_from_the_last_save(tmp_path, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(checkpointing.time, "monotonic", lambda: now[0])
    checkpoints = Checkpoints(CheckpointConfig(minutes=2.0), tmp_path, {"a": 1})
    votes = []
    for passed in (119.0, 2.0, 2.0):  # asked for once, whenever it comes
        now[0] += passed
        votes.append(checkpoints.vote())
    assert votes == [Vote.GO_ON, Vote.SAVE, Vote.GO_ON]
    now[0] += 100
    checkpoints.save(1, {"step": jnp.int32(1)}, {})
    now[0] += 119
    assert checkpoints.vote() == Vote.GO_ON
    now[0] += 2
    assert checkpoints.vote() == Vote.SAVE
    checkpoints.close()


@pytest.mark.parametrize("minutes", [0.0, -1.0, float("nan")])
def test_minutes_at_fault_are_refused(minutes):
    with pytest.raises(UserError, match=r"config\.checkpoint\.minutes is .* above 0"):
        replace(CONFIG, checkpoint=CheckpointConfig(minutes=minutes))


@pytest.mark.parametrize("name", ["eval/sen/top1", "eval/seen/top2", "eval/two/top5", "loss"])
def test_a_best_that_no_evaluation_gives_is_refused(name):
    tasks = {"seen": ZeroShotTask(HELD_OUT), "two": ZeroShotTask("a", labels=("cat", "dog"))}
    pets = ListTable([])
    pets.class_names = ("cat", "dog")
    tables = {HELD_OUT: ScenesTable("held_out", 48), "a": pets}
    for valid in ("eval/seen/top1", "eval/seen/top5", "eval/two/mean_per_class", None):
        check_best(CheckpointConfig(best=valid), EvaluateConfig(zero_shot=tasks), tables)
    everything = "eval/seen/accuracy, eval/seen/top1, eval/seen/mean_per_class, eval/seen/top5, "
    everything += "eval/two/accuracy, eval/two/top1, eval/two/mean_per_class, eval/two/roc_auc$"
    with pytest.raises(UserError, match=f"'{name}', which no evaluation gives; valid are {everything}"):
        check_best(CheckpointConfig(best=name), EvaluateConfig(zero_shot=tasks), tables)
    with pytest.raises(UserError, match="there are no evaluations"):
        check_best(CheckpointConfig(best=name), EvaluateConfig(), {})
