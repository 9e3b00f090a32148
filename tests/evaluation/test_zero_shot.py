"""Zero-shot figures against scikit-learn's on the same answers, and the whole path on labelled images."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import accuracy_score, average_precision_score, balanced_accuracy_score, top_k_accuracy_score
from support.tables import ListTable

from clip_jax.clip import create
from clip_jax.data.folder import FolderTable
from clip_jax.data.scenes import ScenesTable
from clip_jax.data.table import BadSample, Sample, usable
from clip_jax.errors import UserError
from clip_jax.evaluation.features import embed_table
from clip_jax.evaluation.zero_shot import ZeroShotResult, match_labels, score, zero_shot


def unit(rng, *shape) -> np.ndarray:
    values = rng.normal(size=shape).astype(np.float32)
    return values / np.linalg.norm(values, axis=-1, keepdims=True)


def test_figures_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    names = [f"class {i}" for i in range(12)]
    embeddings, classifier = unit(rng, 300, 16), unit(rng, 12, 16)
    truth = rng.choice(12, 300, p=np.arange(1, 13) / 78)  # unequal classes
    result = ZeroShotResult(tuple(names), truth, embeddings @ classifier.T)
    scores = embeddings.astype(np.float64) @ classifier.T.astype(np.float64)
    answers = scores.argmax(axis=1)
    assert result.top(1) == pytest.approx(accuracy_score(truth, answers), abs=1e-12)
    assert result.top(5) == pytest.approx(top_k_accuracy_score(truth, scores, k=5, labels=range(12)), abs=1e-12)
    assert result.mean_per_class == pytest.approx(balanced_accuracy_score(truth, answers), abs=1e-12)
    assert result.chance == pytest.approx(1 / 12)
    assert result.metrics().keys() == {"top1", "top5", "mean_per_class", "calibration_error"}
    logits = 100 * scores
    probabilities = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(result.confidence, probabilities.max(axis=1), rtol=2e-5)


@pytest.mark.parametrize("classes", [3, 12, 400])
def test_the_best_classes_come_in_order(classes):
    scores = np.random.default_rng(0).normal(size=(5000, classes)).astype(np.float32)
    for rounded in (scores, np.round(scores, 1)):  # the latter with many ties
        result = ZeroShotResult(tuple(map(str, range(classes))), np.zeros(5000, int), rounded)
        np.testing.assert_array_equal(result.ranking, np.argsort(-rounded, axis=1, kind="stable")[:, :5])


def test_a_sigmoid_models_answer_has_a_probability_of_its_own():
    scores = np.array([[0.1, 0.2], [-0.3, -0.2]], np.float32)
    result = ZeroShotResult(("a", "b"), np.array([0, 1]), scores, 10.0, -1.0, is_sigmoid=True)
    np.testing.assert_allclose(result.confidence, 1 / (1 + np.exp([-1.0, 3.0])), rtol=1e-6)


def test_several_labels():
    rng = np.random.default_rng(0)
    truth, scores = rng.random((200, 6)) < 0.3, rng.normal(size=(200, 6)).astype(np.float32)
    result = ZeroShotResult(tuple("abcdef"), truth, scores)
    expected = {c: average_precision_score(truth[:, i], scores[:, i]) for i, c in enumerate("abcdef")}
    assert result.per_class() == pytest.approx(expected, abs=1e-12)
    assert result.metrics().keys() == {"mean_average_precision", "map_11_point", "top1"}
    assert result.metrics()["mean_average_precision"] == pytest.approx(np.mean(list(expected.values())), abs=1e-12)
    assert result.metrics()["top1"] == truth[np.arange(200), scores.argmax(axis=1)].mean()
    assert result.figure("map_11_point") == result.metrics()["map_11_point"]
    with pytest.raises(UserError, match="accuracy does not fit images with several labels"):
        result.figure("accuracy")


@pytest.fixture(scope="module")
def tiny():
    return create("tiny")


def test_a_folder_per_class(tiny, tmp_path):
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for i in range(3):
            Image.fromarray(rng.integers(0, 256, (40, 30, 3), dtype=np.uint8)).save(tmp_path / name / f"{i}.png")
    table = FolderTable(tmp_path)
    result = zero_shot(tiny, table, templates=["a {}.", "the {}."])
    paths = [tmp_path / name / f"{i}.png" for name in ("cat", "dog") for i in range(3)]
    answers = tiny.classify(paths, ["cat", "dog"], ["a {}.", "the {}."])
    expected = [max(answer, key=answer.get) for answer in answers]
    assert [result.class_names[row[0]] for row in result.ranking] == expected
    assert list(result.truth) == [0, 0, 0, 1, 1, 1]


def test_further_labels_may_be_given_in_any_order(tiny):
    table = ScenesTable("held_out", 24)
    labels = ["purple dog", *reversed(table.class_names)]
    result = zero_shot(tiny, table, labels)
    assert [result.class_names[c] for c in result.truth] == [table.class_names[i] for i in range(24)]


def test_the_batch_size_does_not_matter(tiny):
    table = ScenesTable("held_out", 30)
    one, other = embed_table(tiny, table, batch_size=7), embed_table(tiny, table, batch_size=64)
    np.testing.assert_allclose(one.embeddings, other.embeddings, atol=2e-6)
    assert list(one.labels) == [i % 24 for i in range(30)]


def test_labels_must_fit_the_data():
    table = ScenesTable("held_out", 24)
    with pytest.raises(UserError, match="lack"):
        match_labels(table.class_names, ["red star"])
    with pytest.raises(UserError, match="no labels"):
        match_labels(ScenesTable("train", 4).class_names)


def labelled(samples: Sequence[Sample | BadSample]) -> ListTable:
    table = ListTable(samples)
    table.class_names = ScenesTable("held_out", 24).class_names
    return table


@pytest.mark.parametrize("batch_size", [4, 64])
def test_bad_samples_are_left_out(tiny, batch_size):
    samples = usable(ScenesTable("held_out", 24).read(range(24)))
    worse: list[Sample | BadSample] = list(samples)
    worse[3] = replace(samples[3], image=samples[3].image[:200])
    worse[4] = BadSample("missing", "no image", "it is gone")
    worse[9] = replace(samples[9], label=None)
    with (
        pytest.warns(UserWarning, match=rf"of 24 images 2 cannot be used, the first is {samples[3].key}: .*truncated"),
        pytest.warns(
            UserWarning, match=rf"of 22 images 1 cannot be used, the first is {samples[9].key}: it has no label"
        ),
    ):
        result = zero_shot(tiny, labelled(worse), batch_size=batch_size)
    expected = zero_shot(tiny, labelled([samples[i] for i in range(24) if i not in (3, 4, 9)]))
    assert [(bad.key, bad.cause) for bad in result.bad] == [
        (samples[3].key, "bad image"),
        ("missing", "no image"),
        (samples[9].key, "bad label"),
    ]
    assert expected.bad == ()
    np.testing.assert_array_equal(result.truth, expected.truth)
    np.testing.assert_array_equal(result.ranking[:, 0], expected.ranking[:, 0])
    assert result.metrics() == pytest.approx(expected.metrics(), abs=1e-6)


def test_without_a_usable_sample_the_first_is_named(tiny, tmp_path):
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat/1.png").touch()
    with pytest.raises(UserError, match=r"^of 1 images 1 cannot be used, the first is cat/1\.png: .*is an empty file$"):
        zero_shot(tiny, FolderTable(tmp_path))


def test_two_classes_of_one_name_stay_two(tiny):
    table = ScenesTable("held_out", 24)
    features = embed_table(tiny, table)
    classifier = tiny.class_embeddings(table.class_names)
    names = ["missile", "missile", *table.class_names[2:]]
    result = score(tiny, features, classifier, names, np.arange(24))
    assert result.class_names[:3] == ("missile (class 0)", "missile (class 1)", table.class_names[2])
    assert len(result.per_class()) == 24
