"""Evaluations within a run: when they come, what they give, and what is refused before the first step."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import RidgeClassifier
from support.short_run import SHORT
from support.tables import ListTable

from clip_jax.clip import create
from clip_jax.data.scenes import ScenesTable
from clip_jax.data.spec import open_table
from clip_jax.data.table import Sample
from clip_jax.errors import UserError
from clip_jax.evaluation.features import embed_table
from clip_jax.evaluation.probes.records import labelled
from clip_jax.evaluation.probes.ridge import ridge
from clip_jax.evaluation.retrieval import retrieval
from clip_jax.evaluation.zero_shot import zero_shot
from clip_jax.training.config import (
    CheckpointConfig,
    EvaluateConfig,
    ProbeTask,
    RetrievalTask,
    TrainConfig,
    ZeroShotTask,
)
from clip_jax.training.evaluations import check_best, check_tasks, evaluate, evaluation_steps
from clip_jax.training.loop import train

SEEN, PROBE, TRAIN = "scenes:held_out?images=48", "scenes:probe?images=96", "scenes:train?images=12"
EVERYTHING = EvaluateConfig(
    zero_shot={"seen": ZeroShotTask(SEEN)},
    retrieval={"found": RetrievalTask(TRAIN, "a picture: ")},
    probe={"probe": ProbeTask(PROBE, SEEN)},
)


def tables(config: EvaluateConfig):
    return {data: open_table(data) for data in config.data}


def test_every_task_gives_what_it_gives_alone():
    clip = create("tiny")
    figures = evaluate(EVERYTHING, clip, tables(EVERYTHING))
    alone = zero_shot(clip, open_table(SEEN), batch_size=256).metrics()
    assert {name: figures[f"eval/seen/{name}"] for name in alone} == pytest.approx(alone, abs=1e-6)
    alone = retrieval(clip, open_table(TRAIN), "a picture: ").metrics()
    assert {name: figures[f"eval/found/{name}"] for name in alone} == alone
    train_features, test_features = (embed_table(clip, open_table(data)) for data in (PROBE, SEEN))
    parts = [labelled(features, train_features.class_names) for features in (train_features, test_features)]
    seen, asked = ((part.features.astype(np.float64), part.labels) for part in parts)
    expected = RidgeClassifier(alpha=ridge(parts[0]).strength).fit(*seen).score(*asked)
    assert figures["eval/probe/ridge_probe"] == pytest.approx(expected, abs=1e-6)
    assert len(figures) == len(set(figures)) == 4 + 8 + 1


def test_when_they_come():
    config = replace(SHORT, steps=1000, batch_size=8, evaluate=EvaluateConfig(every=50))
    assert evaluation_steps(config, 400) == 50
    assert evaluation_steps(replace(config, evaluate=EvaluateConfig(every=0.25)), 400) == 250
    assert evaluation_steps(replace(config, evaluate=EvaluateConfig(epochs=0.5)), 400) == 25
    assert evaluation_steps(replace(config, evaluate=EvaluateConfig(epochs=0.001)), 400) == 1
    with pytest.raises(UserError, match=r"config.evaluate.epochs is 0\.0; it must be above 0"):
        replace(config, evaluate=EvaluateConfig(epochs=0.0))


@pytest.mark.slow
def test_a_run_logs_them(tmp_path):
    config = replace(SHORT, evaluate=replace(EVERYTHING, epochs=0.8))  # 40 images in batches of 8: every fourth step
    train(config, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    for name in ("seen/top1", "found/text_to_image_recall_at_1", "probe/ridge_probe"):
        assert [line["step"] for line in lines if f"eval/{name}" in line] == [4, 6]


def test_what_is_refused(tmp_path):
    other = tmp_path / "other"
    (other / "cat").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(other / "cat/1.png")
    with pytest.raises(UserError, match="two tasks named 'seen'"):
        replace(SHORT, evaluate=replace(EVERYTHING, retrieval={"seen": RetrievalTask(TRAIN)}))
    for task, message in (
        (ZeroShotTask(SEEN, labels=("star",)), "the labels lack"),
        (ZeroShotTask(SEEN, templates=("a photo",)), r"has no \{\}"),
        (ZeroShotTask(SEEN, dataset="cifar11"), "did you mean 'cifar10'"),
        (ZeroShotTask(TRAIN), "this data has no labels"),
    ):
        config = EvaluateConfig(zero_shot={"x": task})
        with pytest.raises(UserError, match=message):
            check_tasks(config, tables(config))
    for data, message in ((TRAIN, "this data has no labels"), (f"folder:{other}", "is in one of them only")):
        config = EvaluateConfig(probe={"x": ProbeTask(data, SEEN)})
        with pytest.raises(UserError, match=message):
            check_tasks(config, tables(config))
    config = EvaluateConfig(retrieval={"x": RetrievalTask(f"folder:{other}")})
    with pytest.raises(UserError, match=r"config.evaluate.retrieval.x needs captions"):
        check_tasks(config, tables(config))


def test_the_best_of_several_labels():
    table = ListTable([Sample("x", b"", (), labels=(0,))])
    table.class_names = ("cat", "dog")
    config = EvaluateConfig(zero_shot={"x": ZeroShotTask("data")})
    check_best(CheckpointConfig(best="eval/x/map_11_point"), config, {"data": table})
    with pytest.raises(UserError, match="valid are eval/x/mean_average_precision"):
        check_best(CheckpointConfig(best="eval/x/mean_per_class"), config, {"data": table})


@pytest.mark.parametrize("best", ["eval/seen/top1", "eval/found/image_to_text_recall_at_5", "eval/probe/ridge_probe"])
def test_the_best_may_be_any_of_them(best):
    check_best(CheckpointConfig(best=best), EVERYTHING, tables(EVERYTHING))


@pytest.mark.parametrize("best", ["eval/seen/calibration_error", "eval/found/image_to_text_median_rank", "eval/x/top1"])
def test_the_best_is_what_is_higher(best):
    with pytest.raises(UserError, match=f"best is '{best}', which no evaluation gives; valid are eval/seen/top1"):
        check_best(CheckpointConfig(best=best), EVERYTHING, tables(EVERYTHING))


def test_a_config_file_can_say_all_this():
    from clip_jax.schema import parse

    values = {
        "data": {"source": "scenes:train?images=8"},
        "evaluate": {"epochs": 1, "probe": {"p": {"train": PROBE, "data": SEEN}}, "retrieval": {"r": {"data": TRAIN}}},
    }
    config = parse(TrainConfig, values, "config")
    assert config.evaluate.data == [TRAIN, SEEN, PROBE]
    assert ScenesTable.from_options("probe", {"images": "96"}).class_names
