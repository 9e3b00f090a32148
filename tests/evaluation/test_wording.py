"""Figures of single templates and of their ensembles against float64 NumPy, prompt by prompt."""

import numpy as np
import pytest

from clip_jax.clip import Clip, create
from clip_jax.data.scenes import ScenesTable
from clip_jax.evaluation.features import embed_table
from clip_jax.evaluation.wording import compare_wording

TEMPLATES = ["a {}.", "the {}.", "a {}.", "a drawing of one large {}, which somebody made with a very thick brush."]


def normalised(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


@pytest.fixture(scope="module")
def tiny():
    return create("tiny")


def test_each_template_and_their_ensembles(tiny, monkeypatch):
    table = ScenesTable("held_out", 96)
    features = embed_table(tiny, table)
    # Some have two names, and one template stands twice: it counts twice where they are averaged, but is told once.
    classes = [[name, f"{name} shape"] if place % 3 else [name] for place, name in enumerate(table.class_names)]
    prompts = [[[one.replace("{}", name) for name in names] for names in classes] for one in TEMPLATES]
    distinct = sorted({prompt for several in prompts for names in several for prompt in names})
    embedding = dict(zip(distinct, tiny.encode_text(distinct, normalize=True).astype(np.float64), strict=True))
    by_name = [[np.stack([embedding[prompt] for prompt in names]) for names in several] for several in prompts]
    images, scale = features.embeddings.astype(np.float64), float(tiny.logit_scale)

    seen = []
    tokenize = Clip.tokenize
    monkeypatch.setattr(Clip, "tokenize", lambda self, texts: seen.extend(texts) or tokenize(self, texts))
    found = compare_wording(tiny, features, classes, np.arange(24), TEMPLATES)
    assert sorted(seen) == distinct  # each once

    logits = [scale * images @ normalised(np.stack([names.mean(axis=0) for names in several])).T for several in by_name]
    right = {
        template: (one.argmax(axis=1) == features.labels).mean()
        for template, one in zip(TEMPLATES, logits, strict=True)
    }
    assert found.by_template == pytest.approx(right)
    assert len(set(right.values())) > 1
    of_class = [np.concatenate(names).mean(axis=0) for names in zip(*by_name, strict=True)]
    together = images @ normalised(np.stack(of_class)).T
    np.testing.assert_allclose(found.answer.scores, together, atol=2e-6)
    assert found.embedding_ensemble == (together.argmax(axis=1) == features.labels).mean()
    odds = [np.exp(logits[place]) for place in (0, 1, 3)]
    averaged = np.mean([one / one.sum(axis=1, keepdims=True) for one in odds], axis=0)
    assert found.probability_ensemble == (averaged.argmax(axis=1) == features.labels).mean()


def test_the_ensemble_is_that_of_the_model(tiny):
    table = ScenesTable("held_out", 24)
    features = embed_table(tiny, table)
    found = compare_wording(tiny, features, table.class_names, np.arange(24), TEMPLATES)
    expected = features.embeddings @ tiny.class_embeddings(table.class_names, TEMPLATES).T
    np.testing.assert_allclose(found.answer.scores, expected, atol=5e-7)
