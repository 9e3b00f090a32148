"""Ids of a tokenizer.json against transformers' classes and open_clip's wrapper of them."""

import json

import numpy as np
import pytest
from support.open_clip_shim import import_open_clip
from support.tokenizer_models import bert_like, gemma_json, write, xlm_like
from support.varied_texts import varied_texts

from clip_jax.config import Cleaning, TokenizerConfig
from clip_jax.errors import UserError
from clip_jax.inputs.clean import well_formed
from clip_jax.inputs.json_tokenizer import JsonTokenizer

TEXTS = [well_formed(text) for text in varied_texts(2000, seed=6)]  # transformers takes no lone surrogates
CONTEXT = 24

# Tokenizer, padding, the model type and classes that transformers takes it for, and how these clean a text.
KINDS: dict[str, tuple[bytes, int, str, str, Cleaning]] = {
    "bert": (bert_like(), 0, "bert", "BertTokenizer", "none"),
    "bert, any class": (bert_like(), 0, "clip", "PreTrainedTokenizerFast", "none"),
    "xlm": (xlm_like(), 1, "metaclip_2", "XLMRobertaTokenizer", "none"),
    "gemma": (gemma_json(), 0, "siglip", "GemmaTokenizer", "none"),
    "siglip 2": (gemma_json(), 0, "siglip", "Siglip2Tokenizer", "lower"),
    "siglip 2, its own type": (gemma_json(), 0, "siglip2", "GemmaTokenizer", "lower"),
}
SPECIAL = {
    "bert": {"pad_token": "[PAD]", "sep_token": "[SEP]"},
    "xlm": {"pad_token": "<pad>", "sep_token": "</s>"},
    "gemma": {"pad_token": "<pad>", "eos_token": "<eos>"},
}


@pytest.fixture(scope="module", autouse=True)
def open_clip():
    return import_open_clip()


def config(clean: Cleaning = "none", pad_id: int = 0, zeroed_id: int | None = None) -> TokenizerConfig:
    return TokenizerConfig("tokenizer_json", clean, "tokenizer.json", pad_id=pad_id, zeroed_id=zeroed_id)


def folder(path, contents, model_type, settings) -> str:
    files = {"tokenizer_config.json": settings | {"padding_side": "right"}, "config.json": {"model_type": model_type}}
    return write(path, {"tokenizer.json": contents} | {name: json.dumps(v).encode() for name, v in files.items()})


def different(texts, tokens, expected):
    return [text for text, a, b in zip(texts, tokens, expected, strict=True) if not np.array_equal(a, b)]


@pytest.mark.parametrize("kind", KINDS)
def test_ids_are_those_of_transformers(tmp_path, kind):
    from transformers import AutoTokenizer

    contents, pad_id, model_type, name, clean = KINDS[kind]
    special = next(values for family, values in SPECIAL.items() if kind.replace("siglip 2", "gemma").startswith(family))
    reference = AutoTokenizer.from_pretrained(
        folder(tmp_path, contents, model_type, {"tokenizer_class": name} | special)
    )
    assert reference.pad_token_id == pad_id
    expected = reference(TEXTS, padding="max_length", max_length=CONTEXT, truncation=True)["input_ids"]
    tokens = JsonTokenizer(config(clean, pad_id), CONTEXT, contents)(TEXTS)
    assert tokens.dtype == np.int32
    assert different(TEXTS, tokens, expected) == []


@pytest.mark.parametrize(
    ("contents", "pad_id", "name", "zeroed_id"),
    [
        (bert_like(), 0, "BertTokenizer", 3),
        (bert_like(), 0, "BertTokenizer", None),
        (xlm_like(), 1, "XLMRobertaTokenizer", None),
    ],
)
@pytest.mark.parametrize("clean", ["whitespace", "canonicalize"])
def test_ids_are_those_of_open_clip(open_clip, tmp_path, contents, pad_id, name, zeroed_id, clean):
    settings = {"tokenizer_class": name} | SPECIAL["bert" if name == "BertTokenizer" else "xlm"]
    path = folder(tmp_path, contents, "bert", settings)
    strip = zeroed_id is not None
    reference = open_clip.tokenizer.HFTokenizer(path, context_length=CONTEXT, clean=clean, strip_sep_token=strip)
    tokens = JsonTokenizer(config(clean, pad_id, zeroed_id), CONTEXT, contents)(TEXTS)
    assert different(TEXTS, tokens, reference(TEXTS).numpy()) == []
    assert (3 in tokens) == (zeroed_id is None)


def test_known_rows():
    tokenizer = JsonTokenizer(config(), 5, bert_like())
    the, dog, red = (tokenizer.encode(word)[0] for word in ("the", "dog", "red"))
    assert [tokenizer.token(id) for id in (2, the, dog, red)] == ["[CLS]", "the", "dog", "red"]
    assert tokenizer(["", "The dog", "the red dog the dog"]).tolist() == [
        [2, 3, 0, 0, 0],
        [2, the, dog, 3, 0],
        [2, the, red, dog, 3],
    ]
    assert JsonTokenizer(config(zeroed_id=3), 5, bert_like())(["the dog"]).tolist() == [[2, the, dog, 0, 0]]
    assert tokenizer([]).shape == (0, 5)


def test_long_text_is_encoded_uncut():
    short, long = (JsonTokenizer(config(), size, bert_like()) for size in (3, 10_000))
    for text in ["the dog " * 50, *TEXTS[:200]]:
        assert short.encode(text) == long.encode(text)


def test_padding_and_cutting_of_the_file_itself_count_for_nothing():
    contents = json.loads(bert_like())
    contents["padding"] = {"strategy": {"Fixed": 9}, "direction": "Left", "pad_to_multiple_of": None}
    contents["padding"] |= {"pad_id": 4, "pad_type_id": 0, "pad_token": "[MASK]"}
    contents["truncation"] = {"max_length": 3, "strategy": "LongestFirst", "stride": 0, "direction": "Left"}
    tokenizer = JsonTokenizer(config(), CONTEXT, json.dumps(contents).encode())
    np.testing.assert_array_equal(tokenizer(TEXTS[:50]), JsonTokenizer(config(), CONTEXT, bert_like())(TEXTS[:50]))
    assert tokenizer.encode("the dog") == tokenizer.encode("the") + tokenizer.encode("dog")


@pytest.mark.parametrize(("contents", "decoded"), [(bert_like(), "the red dog"), (gemma_json(), "The red  dog café")])
def test_decode_gives_the_text_back(contents, decoded):
    tokenizer = JsonTokenizer(config(), 30, contents)
    assert tokenizer.decode(tokenizer([decoded])[0]) == decoded
    with pytest.raises(UserError, match=f"token id {tokenizer.vocab_size} is outside the vocabulary of"):
        tokenizer.decode([tokenizer.vocab_size])


def test_lone_surrogates_are_replaced():
    tokenizer = JsonTokenizer(config(), 30, gemma_json())
    assert tokenizer.decode(tokenizer.encode("the \ud83d dog \ud83d\ude00")) == "the \ufffd dog 😀"


def test_context_needs_room_for_the_special_tokens():
    assert JsonTokenizer(config(), 2, bert_like())(["the dog"]).tolist() == [[2, 3]]
    with pytest.raises(UserError, match="context_length 1 must be at least 2, for the special tokens"):
        JsonTokenizer(config(), 1, bert_like())


@pytest.mark.parametrize("contents", [b"", b"{}", b"[1]", b'{"model": {}}', b"\xff\xfe", bert_like()[:-1], b"text"])
def test_other_and_damaged_files_are_refused(contents):
    with pytest.raises(
        UserError, match=r"file tokenizer\.json is no tokenizer\.json, or a damaged one \(.*\); fetch i"
    ):
        JsonTokenizer(config(), CONTEXT, contents)
