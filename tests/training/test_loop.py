"""The training loop's refusals: a run that diverged, a checkpoint that is damaged or of another model."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.short_run import SHORT

import clip_jax
from clip_jax.cli import train as cli_train
from clip_jax.data.scenes import ScenesTable
from clip_jax.data.table import usable
from clip_jax.errors import UserError
from clip_jax.training import config_file, resumption
from clip_jax.training.config import (
    LogConfig,
    OptimizerConfig,
)
from clip_jax.training.loop import train
from clip_jax.training.metrics import read_metrics
from clip_jax.weights.folders import CHECKPOINTS
from clip_jax.weights.orbax_checkpoints import complete_steps
from clip_jax.weights.tree import flatten

CONFIG = replace(SHORT, log=LogConfig(every=4, tensorboard=False))


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("run") / "finished"
    train(CONFIG, workdir)
    return workdir


def test_a_run_that_diverges_keeps_its_good_checkpoints(tmp_path):
    """It is ended at its step, though nothing is logged before the last."""
    log = LogConfig(every=6, tensorboard=False)
    config = replace(CONFIG, optimizer=OptimizerConfig(learning_rate=1e30, warmup=4), log=log)
    with pytest.raises(UserError, match=r"is (nan|inf) at step [1-5]; try a lower optimizer.learning_rate"):
        train(config, tmp_path)
    assert complete_steps(tmp_path / CHECKPOINTS) in ([], [2])


@pytest.mark.slow
def test_a_masked_run_resumes_with_the_same_patches_and_tail(tmp_path):
    """Killed after its second update of six, of which the last two see all patches; an average is kept too."""
    model = replace(CONFIG.model, patch_dropout=0.5, unmasked_tail=2)
    log = LogConfig(every=1, tensorboard=False)
    config = replace(CONFIG, model=model, optimizer=OptimizerConfig(ema=0.9), log=log)
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    train(config, whole)
    shutil.copytree(whole, resumed)
    for later in ("4", "6"):
        shutil.rmtree(resumed / CHECKPOINTS / later)
    lines = (resumed / "metrics.jsonl").read_text().splitlines(keepends=True)
    (resumed / "metrics.jsonl").write_text("".join(lines[:2]))
    train(config, resumed)
    here, there = (read_metrics(workdir) for workdir in (resumed, whole))
    assert [line["step"] for line in here] == [1, 2, 3, 4, 5, 6]
    assert [line["loss"] for line in here] == [line["loss"] for line in there]
    ours, theirs = (flatten(clip_jax.load(workdir).params) for workdir in (resumed, whole))
    for name, leaf in ours.items():
        np.testing.assert_array_equal(leaf, theirs[name], err_msg=name)


@pytest.fixture(autouse=True)
def at_once(monkeypatch) -> None:
    """What cannot be read is read again without a pause."""
    monkeypatch.setattr(resumption, "PAUSES", (0.0,))


def damage(workdir: Path, *steps: int) -> None:
    for step in steps:
        for path in (workdir / CHECKPOINTS / str(step)).rglob("*"):
            if path.is_file() and path.name not in ("commit_success.txt", "_CHECKPOINT_METADATA"):
                path.write_bytes(path.read_bytes()[:10])


@pytest.mark.parametrize("what", ["everything", "arrays"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(finished, tmp_path, what):
    workdir = tmp_path / "damaged"
    shutil.copytree(finished, workdir)
    if what == "everything":
        damage(workdir, 6)
    else:
        for path in (workdir / CHECKPOINTS / "6/state").glob("ocdbt.process_0/d/*"):
            path.unlink()
    with pytest.warns(UserWarning, match=r"checkpoint 6 in .* cannot be read .* now DAMAGED-6, .* from step 4") as said:
        resumed = train(CONFIG, workdir)
    assert [str(warning.message) for warning in said if "\n" in str(warning.message)] == []
    assert (workdir / CHECKPOINTS / "DAMAGED-6" / "state").is_dir()
    assert complete_steps(workdir / CHECKPOINTS) == [2, 4, 6]
    ours, theirs = flatten(resumed.params), flatten(clip_jax.load(finished).params)
    for name, leaf in ours.items():
        np.testing.assert_array_equal(leaf, theirs[name], err_msg=name)


def test_where_every_checkpoint_is_damaged_none_is_moved(finished, tmp_path):
    workdir = tmp_path / "damaged"
    shutil.copytree(finished, workdir)
    damage(workdir, 2, 4, 6)
    for use in (lambda: train(CONFIG, workdir), lambda: clip_jax.load(workdir)):
        with pytest.raises(UserError, match=r"checkpoint 6 in .* cannot be read .*; nor can the older ones") as raised:
            use()
        assert "\n" not in str(raised.value)
    assert complete_steps(workdir / CHECKPOINTS) == [2, 4, 6]


def test_changed_data_is_not_resumed(finished, tmp_path):
    workdir = tmp_path / "changed"
    shutil.copytree(finished, workdir)
    begun_with = {CONFIG.data.source: {"scenes": [48, "digest"]}}
    (workdir / "data.json").write_text(json.dumps(begun_with))
    with pytest.raises(UserError, match="has changed since the run in"):
        train(CONFIG, workdir)


def test_a_finished_run_says_so_without_its_metrics(finished, tmp_path, monkeypatch, capsys):
    workdir = tmp_path / "finished"
    shutil.copytree(finished, workdir)
    (workdir / "metrics.jsonl").unlink()
    monkeypatch.setattr(config_file, "load_config", lambda *_: CONFIG)
    cli_train.run(["--config=any", f"--workdir={workdir}", f"--json={tmp_path / 'out.json'}"])
    assert capsys.readouterr().out == f"trained to step 6 in {workdir}\n"
    assert json.loads((tmp_path / "out.json").read_text()) == {"step": 6}


def test_a_workdir_loads_as_a_model(finished):
    trained = train(CONFIG, finished)  # finished already: nothing is trained again
    loaded = clip_jax.load(finished)
    assert loaded.config == trained.config
    here, there = (clip.classify(image(), ["red star", "blue ring"]) for clip in (loaded, trained))
    assert here == pytest.approx(there, abs=1e-5)


def image() -> bytes:
    return usable(ScenesTable("held_out", 1).read([0]))[0].image
