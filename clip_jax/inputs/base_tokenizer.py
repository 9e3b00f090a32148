"""What all tokenizers have in common: texts to rows of token ids, ids to text."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Int, Int32

from clip_jax.config import Cleaning
from clip_jax.errors import UserError
from clip_jax.inputs.clean import CLEANERS

Ids = Sequence[int] | Int[np.ndarray, " n"]


class Tokenizer(ABC):
    """Texts, cleaned as `clean` says, to rows of `context_length` token ids, filled up with `pad_id`.

    Ids lie below `vocab_size`.
    """

    vocab_size: int

    def __init__(self, context_length: int, clean: Cleaning, pad_id: int) -> None:
        self.context_length = context_length
        self.pad_id = pad_id
        self._clean = CLEANERS[clean]

    def __call__(self, texts: Sequence[str]) -> Int32[np.ndarray, "b n"]:
        """Token ids of each text, n being the context length. Over-long text is cut, its end token kept.

        Raises UserError where a text is not a string, or where `texts` is a single string.
        """
        if isinstance(texts, str) or not isinstance(texts, Sequence):
            raise UserError(f"texts must be a list of strings, not {texts!r}; [{str(texts)!r}] would be")
        tokens = np.full((len(texts), self.context_length), self.pad_id, np.int32)
        for row, ids in zip(tokens, self._rows(texts), strict=True):
            row[: len(ids)] = ids
        return tokens

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """The ids of `text`, however many, without special tokens. Raises UserError if it is not a string."""

    @abstractmethod
    def decode(self, ids: Ids) -> str:
        """The text of `ids`, as far as ids tell it, without special tokens. Raises UserError for an unknown id."""

    @abstractmethod
    def _rows(self, texts: Sequence[str]) -> Iterable[list[int]]:
        """The ids of each text with special tokens, cut to the context length."""

    def cleaned(self, text: str) -> str:
        """`text` as the vocabulary is applied to it. Raises UserError if it is not a string."""
        if not isinstance(text, str):
            raise UserError(f"a text must be a string, not {text!r} of type {type(text).__name__}")
        return self._clean(text)

    def known(self, ids: Ids) -> list[int]:
        """`ids` as a list. Raises UserError for one outside the vocabulary."""
        numbers = [int(id) for id in ids]
        if unknown := [id for id in numbers if not 0 <= id < self.vocab_size]:
            raise UserError(f"token id {unknown[0]} is outside the vocabulary of {self.vocab_size}")
        return numbers
