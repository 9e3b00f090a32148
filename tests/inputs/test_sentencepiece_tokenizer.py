"""Ids of sentencepiece models against sentencepiece itself, transformers' classes and open_clip's wrapper of them."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest
import sentencepiece
from support.open_clip_shim import import_open_clip
from support.tokenizer_models import c4_like, gemma_like, mc4_like, write
from support.varied_texts import varied_texts

from clip_jax.config import Cleaning, TokenizerConfig
from clip_jax.errors import UserError
from clip_jax.inputs.clean import well_formed
from clip_jax.inputs.sentencepiece_tokenizer import SentencepieceTokenizer

TEXTS = [well_formed(text) for text in varied_texts(2000, seed=5)]  # transformers takes no lone surrogates
CONTEXT = 24


def siglip(clean: Cleaning = "siglip", pad_id: int = 1) -> TokenizerConfig:
    return TokenizerConfig("sentencepiece", clean, "spiece.model", pad_id=pad_id, end_id=1)


def gemma(clean: Cleaning = "lower") -> TokenizerConfig:
    return TokenizerConfig("sentencepiece", clean, "tokenizer.model", pad_id=0, end_id=1)


def from_transformers(folder, files, settings, model_type, texts):
    """What AutoTokenizer makes of a folder, as its users pad and cut for SigLIP."""
    transformers = pytest.importorskip("transformers")
    settings = {"tokenizer_config.json": json.dumps(settings).encode()}
    config = {"config.json": json.dumps({"model_type": model_type}).encode()}
    tokenizer = transformers.AutoTokenizer.from_pretrained(write(folder, files | settings | config))
    assert type(tokenizer).__name__ == json.loads(settings["tokenizer_config.json"])["tokenizer_class"]
    rows = tokenizer(texts, padding="max_length", max_length=CONTEXT, truncation=True)["input_ids"]
    return np.array(rows)


@pytest.fixture(scope="module", autouse=True)
def open_clip():
    return import_open_clip()


def different(texts, tokens, expected):
    return [text for text, a, b in zip(texts, tokens, expected, strict=True) if not np.array_equal(a, b)]


@pytest.mark.parametrize("model", [c4_like(), gemma_like()], ids=["c4", "gemma"])
@pytest.mark.parametrize("pad_id", [0, 1])
def test_ids_are_those_of_big_vision(model, pad_id):
    # Its `tokenize` with eos="sticky": one piece less than fits and the end token, or the end token and padding.
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    expected = []
    for text in TEXTS:
        ids = [*processor.encode(text), 1]
        long = len(ids) >= CONTEXT
        expected.append([*ids[: CONTEXT - 1], ids[-1]] if long else ids + [pad_id] * (CONTEXT - len(ids)))
    tokens = SentencepieceTokenizer(siglip("none", pad_id), CONTEXT, model)(TEXTS)
    assert tokens.dtype == np.int32
    assert different(TEXTS, tokens, expected) == []


def test_siglip_ids_are_those_of_transformers(tmp_path):
    texts = [text for text in TEXTS if not re.search("</s>|<unk>", text)]
    assert len(TEXTS) * 0.9 < len(texts) < len(TEXTS)
    files = {"spiece.model": c4_like()}
    expected = from_transformers(tmp_path, files, {"tokenizer_class": "SiglipTokenizer"}, "siglip", texts)
    assert different(texts, SentencepieceTokenizer(siglip(), CONTEXT, c4_like())(texts), expected) == []


@pytest.mark.parametrize(("text", "same_as"), [("a </s> dog", "a s dog"), ("<unk> dog", "unk dog")])
def test_spelled_special_tokens_are_words_unlike_in_transformers(tmp_path, text, same_as):
    tokenizer = SentencepieceTokenizer(siglip(), CONTEXT, c4_like())
    settings = {"tokenizer_class": "SiglipTokenizer"}
    theirs = from_transformers(tmp_path, {"spiece.model": c4_like()}, settings, "siglip", [text])
    assert tokenizer([text]).tolist() == tokenizer([same_as]).tolist() != theirs.tolist()


@pytest.mark.parametrize("model", [c4_like(), mc4_like()], ids=["c4", "mc4"])
def test_canonicalized_ids_are_those_of_open_clip(open_clip, tmp_path, model):
    settings = {"tokenizer_class": "T5Tokenizer", "extra_ids": 0, "pad_token": "<pad>"}
    folder = write(tmp_path, {"spiece.model": model, "tokenizer_config.json": json.dumps(settings).encode()})
    reference = open_clip.tokenizer.HFTokenizer(folder, context_length=CONTEXT, clean="canonicalize")
    tokens = SentencepieceTokenizer(siglip("canonicalize", pad_id=0), CONTEXT, model)(TEXTS)
    assert different(TEXTS, tokens, reference(TEXTS).numpy()) == []


@pytest.mark.parametrize(("name", "clean"), [("Siglip2Tokenizer", "lower"), ("GemmaTokenizer", "none")])
def test_gemma_ids_are_those_of_transformers(tmp_path, name, clean):
    texts = [text for text in TEXTS if not re.search("<(eos|bos|pad|unk|mask)>", text)]
    settings = {"tokenizer_class": name, "add_eos_token": True, "padding_side": "right"}
    expected = from_transformers(tmp_path, {"tokenizer.model": gemma_like()}, settings, "siglip", texts)
    assert different(texts, SentencepieceTokenizer(gemma(clean), CONTEXT, gemma_like())(texts), expected) == []


def test_known_rows():
    tokenizer = SentencepieceTokenizer(siglip(), 4, c4_like())
    the, dog, red = (tokenizer.encode(word)[0] for word in ("the", "dog", "red"))
    assert [tokenizer.token(id) for id in (the, dog, red)] == ["▁the", "▁dog", "▁red"]
    assert tokenizer(["", "The dog!", "the red dog the"]).tolist() == [
        [1, 1, 1, 1],
        [the, dog, 1, 1],
        [the, red, dog, 1],
    ]
    assert tokenizer([]).shape == (0, 4)
    assert len(tokenizer.encode("the red dog the")) == 4


def test_without_end_token():
    tokenizer = SentencepieceTokenizer(TokenizerConfig("sentencepiece", "none", "spiece.model"), 3, c4_like())
    the, dog = (tokenizer.encode(word)[0] for word in ("the", "dog"))
    assert tokenizer(["the dog", "dog the the dog"]).tolist() == [[the, dog, 0], [dog, the, the]]


@pytest.mark.parametrize(("config", "model"), [(siglip("none"), c4_like()), (gemma("none"), gemma_like())])
@pytest.mark.parametrize("text", ["a photo of the big red dog", "café größe", ""])
def test_decode_gives_the_text_back(config, model, text):
    tokenizer = SentencepieceTokenizer(config, 16, model)
    assert tokenizer.decode(tokenizer([text])[0]) == text
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_unknown_ids_are_refused():
    tokenizer = SentencepieceTokenizer(siglip(), CONTEXT, c4_like())
    for id in (-1, tokenizer.vocab_size):
        with pytest.raises(UserError, match=f"token id {id} is outside the vocabulary of {tokenizer.vocab_size}"):
            tokenizer.decode([id])
    with pytest.raises(UserError, match="token id 10000 is outside"):
        SentencepieceTokenizer(TokenizerConfig("sentencepiece", "none", "x", end_id=10000), CONTEXT, c4_like())


def test_context_needs_room_for_the_end_token():
    assert SentencepieceTokenizer(siglip(), 1, c4_like())(["the dog"]).tolist() == [[1]]
    with pytest.raises(UserError, match="context_length 0 must be at least 1"):
        SentencepieceTokenizer(siglip(), 0, c4_like())


@pytest.mark.parametrize("contents", [b"", b"text", b"version https://git-lfs.github.com/spec/v1\n", b'{"model": {}}'])
def test_other_files_are_refused(contents):
    with pytest.raises(UserError, match=r"file spiece\.model is no sentencepiece model, or a damaged one; fetch it ag"):
        SentencepieceTokenizer(siglip(), CONTEXT, contents)


@pytest.mark.parametrize("model", [c4_like(), gemma_like()], ids=["c4", "gemma"])
def test_cut_models_are_refused_wherever_they_are_cut(model):
    # Cut between two pieces, or before how to normalise, a model is one that sentencepiece itself takes.
    loads = 0
    for size in [*range(1, 2500), *range(len(model) - 100, len(model))]:
        try:
            sentencepiece.SentencePieceProcessor().load_from_serialized_proto(model[:size])
            loads += 1
        except RuntimeError:
            pass
        with pytest.raises(UserError, match="fetch it again"):
            SentencepieceTokenizer(siglip(), CONTEXT, model[:size])
    assert loads


def test_sentencepiece_is_imported_where_it_is_used():
    script = (
        "import sys, clip_jax.inputs.tokenizer, clip_jax.inputs.hf_tokenizer; print('sentencepiece' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False"]
