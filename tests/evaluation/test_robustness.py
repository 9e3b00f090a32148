"""Robustness with embeddings made by hand, so that every figure can be counted."""

from dataclasses import replace

import numpy as np
import pytest

from clip_jax.clip import Clip
from clip_jax.errors import UserError
from clip_jax.evaluation import question as questions
from clip_jax.evaluation.features import Features
from clip_jax.evaluation.question import Question
from clip_jax.evaluation.robustness import Baseline, Shift, promised, read_baselines, robustness_record
from clip_jax.evaluation.tasks import Subject
from clip_jax.presets import get_config

NAMES = ("cat", "dog", "owl", "fox")


def features(answers: list[int], labels: list[int]) -> Features:
    """Images whose embedding is that of the class that they are answered with, the second best being the next one."""
    embeddings = np.array([np.eye(4)[a] + 0.5 * np.eye(4)[(a + 1) % 4] for a in answers], np.float32)
    count = len(labels)
    return Features(
        class_names=NAMES,
        rows=np.arange(count),
        keys=tuple(map(str, range(count))),
        embeddings=embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True),
        pre_projection=embeddings,
        labels=np.array(labels),
        several=None,
        captions=((),) * count,
    )


@pytest.fixture
def subject(monkeypatch) -> Subject:
    place = {name: number for number, name in enumerate(NAMES)}
    embed = lambda clip, classes, templates, cache: np.eye(4, dtype=np.float32)[[place[one[0]] for one in classes]]  # noqa: E731
    monkeypatch.setattr(questions, "embed_classes", embed)
    return Subject(Clip(get_config("tiny"), {"logit_scale": np.float32(4.6)}), "model", "base", "folder:base")


def named(*names: str) -> Question:
    return Question(tuple((name,) for name in names), np.arange(len(names)))


def test_figures(subject):
    base = features([0, 1, 2, 3, 0, 1], [0, 1, 2, 3, 3, 2])  # the last two are wrong
    same = Shift(features([0, 1, 2, 0], [0, 1, 3, 0]), named(*NAMES))
    # Of fox and cat alone: an image answered owl has fox next; one of cat that is answered dog has neither.
    subset = Shift(replace(features([2, 0, 3], [0, 1, 0]), class_names=("fox", "cat")), named("fox", "cat"))
    record = robustness_record(subject, base, named(*NAMES), {"same": same, "subset": subset})
    shifts = record.details["shifts"]
    assert record.figures["accuracy"] == pytest.approx(4 / 6)
    assert shifts["same"]["figure"] == 0.75
    assert shifts["same"]["base"] == pytest.approx(4 / 6)
    assert shifts["subset"]["figure"] == 1.0
    # The base's images of cat and fox: 0 (cat), 3 (fox) and 4, a fox that is answered cat.
    assert shifts["subset"]["base"] == pytest.approx(2 / 3)
    assert record.figures["mean_of_shifts"] == pytest.approx(0.875)
    assert "effective_robustness" not in record.figures
    assert record.bad == ()


def test_effective_robustness(subject):
    base = features([0, 1, 2, 3, 0], [0, 1, 2, 3, 3])
    baselines = [Baseline("a", 0.5, 0.3), Baseline("b", 0.8, 0.6)]
    record = robustness_record(subject, base, named(*NAMES), {"x": Shift(base, named(*NAMES))}, baselines)
    assert record.figures["effective_robustness"] == pytest.approx(0.8 - 0.6)
    assert promised(0.5, baselines) == pytest.approx(0.3)


def test_a_class_that_the_base_lacks(subject):
    base = features([0, 1], [0, 1])
    with pytest.raises(UserError, match="the shift x has the class 'dog', which the base lacks"):
        robustness_record(subject, base, named("cat", "owl"), {"x": Shift(base, named("cat", "dog"))})


def test_baselines_from_a_file(tmp_path):
    path = tmp_path / "baselines.csv"
    path.write_text("name,base,shifts\nResNet-101,0.762,0.45\n")
    assert read_baselines(path) == [Baseline("ResNet-101", 0.762, 0.45)]
    for wrong, message in (
        ("name,base\na,0.5\n", "the columns name, base, shifts"),
        ("name,base,shifts\na,b,c\n", "the columns"),
        ("name,base,shifts\na,76.2,45\n", r"has a at 76.2, 45.0; accuracies lie within 0 and 1"),
    ):
        path.write_text(wrong)
        with pytest.raises(UserError, match=message):
            read_baselines(path)
