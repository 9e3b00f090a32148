"""The tokenizer of a model: the right kind from its files, and one line where a file is missing or wrong."""

import json

import pytest
from support.tokenizer_models import bert_like, c4_like, gemma_json, mc4_like

from clip_jax.config import TextConfig, TokenizerConfig, TransformerConfig
from clip_jax.errors import UserError
from clip_jax.inputs.clip_tokenizer import ClipTokenizer
from clip_jax.inputs.json_tokenizer import JsonTokenizer
from clip_jax.inputs.sentencepiece_tokenizer import SentencepieceTokenizer
from clip_jax.inputs.tokenizer import tokenizer_for

SIGLIP = TokenizerConfig("sentencepiece", "siglip", "spiece.model", "google/siglip-base-patch16-224", 1, 1)
BERT = TokenizerConfig("tokenizer_json", "whitespace", "tokenizer.json", "bert-base-uncased", zeroed_id=3)
FILES = {"spiece.model": c4_like(), "tokenizer.json": bert_like(), "README.md": b""}


def tower(vocab_size=1000, context_length=16) -> TextConfig:
    return TextConfig(TransformerConfig(width=8, layers=1, heads=1), context_length, vocab_size)


@pytest.mark.parametrize(
    ("config", "kind"),
    [(TokenizerConfig(), ClipTokenizer), (SIGLIP, SentencepieceTokenizer), (BERT, JsonTokenizer)],
)
def test_kind_is_the_config_s(config, kind):
    tokenizer = tokenizer_for(config, tower(context_length=8), FILES)
    assert type(tokenizer) is kind
    assert tokenizer(["a dog", "the red dog"]).shape == (2, 8)


def test_clip_needs_no_files_and_leaves_embeddings_over():
    tokenizer = tokenizer_for(TokenizerConfig(), tower(vocab_size=64000))
    assert tokenizer(["a photo of a cat"])[0, :8].tolist() == [49406, 320, 1125, 539, 320, 2368, 49407, 0]


def test_config_reaches_the_tokenizer():
    clip = tokenizer_for(TokenizerConfig(clean="whitespace", pad_id=7), tower())
    assert clip(["A"])[0].tolist() == [998, *clip.encode("A"), 999, *[7] * 13]
    assert clip.encode("A") != clip.encode("a")
    siglip = tokenizer_for(SIGLIP, tower(), FILES)
    assert siglip(["A dog!"])[0, -1] == 1
    assert siglip.encode("A dog!") == siglip.encode("a dog")
    assert 3 not in tokenizer_for(BERT, tower(), FILES)(["a dog"])


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            SIGLIP,
            "strings need the tokenizer's file spiece.model, which is missing; put the one of "
            "https://huggingface.co/google/siglip-base-patch16-224 beside the weights",
        ),
        (
            TokenizerConfig("tokenizer_json", "none", "tokenizer.json"),
            "strings need the tokenizer's file tokenizer.json, which is missing; put the one that the model was "
            "trained with beside its weights",
        ),
    ],
)
def test_missing_file_says_where_it_is(config, message):
    with pytest.raises(UserError) as caught:
        tokenizer_for(config, tower())
    assert str(caught.value) == message


@pytest.mark.parametrize("config", [SIGLIP, BERT])
def test_damaged_file_is_refused(config):
    files = {name: contents[: len(contents) // 2] for name, contents in FILES.items()}
    with pytest.raises(UserError, match=f"file {config.file} is no .* damaged one.*fetch it again"):
        tokenizer_for(config, tower(), files)


@pytest.mark.parametrize(("config", "repository"), [(SIGLIP, "google/siglip"), (BERT, "bert-base-uncased")])
def test_vocabulary_beyond_the_embedding_is_refused(config, repository):
    size = tokenizer_for(config, tower(), FILES).vocab_size
    assert tokenizer_for(config, tower(size), FILES).vocab_size == size
    with pytest.raises(UserError, match=f"has {size} tokens, but the text tower only {size - 1} embedd.*{repository}"):
        tokenizer_for(config, tower(size - 1), FILES)


def test_sentinels_need_no_embedding():
    # Multilingual SigLIP has 250,000 embeddings for the 250,100 pieces of mT5, whose last 100 are sentinels.
    files = {"spiece.model": mc4_like()}
    size = tokenizer_for(SIGLIP, tower(), files).vocab_size
    assert tokenizer_for(SIGLIP, tower(size - 10), files)(["<extra_id_0> dog"]).max() < size - 10
    with pytest.raises(UserError, match="embeddings"):
        tokenizer_for(SIGLIP, tower(size - 11), files)


def test_tokens_added_to_a_tokenizer_json_count():
    contents = json.loads(gemma_json())
    size = 1 + max(contents["model"]["vocab"].values())
    added = {"id": size, "content": "<new>", "single_word": False, "lstrip": False, "rstrip": False}
    contents["added_tokens"].append(added | {"normalized": False, "special": True})
    config = TokenizerConfig("tokenizer_json", "none", "tokenizer.json")
    with pytest.raises(UserError, match=f"has {size + 1} tokens, but the text tower only {size} embeddings"):
        tokenizer_for(config, tower(size), {"tokenizer.json": json.dumps(contents).encode()})


@pytest.mark.parametrize("pad_id", [-1, 1000])
@pytest.mark.parametrize("config", [TokenizerConfig, SIGLIP, BERT], ids=["clip", "siglip", "bert"])
def test_padding_outside_the_embedding_is_refused(config, pad_id):
    kind, clean, file = ("clip_bpe", "clip", None) if config is TokenizerConfig else (config.kind, "none", config.file)
    with pytest.raises(UserError, match=f"{pad_id} is outside"):
        tokenizer_for(TokenizerConfig(kind, clean, file, pad_id=pad_id), tower(), FILES)


@pytest.mark.parametrize("arguments", [("clip_bpe", "clip", "spiece.model"), ("sentencepiece", "siglip")])
def test_config_with_and_without_file(arguments):
    with pytest.raises(UserError, match="file belongs to the kinds sentencepiece and tokenizer_json, which need it"):
        TokenizerConfig(*arguments)
