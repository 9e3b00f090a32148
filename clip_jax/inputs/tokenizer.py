"""The tokenizer of a model, from its config and the files that came with it."""

from collections.abc import Mapping
from types import MappingProxyType

from clip_jax.config import TextConfig, TokenizerConfig
from clip_jax.errors import UserError
from clip_jax.inputs.base_tokenizer import Tokenizer
from clip_jax.inputs.clip_tokenizer import MAX_VOCAB_SIZE, ClipTokenizer
from clip_jax.inputs.json_tokenizer import JsonTokenizer
from clip_jax.inputs.sentencepiece_tokenizer import SentencepieceTokenizer

NO_FILES: Mapping[str, bytes] = MappingProxyType({})
SENTINEL = "extra_id_"  # T5's marks for its own training, which no text has and which models may leave out


def tokenizer_for(config: TokenizerConfig, text: TextConfig, files: Mapping[str, bytes] = NO_FILES) -> Tokenizer:
    """The tokenizer that a model's text tower was trained with; `files` holds what it reads, by file name.

    It is built anew at each call. Raises UserError for a missing or damaged file, and for one whose ids the tower has
    no embedding of.
    """
    if config.kind == "clip_bpe":  # a tower may have more embeddings than there are tokens
        return ClipTokenizer(text.context_length, min(text.vocab_size, MAX_VOCAB_SIZE), config.clean, config.pad_id)
    assert config.file is not None
    if config.file not in files:
        raise UserError(f"strings need the tokenizer's file {config.file}, which is missing; {_where(config)}")
    kind = SentencepieceTokenizer if config.kind == "sentencepiece" else JsonTokenizer
    tokenizer = kind(config, text.context_length, files[config.file])
    surplus = range(text.vocab_size, tokenizer.vocab_size)
    if any(SENTINEL not in tokenizer.token(id) for id in surplus):
        raise UserError(
            f"the tokenizer's file {config.file} has {tokenizer.vocab_size} tokens, but the text tower only "
            f"{text.vocab_size} embeddings; {_where(config)}"
        )
    for name in ("pad_id", "end_id"):
        id = getattr(config, name)
        if id is not None and not 0 <= id < text.vocab_size:
            raise UserError(f"{name} {id} is outside the text tower's vocabulary of {text.vocab_size}")
    return tokenizer


def _where(config: TokenizerConfig) -> str:
    if config.repository is None:
        return "put the one that the model was trained with beside its weights"
    return f"put the one of https://huggingface.co/{config.repository} beside the weights"
