"""Multiple choice against float64 NumPy, image by image."""

from dataclasses import replace

import numpy as np
import pytest

from clip_jax.clip import create
from clip_jax.data.scenes import ScenesTable
from clip_jax.evaluation.features import embed_table
from clip_jax.evaluation.multiple_choice import choose, with_each_class


@pytest.fixture(scope="module")
def tiny():
    return create("tiny")


@pytest.fixture(scope="module")
def features(tiny):
    return embed_table(tiny, ScenesTable("counts", 12))


def test_each_image_has_choices_of_its_own(tiny, features):
    choices = with_each_class(features)
    truth = np.arange(12) % 2  # not what is drawn, so that right and wrong answers both come
    found = choose(tiny, features, [own[:2] for own in choices], ("first", "second"), truth)
    for row, own in enumerate(choices):
        texts = tiny.encode_text(own[:2], normalize=True).astype(np.float64)
        expected = texts @ features.embeddings[row].astype(np.float64)
        np.testing.assert_allclose(found.scores[row], expected, atol=2e-6)
        assert found.ranking[row, 0] == expected.argmax()
    assert found.chance == 0.5
    assert found.top(1) == np.mean(found.scores.argmax(axis=1) == truth)
    assert 0 < found.top(1) < 1


def test_only_the_name_of_the_class_is_exchanged(features):
    choices = with_each_class(features)
    for captions, label, own in zip(features.captions, features.labels, choices, strict=True):
        number, rest = captions[0].split(" ", 1)
        assert number == ("two", "three", "four")[label]
        assert own == [f"two {rest}", f"three {rest}", f"four {rest}"]


def test_a_name_is_a_whole_word(features):
    one = features.take(np.arange(12) == 0)
    told = replace(one, captions=(("twofold stars.", "to stars, two."),))
    assert with_each_class(told) == [["to stars, two.", "to stars, three.", "to stars, four."]]
    with pytest.raises(ValueError, match="no caption of counts-0000000 names its class, 'two'"):
        with_each_class(replace(one, captions=(("twofold stars.",),)))


def test_choices_must_fit(tiny, features):
    for choices in ([["a", "b"]] * 11, [["a", "b", "c"]] * 12, [["a", "b"]] * 11 + [["a"]]):
        with pytest.raises(ValueError, match="every image needs its choices"):
            choose(tiny, features, choices, ("first", "second"), np.zeros(12, int))
