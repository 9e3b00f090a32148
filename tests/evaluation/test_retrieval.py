"""Ranks against a sort of the whole similarity matrix in float64, and recalls against CLIP_benchmark's definition."""

import numpy as np
import pytest
from support.tables import ListTable

from clip_jax.clip import create
from clip_jax.data.scenes import ScenesTable
from clip_jax.data.table import Sample, usable
from clip_jax.errors import UserError
from clip_jax.evaluation import retrieval as retrievals
from clip_jax.evaluation.retrieval import RetrievalResult, ranks, retrieval


def unit(rng, *shape) -> np.ndarray:
    values = rng.normal(size=shape).astype(np.float32)
    return values / np.linalg.norm(values, axis=-1, keepdims=True)


def sorted_ranks(scores: np.ndarray, is_own: np.ndarray) -> np.ndarray:
    """Of each row, the first place in order of score that holds one of its own."""
    order = np.argsort(-scores, axis=1, kind="stable")
    return np.take_along_axis(is_own, order, axis=1).argmax(axis=1)


def assert_ranks(images: np.ndarray, texts: np.ndarray, image_of: np.ndarray) -> None:
    """Both directions' are those of the whole matrix in float64."""
    found = ranks(images, texts, image_of)
    scores = images.astype(np.float64) @ texts.T.astype(np.float64)
    is_own = np.arange(len(images))[:, None] == image_of[None]
    expected = sorted_ranks(scores, is_own), sorted_ranks(scores.T, is_own.T)
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])
    assert min(len(np.unique(one)) for one in expected) > 10


@pytest.mark.parametrize("at_once", [2**21, 1000, 1])
@pytest.mark.parametrize("most", [5, 150])
def test_ranks(at_once, most, monkeypatch):
    monkeypatch.setattr(retrievals, "SCORES_AT_ONCE", at_once)  # 1000: in five blocks or more, 1: an image at a time
    rng = np.random.default_rng(0)
    counts = rng.integers(1, 6, 90)
    counts[50] = most
    image_of = np.repeat(np.arange(90), counts)
    assert_ranks(unit(rng, 90, 12), unit(rng, len(image_of), 12), image_of)


@pytest.mark.parametrize("at_once", [2**21, 1000])
def test_ranks_of_many_equal_scores(at_once, monkeypatch):
    monkeypatch.setattr(retrievals, "SCORES_AT_ONCE", at_once)
    rng = np.random.default_rng(0)
    image_of = np.repeat(np.arange(90), rng.integers(1, 6, 90))
    images, texts = (rng.integers(-1, 2, (rows, 6)).astype(np.float32) for rows in (90, len(image_of)))
    assert_ranks(images, texts, image_of)  # of whole numbers, which float32 multiplies exactly


def test_of_equal_scores_the_first_is_the_higher():
    images = np.eye(3, dtype=np.float32)
    texts = np.array([[1, 0, 0], [1, 0, 0], [0, 0, 1]], np.float32)
    to_text, to_image = ranks(images, texts, np.arange(3))
    assert to_text.tolist() == [0, 1, 0]  # the second image scores 0 with all texts; its own is the second
    assert to_image.tolist() == [0, 1, 0]


def test_figures():
    result = RetrievalResult(np.array([0, 4, 9, 10]), np.array([0, 0, 5, 20, 1]), np.array([0, 0, 1, 2, 3]))
    assert result.metrics() == {
        "image_to_text_recall_at_1": 0.25,
        "image_to_text_recall_at_5": 0.5,
        "image_to_text_recall_at_10": 0.75,
        "image_to_text_median_rank": 7.5,
        "text_to_image_recall_at_1": 0.4,
        "text_to_image_recall_at_5": 0.6,
        "text_to_image_recall_at_10": 0.8,
        "text_to_image_median_rank": 2,
    }
    low, high = result.interval("text_to_image_recall_at_5")
    assert 0 <= low < 0.6 < high <= 1


@pytest.fixture(scope="module")
def tiny():
    return create("tiny")


def test_a_table_with_several_captions_an_image(tiny):
    samples = usable(ScenesTable("train", 12).read(range(12)))
    samples[5] = Sample(samples[5].key, samples[5].image, ())
    result = retrieval(tiny, ListTable(samples), prefix="a photo of ")
    assert [(bad.key, bad.cause) for bad in result.bad] == [(samples[5].key, "no caption")]
    kept = [sample for sample in samples if sample.captions]
    texts = ["a photo of " + caption for sample in kept for caption in sample.captions]
    image_of = np.repeat(np.arange(11), [len(sample.captions) for sample in kept])
    images = tiny.encode_image([sample.image for sample in kept], normalize=True).astype(np.float64)
    scores = images @ tiny.encode_text(texts, normalize=True).T.astype(np.float64)
    is_own = np.arange(11)[:, None] == image_of[None]
    np.testing.assert_array_equal(result.image_to_text, sorted_ranks(scores, is_own))


def test_without_captions(tiny):
    samples = [Sample(one.key, one.image, (), 0) for one in usable(ScenesTable("train", 3).read(range(3)))]
    with pytest.raises(UserError, match="no captions"):
        retrieval(tiny, ListTable(samples))
