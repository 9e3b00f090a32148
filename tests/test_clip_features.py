"""What evaluations ask of `Clip`: short programs for short texts, classes of several names, features for probes."""

import jax.numpy as jnp
import numpy as np
import pytest
from support.closeness import relative_error

from clip_jax import clip as clip_module
from clip_jax.clip import Clip, create
from clip_jax.config import TextConfig, TransformerConfig
from clip_jax.errors import UserError
from clip_jax.models.text import without_padding


@pytest.fixture(scope="module")
def clip() -> Clip:
    return create("tiny")


def test_what_is_behind_the_end_of_a_text_is_not_computed(clip, monkeypatch):
    """Nor does it matter: as with the padding, which the model itself is given here."""
    texts = ["a star", "a photo of two large red stars on a very dark blue background, above it a green ring " * 3]
    tokens = jnp.asarray(clip.tokenize(texts))
    whole = np.asarray(clip.apply_text(clip.params, tokens))
    assert relative_error(clip.encode_text(texts), whole) <= 2e-6
    seen = []
    apply = Clip.apply_text
    monkeypatch.setattr(Clip, "apply_text", lambda self, p, t: seen.append(t.shape[1]) or apply(self, p, t))
    clip_module._text_encoder.cache_clear()
    assert relative_error(clip.encode_text(texts[:1]), whole[:1]) <= 2e-6
    assert relative_error(clip.encode_text(np.asarray(tokens)), whole) <= 2e-6
    assert seen == [16, 32]
    clip_module._text_encoder.cache_clear()


@pytest.mark.parametrize("pooling", ["argmax", "end_token", "last"])
@pytest.mark.parametrize("causal", [True, False])
def test_which_tokens_count(pooling, causal):
    end = 9 if pooling == "end_token" else None
    config = TextConfig(TransformerConfig(16, 1, 1), 40, 10, pooling, end, causal)
    tokens = np.zeros((2, 40), np.int32)
    tokens[0, :3], tokens[1, :17] = [8, 1, 9], [8, *[1] * 15, 9]
    kept = without_padding(config, tokens)
    assert kept.shape == (2, 32 if causal and pooling != "last" else 40)
    assert without_padding(config, tokens[:1]).shape == (1, 16 if causal and pooling != "last" else 40)


def test_classes_of_several_names(clip):
    found = clip.class_embeddings([["star", "asterisk"], "ring"], ["a {}.", "the {}."])
    prompts = [f"{article} {name}." for name in ("star", "asterisk") for article in ("a", "the")]
    mean = clip.encode_text(prompts, normalize=True).astype(np.float64).mean(axis=0)
    np.testing.assert_allclose(found[0], mean / np.linalg.norm(mean), atol=1e-6)
    np.testing.assert_allclose(found[1], clip.class_embeddings(["ring"], ["a {}.", "the {}."])[0], atol=1e-6)
    for wrong in ([["star", ""]], [[]], []):
        with pytest.raises(UserError, match="label"):
            clip.class_embeddings(wrong)


def test_texts_come_back_in_their_order(clip):
    texts = [" ".join(["star"] * count) for count in np.random.default_rng(0).permutation(30)]
    apart = np.stack([clip.encode_text(text) for text in texts])
    np.testing.assert_allclose(clip.encode_text(texts, batch_size=8), apart, atol=2e-6)
    assert len(np.unique(apart.round(4), axis=0)) == 30


@pytest.mark.parametrize("first", [True, False])
def test_the_first_process_alone_shows_progress(clip, first, monkeypatch, capsys):
    monkeypatch.setattr(clip_module, "PROGRESS_AFTER_SECONDS", 0)
    monkeypatch.setattr(clip_module, "is_first", lambda: first)
    for unit, work in (
        ("texts", lambda: clip.encode_text(["a star"])),
        ("prompts", lambda: clip.class_embeddings(["star"])),
        ("images", lambda: clip.encode_image([np.zeros((9, 9, 3), np.uint8)])),
    ):
        work()
        assert (f" {unit}/s" in capsys.readouterr().err) == first


def test_features_before_the_projection(clip):
    pixels = np.random.default_rng(0).normal(size=(5, 48, 48, 3)).astype(np.float32)
    embeddings, features = clip.image_features(pixels, batch_size=2)
    np.testing.assert_allclose(embeddings, clip.encode_image(pixels), atol=2e-6)
    np.testing.assert_allclose(features @ np.asarray(clip.params["visual"]["projection"]), embeddings, atol=2e-5)
