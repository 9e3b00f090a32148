"""Tokenizers from Hugging Face folders, and folders from tokenizers, against AutoTokenizer and open_clip's wrapper."""

import json
import re
import unicodedata
from dataclasses import replace

import numpy as np
import pytest
from support.open_clip_shim import import_open_clip
from support.tokenizer_models import bert_like, c4_like, gemma_json, gemma_like, write, xlm_like
from support.varied_texts import varied_texts

from clip_jax.config import TextConfig, TokenizerConfig, TransformerConfig
from clip_jax.errors import UserError
from clip_jax.inputs.clean import repaired, well_formed
from clip_jax.inputs.hf_tokenizer import (
    TOKENIZER_FILES,
    special_token_id,
    tokenizer_config_from_files,
    tokenizer_files_for_hf,
)
from clip_jax.inputs.tokenizer import tokenizer_for

TEXTS = [well_formed(text) for text in varied_texts(700, seed=9)]  # transformers takes no lone surrogates
MAP = "special_tokens_map.json"
CLIP = TokenizerConfig(pad_id=49407)
SIGLIP = TokenizerConfig("sentencepiece", "siglip", "spiece.model", pad_id=1, end_id=1)
SIGLIP2 = TokenizerConfig("tokenizer_json", "lower", "tokenizer.json", pad_id=0)
GEMMA = TokenizerConfig("sentencepiece", "lower", "tokenizer.model", pad_id=0, end_id=1)
BERT = TokenizerConfig("tokenizer_json", "none", "tokenizer.json", pad_id=0)
XLM = TokenizerConfig("tokenizer_json", "none", "tokenizer.json", pad_id=1)
T5 = TokenizerConfig("sentencepiece", "none", "spiece.model", pad_id=0, end_id=1)


@pytest.fixture(scope="module", autouse=True)
def open_clip():
    return import_open_clip()


@pytest.fixture(scope="module")
def clip_files() -> dict[str, bytes]:
    return tokenizer_files_for_hf(CLIP, tower(49408))


@pytest.fixture(scope="module")
def clip_reference(open_clip, clip_files, tmp_path_factory):
    return auto_tokenizer(tmp_path_factory.mktemp("clip"), clip_files, "clip")


def tower(vocab_size=1000) -> TextConfig:
    return TextConfig(TransformerConfig(width=8, layers=1, heads=1), 24, vocab_size)


def settings(name: str | None, **values: object) -> dict[str, bytes]:
    return {"tokenizer_config.json": json.dumps(({"tokenizer_class": name} if name else {}) | values).encode()}


def auto_tokenizer(path, files, model_type):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder(path, files, model_type))


def folder(path, files, model_type) -> str:
    return write(path, {**files, "config.json": json.dumps({"model_type": model_type}).encode()})


def rows(tokenizer, texts):
    return np.array(tokenizer(texts, padding="max_length", max_length=24, truncation=True)["input_ids"])


def different(texts, tokens, expected):
    return [text for text, a, b in zip(texts, tokens, expected, strict=True) if not np.array_equal(a, b)]


def without_special(texts):
    """Texts that spell no special token, which transformers finds in texts and the vocabularies themselves do not."""
    return [text for text in texts if not re.search(r"<.?\w+>|<\|\w+\|>|\[[A-Z]+\]", text)]


def common_to_clip():
    """Texts of letters that all Unicode tables have, without capital sigmas, which are lowered by other rules."""
    return [text for text in without_special(TEXTS) if max(text or "a") < "\uffff" and "Σ" not in text]


@pytest.mark.parametrize(
    ("files", "model_type", "config"),
    [
        ({}, "clip", TokenizerConfig()),
        ({}, "siglip", SIGLIP),
        ({}, "siglip2", SIGLIP2),
        ({}, None, BERT),
        (settings("SiglipTokenizer"), "siglip", SIGLIP),
        ({"spiece.model": c4_like()}, "siglip", SIGLIP),
        ({"spiece.model": c4_like()} | settings("SiglipTokenizer", pad_token="<pad>"), None, replace(SIGLIP, pad_id=0)),
        ({"spiece.model": c4_like()} | settings("T5Tokenizer"), None, T5),
        ({"spiece.model": c4_like(), "tokenizer.json": b"{}"} | settings("SiglipTokenizerFast"), "siglip", SIGLIP),
        ({"tokenizer.json": gemma_json()}, "siglip2", SIGLIP2),
        ({"tokenizer.json": gemma_json()} | settings("GemmaTokenizer", pad_token="<pad>"), "siglip", SIGLIP2),
        ({"tokenizer.json": gemma_json()} | settings("Siglip2Tokenizer"), None, SIGLIP2),
        ({"tokenizer.json": gemma_json()} | settings("GemmaTokenizer"), None, replace(SIGLIP2, clean="none")),
        ({"tokenizer.model": gemma_like()} | settings("GemmaTokenizer"), "siglip", GEMMA),
        ({"tokenizer.json": bert_like()} | settings("BertTokenizer", pad_token="[PAD]"), "clip", BERT),
        ({"tokenizer.json": bert_like()} | settings(None, pad_token={"content": "[SEP]"}), "", replace(BERT, pad_id=3)),
        ({"tokenizer.json": xlm_like()} | settings("XLMRobertaTokenizer"), "metaclip_2", XLM),
        ({"tokenizer.json": xlm_like(), MAP: b'{"pad_token": "</s>"}'}, None, replace(XLM, pad_id=2)),
        ({"vocab.txt": b"[PAD]\n"}, None, BERT),
    ],
)  # fmt: skip
def test_config_of_a_folder(files, model_type, config):
    assert tokenizer_config_from_files(files, model_type) == config


@pytest.mark.parametrize(
    "names",
    [TOKENIZER_FILES, ("tokenizer.json",), ("vocab.json", "merges.txt"), ("tokenizer.json", "tokenizer_config.json")],
)
def test_clip_is_known_by_its_vocabulary(clip_files, names):
    files = {name: contents for name, contents in clip_files.items() if name in names}
    assert tokenizer_config_from_files(files, "clip") == CLIP
    files = files | settings("PreTrainedTokenizerFast", pad_token="!") | {MAP: b"{}"}
    assert tokenizer_config_from_files(files) == TokenizerConfig(pad_id=0)


def test_clip_with_other_words_is_not_clip(clip_files):
    changed = json.loads(clip_files["tokenizer.json"])
    vocabulary, merges = changed["model"]["vocab"], changed["model"]["merges"]
    merges[0], merges[1] = merges[1], merges[0]
    other_merges = {"tokenizer.json": json.dumps(changed).encode()}
    merges[0], merges[1] = merges[1], merges[0]
    vocabulary["photo</w>"], vocabulary["dog</w>"] = vocabulary["dog</w>"], vocabulary["photo</w>"]
    other_words = {"tokenizer.json": json.dumps(changed).encode()}
    added_word = {"tokenizer.json": clip_files["tokenizer.json"], "added_tokens.json": b'{"<new>": 49408}'}
    for files in (other_merges, other_words, added_word):
        config = tokenizer_config_from_files(files | settings("CLIPTokenizer"), "clip")
        assert config == TokenizerConfig("tokenizer_json", "none", "tokenizer.json", pad_id=49407)


def test_older_merges_are_strings(clip_files):
    contents = json.loads(clip_files["tokenizer.json"])
    contents["model"]["merges"] = [" ".join(pair) for pair in contents["model"]["merges"]]
    assert tokenizer_config_from_files({"tokenizer.json": json.dumps(contents).encode()}, "clip") == CLIP


@pytest.mark.parametrize("vocab_size", [49408, 1000])
@pytest.mark.parametrize("without", [(), ("tokenizer.json",), ("vocab.json", "merges.txt")])
def test_clip_ids_are_those_of_transformers(tmp_path, vocab_size, without):
    files = tokenizer_files_for_hf(TokenizerConfig(), tower(vocab_size))
    files = {name: contents for name, contents in files.items() if name not in without}
    reference = auto_tokenizer(tmp_path, files, "clip")
    assert type(reference).__name__ == "CLIPTokenizer"
    assert (reference.model_max_length, reference.padding_side) == (24, "right")
    same = [text for text in common_to_clip() if repaired(text) == unicodedata.normalize("NFC", text)]
    assert len(same) > 200
    config = tokenizer_config_from_files(files, "clip")
    assert config == TokenizerConfig(pad_id=vocab_size - 1)
    assert different(same, tokenizer_for(config, tower(vocab_size))(same), rows(reference, same)) == []


def test_clip_differs_from_transformers_by_repairs_sigmas_and_spellings(clip_files, clip_reference):
    texts = ["fish &amp; chips", "schÃ¶n", "ﬁsh", "ΣΚΎΛΟΣ", "<|endoftext|>", "<end_of_text>"]
    tokens = tokenizer_for(CLIP, tower(49408))(texts)
    assert different(texts, tokens, rows(clip_reference, texts)) == texts


def test_pad_token_that_is_a_word_costs_texts_that_word_in_transformers_only(tmp_path, clip_files):
    files = clip_files | settings("CLIPTokenizer", pad_token="!") | {MAP: b"{}"}
    config = tokenizer_config_from_files(files, "clip")
    tokens = tokenizer_for(config, tower(49408))(["hello!"])[0, :5].tolist()
    assert tokens == [49406, 3306, 256, 49407, 0]
    assert rows(auto_tokenizer(tmp_path, files, "clip"), ["hello!"])[0, :5].tolist() == [49406, 3306, 0, 49407, 0]


def test_open_clip_loads_the_exported_clip(open_clip, tmp_path, clip_files):
    reference = open_clip.tokenizer.HFTokenizer(folder(tmp_path, clip_files, "clip"), context_length=24, clean="lower")
    texts = common_to_clip()
    assert len(texts) > 450
    assert different(texts, tokenizer_for(CLIP, tower(49408))(texts), reference(texts).numpy()) == []


def test_exported_clip_is_the_same_to_the_tokenizers_library(clip_files, clip_reference):
    from tokenizers import Tokenizer

    texts = TEXTS[:300]
    plain = Tokenizer.from_buffer(clip_files["tokenizer.json"]).encode_batch(texts)
    assert [encoding.ids for encoding in plain] == clip_reference(texts)["input_ids"]


@pytest.mark.parametrize(
    ("config", "files", "model_type", "name"),
    [
        (SIGLIP, {"spiece.model": c4_like()}, "siglip", "SiglipTokenizer"),
        (replace(SIGLIP, file="c4.model"), {"c4.model": c4_like()}, "siglip", "SiglipTokenizer"),
        (replace(T5, clean="lower"), {"spiece.model": c4_like()}, "siglip", "T5Tokenizer"),
        (GEMMA, {"tokenizer.model": gemma_like()}, "siglip", "Siglip2Tokenizer"),
        (replace(GEMMA, clean="none"), {"tokenizer.model": gemma_like()}, "gemma", "GemmaTokenizer"),
        (SIGLIP2, {"tokenizer.json": gemma_json()}, "siglip", "Siglip2Tokenizer"),
        (SIGLIP2, {"tokenizer.json": gemma_json()}, "siglip2", "Siglip2Tokenizer"),
        (BERT, {"tokenizer.json": bert_like()}, "clip", "TokenizersBackend"),
        (XLM, {"tokenizer.json": xlm_like()}, "siglip", "TokenizersBackend"),
    ],
)  # fmt: skip
def test_exported_folder_gives_the_same_ids(tmp_path, config, files, model_type, name):
    written = tokenizer_files_for_hf(config, tower(), files)
    assert next(iter(files.values())) in written.values()
    reference = auto_tokenizer(tmp_path, written, model_type)
    assert type(reference).__name__ == name
    assert (reference.model_max_length, reference.padding_side) == (24, "right")
    texts = without_special(TEXTS)
    if name == "T5Tokenizer":  # which leaves cleaning to its caller
        texts = [" ".join(text.lower().split()) for text in texts]
    assert different(texts, tokenizer_for(config, tower(), files)(texts), rows(reference, texts)) == []
    again = tokenizer_config_from_files(written, model_type)
    assert different(texts, tokenizer_for(again, tower(), written)(texts), rows(reference, texts)) == []


def test_open_clip_loads_an_exported_separator(open_clip, tmp_path):
    config = replace(BERT, clean="whitespace", zeroed_id=3)
    path = folder(tmp_path, tokenizer_files_for_hf(config, tower(), {"tokenizer.json": bert_like()}), "clip")
    reference = open_clip.tokenizer.HFTokenizer(path, context_length=24, strip_sep_token=True)
    tokens = tokenizer_for(config, tower(), {"tokenizer.json": bert_like()})(TEXTS)
    assert different(TEXTS, tokens, reference(TEXTS).numpy()) == []


def test_files_that_came_with_settings_leave_as_they_came():
    files = {"tokenizer.json": bert_like(), "vocab.txt": b"[PAD]\n"} | settings("BertTokenizer")
    assert tokenizer_files_for_hf(BERT, tower(), files) == files
    assert tokenizer_files_for_hf(BERT, tower()) == {}


@pytest.mark.parametrize("processor", ["CLIPProcessor", "SiglipProcessor"])
def test_processors_load_the_exported_tokenizer(tmp_path, clip_files, processor):
    import transformers

    model = {"CLIPProcessor": "clip", "SiglipProcessor": "siglip"}[processor]
    files = clip_files if model == "clip" else tokenizer_files_for_hf(SIGLIP, tower(), {"spiece.model": c4_like()})
    image_processor = {"image_processor_type": processor.replace("Processor", "ImageProcessor")}
    files = {**files, "preprocessor_config.json": json.dumps(image_processor).encode()}
    loaded = getattr(transformers, processor).from_pretrained(folder(tmp_path, files, model))
    ids = loaded(text=["a dog"], padding="max_length", return_tensors="np")["input_ids"]
    config = CLIP if model == "clip" else SIGLIP
    np.testing.assert_array_equal(ids, tokenizer_for(config, tower(49408), files)(["a dog"]))


def test_special_token_ids():
    files = {"tokenizer.json": bert_like()} | settings(
        "BertTokenizer", sep_token="[SEP]", cls_token={"content": "[CLS]"}
    )
    assert special_token_id(files, "sep_token") == 3
    assert special_token_id(files, "cls_token") == 2
    assert special_token_id(files, "bos_token") is None
    decoder = {"added_tokens_decoder": {"7": {"content": "<s>"}}, "bos_token": "<s>"}
    assert special_token_id(settings(None, **decoder), "bos_token") == 7


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (settings("GemmaTokenizer", padding_side="left"), r"tokenizer_config\.json pads on the left; clip_jax pads on"),
        (
            {"tokenizer.model": gemma_like()} | settings("GemmaTokenizer", add_bos_token=True),
            "begin with a special tok",
        ),
        ({"tokenizer.json": bert_like()[:-1]}, r"tokenizer\.json is damaged .*; fetch it again"),
        ({"tokenizer.json": b"\xff"}, r"tokenizer\.json is damaged .*; fetch it again"),
        ({"tokenizer_config.json": b"[]"}, r"tokenizer_config\.json is damaged: it holds no JSON object"),
        ({"tokenizer.json": b'{"model": 1}'}, "the tokenizer's files are damaged .*; fetch them again"),
        ({"tokenizer.json": b'{"model": {"vocab": [1]}}'}, "the tokenizer's files are damaged .*; fetch them again"),
        ({"tokenizer_config.json": b'{"pad_token": {}}'}, "the tokenizer's files are damaged .*; fetch them again"),
        ({"tokenizer_config.json": b'{"pad_token": ["<pad>"]}'}, "the tokenizer's files are damaged .*; fetch them ag"),
        (
            {"spiece.model": c4_like()[:-1]},
            r"spiece\.model is no sentencepiece model, or a damaged one; fetch it again",
        ),
    ],
)
def test_damaged_and_strange_files_are_refused(files, message):
    with pytest.raises(UserError, match=message):
        tokenizer_config_from_files(files, "siglip")
