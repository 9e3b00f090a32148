"""Tokens of a tokenizer.json, the format of Hugging Face's tokenizers library: BERT's, XLM's, Gemma's and others.

The file says everything from normalisation to special tokens, so the ids are those of transformers' tokenizers, which
wrap the same library, and of open_clip's HFTokenizer, which wraps these.
"""

from collections.abc import Iterable, Sequence
from itertools import chain

import numpy as np
import tokenizers
from jaxtyping import Int32

from clip_jax.config import TokenizerConfig
from clip_jax.errors import UserError
from clip_jax.inputs.base_tokenizer import Ids, Tokenizer


class JsonTokenizer(Tokenizer):
    """Texts to rows of token ids with the file's special tokens, then `pad_id`; every `zeroed_id` becomes 0.

    `contents` is that of a tokenizer.json. Over-long text is cut within its special tokens, which are kept.
    Raises UserError for a damaged file or a context_length that is too small for the special tokens.
    """

    def __init__(self, config: TokenizerConfig, context_length: int, contents: bytes) -> None:
        super().__init__(context_length, config.clean, config.pad_id)
        self._tokenizer = load(contents, f"the tokenizer's file {config.file}")
        self._zeroed_id = config.zeroed_id
        self.vocab_size = 1 + max(self._tokenizer.get_vocab(with_added_tokens=True).values())
        special = self._tokenizer.num_special_tokens_to_add(is_pair=False)
        if context_length < max(1, special):
            raise UserError(f"context_length {context_length} must be at least {special}, for the special tokens")
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(context_length)

    def __call__(self, texts: Sequence[str]) -> Int32[np.ndarray, "b n"]:
        tokens = super().__call__(texts)
        if self._zeroed_id is not None:
            tokens[tokens == self._zeroed_id] = 0
        return tokens

    def encode(self, text: str) -> list[int]:
        encoding = self._tokenizer.encode(self.cleaned(text), add_special_tokens=False)
        return list(chain(encoding.ids, *(cut.ids for cut in encoding.overflowing)))

    def decode(self, ids: Ids) -> str:
        """The text of `ids` without special tokens. Raises UserError for an id outside the vocabulary."""
        return self._tokenizer.decode(self.known(ids), skip_special_tokens=True)

    def token(self, id: int) -> str:
        """The token of that id as the file spells it; empty for an unknown id."""
        return self._tokenizer.id_to_token(id) or ""

    def _rows(self, texts: Sequence[str]) -> Iterable[list[int]]:
        encodings = self._tokenizer.encode_batch_fast([self.cleaned(text) for text in texts])
        return (encoding.ids for encoding in encodings)


def load(contents: bytes, name: str) -> tokenizers.Tokenizer:
    """The tokenizer of a tokenizer.json. Raises UserError, naming `name`, where it is damaged or something else."""
    try:
        return tokenizers.Tokenizer.from_buffer(contents)
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{name} is no tokenizer.json, or a damaged one ({reason}); fetch it again") from error
