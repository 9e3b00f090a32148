"""Evaluations within a run: when they come, what they give, and which figure may be called the best."""

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from support.short_run import SHORT
from support.tables import ListTable
from threadpoolctl import threadpool_limits

from clip_jax.clip import Clip
from clip_jax.data.spec import open_table
from clip_jax.data.table import BadSample, Sample, Table
from clip_jax.errors import UserError
from clip_jax.evaluation.features import Features, embed_table
from clip_jax.evaluation.metrics import mean_per_class
from clip_jax.evaluation.probes.few_shot import STRENGTH
from clip_jax.evaluation.probes.labelled_features import LabelledFeatures, rank_within_class
from clip_jax.evaluation.probes.linear_probe import linear_probe
from clip_jax.evaluation.probes.records import labelled
from clip_jax.evaluation.probes.ridge import ridge
from clip_jax.evaluation.retrieval import retrieve_features
from clip_jax.evaluation.zero_shot import classify_features
from clip_jax.inputs.prompts import prompts_of
from clip_jax.presets import get_config
from clip_jax.training.config import CheckpointConfig
from clip_jax.training.evaluate_config import (
    EvaluateConfig,
    FewShotTask,
    LinearProbeTask,
    ProbeTask,
    RetrievalTask,
    RobustnessTask,
    ZeroShotTask,
)
from clip_jax.training.evaluations import check_best, evaluate, evaluation_steps
from clip_jax.training.loop import train

SEEN, PROBE, TRAIN = "scenes:held_out?images=48", "scenes:probe?images=64", "scenes:train?images=12"
CLASSES = open_table(SEEN).class_names
SYNONYMS = tuple((name, f"{name.split()[1]} in {name.split()[0]}") for name in CLASSES)
EVERYTHING = EvaluateConfig(
    zero_shot={"seen": ZeroShotTask(SEEN), "named": ZeroShotTask(SEEN, class_names=SYNONYMS, metric="mean_top1_top5")},
    retrieval={"found": RetrievalTask(TRAIN, "a picture: ")},
    probe={"probe": ProbeTask(PROBE, SEEN)},
    linear_probe={"linear": LinearProbeTask(PROBE, SEEN, validation=SEEN, metric="mean_per_class")},
    few_shot={"few": FewShotTask(PROBE, SEEN, shots=(64, 1), seeds=2)},
    robustness={"robust": RobustnessTask(SEEN, {"probe": PROBE, "again": SEEN}, templates=("one {}.",))},
)
PROJECTION = np.random.default_rng(38).normal(size=(27, 16)).astype(np.float32)


class StandIn(Clip):
    """Embeds images by their colours in nine places, and texts by chance, so that there is nothing to compile."""

    def image_features(self, pixels: np.ndarray, batch_size: int = 64) -> tuple[np.ndarray, np.ndarray]:
        colours = pixels.reshape(len(pixels), 3, 16, 3, 16, 3).mean(axis=(2, 4)).reshape(len(pixels), 27)
        return colours @ PROJECTION, colours

    def encode_text(self, texts: Any, normalize: bool = False, batch_size: int = 256) -> np.ndarray:
        drawn = [np.random.default_rng(zlib.crc32(text.encode())).normal(size=16) for text in texts]
        return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)

    def class_embeddings(self, labels: Sequence, templates: Sequence[str] | None = None) -> np.ndarray:
        numbers, texts = zip(*prompts_of(labels, templates), strict=True)
        sums = np.stack([self.encode_text(texts)[np.array(numbers) == one].sum(axis=0) for one in range(len(labels))])
        return sums / np.linalg.norm(sums, axis=1, keepdims=True)


@cache
def tables() -> dict[str, Table]:
    """Of the images that are seen, one is bad and one has no label."""
    found: dict[str, Table] = {}
    for data in EVERYTHING.data:
        opened = open_table(data)
        samples = [sample for sample in opened.read(range(len(opened))) if isinstance(sample, Sample)]
        bad = [replace(samples[-2], label=None), BadSample("x", "no image", "it has no image")]
        found[data] = table = ListTable([*samples[:-2], *bad] if data == SEEN else samples)
        table.class_names = opened.class_names
    return found


@dataclass(frozen=True)
class Evaluated:
    """A model's figures in all tasks, and the features that they come from, embedded apart."""

    clip: Clip
    features: Mapping[str, Features]
    figures: Mapping[str, float]

    def of(self, task: str) -> dict[str, float]:
        prefix = f"eval/{task}/"
        return {name.removeprefix(prefix): value for name, value in self.figures.items() if name.startswith(prefix)}

    def labelled(self, data: str) -> LabelledFeatures:
        return labelled(self.features[data], CLASSES)


@pytest.fixture(scope="module")
def evaluated() -> Evaluated:
    clip = StandIn(get_config("tiny"), {"logit_scale": np.float32(4.6)})
    with pytest.warns(UserWarning, match="1 cannot be used"):
        figures = evaluate(EVERYTHING, clip, tables())
    with pytest.warns(UserWarning, match="1 cannot be used"):
        features = {data: embed_table(clip, table) for data, table in tables().items()}
    return Evaluated(clip, features, figures)


def test_zero_shot_and_retrieval_give_what_they_give_alone(evaluated):
    with pytest.warns(UserWarning, match="1 cannot be used"):
        alone = classify_features(evaluated.clip, evaluated.features[SEEN])
    assert evaluated.of("seen") == {"accuracy": alone.top(1), **alone.metrics(), "left_out": 2}
    figures = retrieve_features(evaluated.clip, evaluated.features[TRAIN], "a picture: ").metrics()
    mean = (figures["image_to_text_recall_at_1"] + figures["text_to_image_recall_at_1"]) / 2
    assert evaluated.of("found") == {"mean_recall_at_1": pytest.approx(mean), **figures}


def test_a_task_whose_data_is_at_fault_does_not_end_the_run(evaluated):
    rest = [sample for sample in tables()[PROBE].read(range(64)) if isinstance(sample, Sample) and sample.label != 0]
    lacking = ListTable(rest)
    lacking.class_names = CLASSES
    config = EvaluateConfig(
        probe={"probe": ProbeTask(PROBE, SEEN)}, few_shot={"few": FewShotTask(PROBE, SEEN, shots=(1,), seeds=1)}
    )
    told = f"config.evaluate.few_shot.few gives no figures: the class '{CLASSES[0]}' has no training images"
    with pytest.warns(UserWarning, match="1 cannot be used"), pytest.warns(UserWarning, match=told):
        figures = evaluate(config, evaluated.clip, {SEEN: tables()[SEEN], PROBE: lacking})
    assert figures.keys() == {"eval/probe/ridge_probe", "eval/probe/left_out"}


def test_class_names_and_a_metric(evaluated):
    classifier = evaluated.clip.class_embeddings(SYNONYMS)
    part = evaluated.features[SEEN]
    used = part.labels >= 0
    own = (part.embeddings @ classifier.T)[used, part.labels[used]]
    rank = ((part.embeddings @ classifier.T)[used] > own[:, None]).sum(axis=1)
    found = evaluated.of("named")
    assert found["mean_top1_top5"] == pytest.approx(((rank < 1).mean() + (rank < 5).mean()) / 2)
    assert found["top5"] == pytest.approx((rank < 5).mean())


@pytest.mark.filterwarnings("ignore:The number of unique classes")  # scikit-learn's, of one example each
def test_probes_give_what_scikit_learn_gives(evaluated):
    seen, asked = evaluated.labelled(PROBE), evaluated.labelled(SEEN)
    ridge_alone = RidgeClassifier(alpha=ridge(seen).strength).fit(seen.features.astype(np.float64), seen.labels)
    expected = ridge_alone.score(asked.features.astype(np.float64), asked.labels)
    assert evaluated.of("probe") == {"ridge_probe": pytest.approx(expected), "left_out": 2}

    strength = linear_probe(seen, asked, asked, mean_per_class).strength
    right = fitted(strength, seen, asked).predict(asked.features) == asked.labels
    expected = np.mean([right[asked.labels == one].mean() for one in np.unique(asked.labels)])
    assert evaluated.of("linear") == {"mean_per_class": pytest.approx(expected), "left_out": 4}

    each = [seen.rows(rank_within_class(seen.labels, seed) < 1) for seed in (0, 1)]
    one = np.mean([fitted(STRENGTH, part).score(asked.features, asked.labels) for part in each])
    everything = fitted(STRENGTH, seen).score(asked.features, asked.labels)
    expected = {"accuracy": everything, "shots_1": one, "shots_64": everything, "left_out": 2}
    assert evaluated.of("few") == pytest.approx(expected)


def fitted(strength: float, *parts: LabelledFeatures) -> LogisticRegression:
    features, labels = (np.concatenate([getattr(part, name) for part in parts]) for name in ("features", "labels"))
    with threadpool_limits(1):
        model = LogisticRegression(C=1 / strength, solver="newton-cholesky", tol=1e-10)
        return model.fit(features.astype(np.float64), labels)


def test_robustness_gives_what_zero_shot_gives(evaluated):
    classifier = evaluated.clip.class_embeddings(CLASSES, ("one {}.",))

    def accuracy(data: str) -> float:
        part = evaluated.features[data]
        answers = (part.embeddings @ classifier.T).argmax(axis=1)
        return float((answers == part.labels)[part.labels >= 0].mean())

    base, shift = accuracy(SEEN), accuracy(PROBE)
    assert base != shift
    assert evaluated.of("robust") == pytest.approx(
        {
            "accuracy": base,
            "mean_of_shifts": (base + shift) / 2,
            "base_on_the_same_classes": base,
            "shift_probe": shift,
            "shift_again": base,
            "left_out": 4,
        }
    )


def test_when_they_come():
    config = replace(SHORT, steps=1000, batch_size=8, evaluate=EvaluateConfig(every=50))
    assert evaluation_steps(config, 400) == 50
    assert evaluation_steps(replace(config, evaluate=EvaluateConfig(every=0.25)), 400) == 250
    assert evaluation_steps(replace(config, evaluate=EvaluateConfig(epochs=0.5)), 400) == 25
    assert evaluation_steps(replace(config, evaluate=EvaluateConfig(epochs=0.001)), 400) == 1


@pytest.mark.slow
def test_a_run_logs_them(tmp_path, capsys):
    best = CheckpointConfig(best="eval/few/shots_64")
    config = replace(SHORT, evaluate=replace(EVERYTHING, epochs=0.8), checkpoint=best)
    train(config, tmp_path)  # 40 images in batches of 8: every fourth step
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    for name in (
        *("seen/top1", "named/mean_top1_top5", "found/text_to_image_recall_at_1"),
        *("probe/ridge_probe", "linear/mean_per_class", "few/shots_1", "robust/shift_probe"),
    ):
        assert [line["step"] for line in lines if f"eval/{name}" in line] == [4, 6]
    told = capsys.readouterr().err
    for figure in ("seen accuracy", "linear mean_per_class", "few accuracy", "robust accuracy"):
        assert told.count(figure) == 2


@pytest.mark.parametrize(
    "figure",
    [
        *("seen/top1", "named/mean_top1_top5", "found/mean_recall_at_1", "probe/ridge_probe"),
        *("linear/mean_per_class", "few/accuracy", "few/shots_64", "robust/mean_of_shifts", "robust/shift_again"),
    ],
)
def test_the_best_may_be_any_of_them(figure):
    check_best(CheckpointConfig(best=f"eval/{figure}"), EVERYTHING, tables())


@pytest.mark.parametrize(
    "figure",
    [
        "seen/calibration_error",
        "found/image_to_text_median_rank",
        "seen/left_out",
        "linear/accuracy",
        "few/shots_2",
        "x",
    ],
)
def test_the_best_is_what_is_higher(figure):
    with pytest.raises(UserError, match=f"best is 'eval/{figure}', which no evaluation gives; valid are eval/seen/acc"):
        check_best(CheckpointConfig(best=f"eval/{figure}"), EVERYTHING, tables())


def test_the_best_is_one_of_what_they_give(evaluated):
    with pytest.raises(UserError, match="valid are ") as caught:
        check_best(CheckpointConfig(best="x"), EVERYTHING, tables())
    lower = {name for name in evaluated.figures if name.endswith(("calibration_error", "median_rank", "left_out"))}
    assert str(caught.value).partition("valid are ")[2].split(", ") == [
        name for name in evaluated.figures if name not in lower
    ]
