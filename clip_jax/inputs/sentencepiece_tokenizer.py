"""Tokens of a sentencepiece model, as SigLIP and mT5 use them: the pieces of the text, then the end token.

The ids are those of big_vision, which trained SigLIP so, and of transformers' SiglipTokenizer but for texts that spell
"</s>" or "<unk>": transformers puts the special token there (and cuts the word behind it into other pieces), while
sentencepiece, and so the training, knows special tokens by no spelling.

Kudo & Richardson 2018; big_vision/pp/ops_text.py (`tokenize` with eos="sticky").
"""

from collections.abc import Iterable, Sequence
from itertools import takewhile
from typing import TYPE_CHECKING

from clip_jax.config import TokenizerConfig
from clip_jax.errors import UserError
from clip_jax.inputs.base_tokenizer import Ids, Tokenizer

if TYPE_CHECKING:
    from sentencepiece import SentencePieceProcessor

NORMALIZER = 3  # the field of a model that says how text is normalised, the last of those that every model has


class SentencepieceTokenizer(Tokenizer):
    """Texts to rows of token ids: the text's pieces, `end_id` where there is one, then `pad_id`.

    `model` is the content of a spiece.model or tokenizer.model. Over-long text is cut and keeps the end token.
    Raises UserError for a damaged model, an id outside it, or a context_length that is too small for the end token.
    """

    def __init__(self, config: TokenizerConfig, context_length: int, model: bytes) -> None:
        super().__init__(context_length, config.clean, config.pad_id)
        self._model = load(model, f"the tokenizer's file {config.file}")
        self.vocab_size = self._model.get_piece_size()
        self._end = [] if config.end_id is None else self.known([config.end_id])
        if context_length < max(1, len(self._end)):
            raise UserError(f"context_length {context_length} must be at least 1")

    def encode(self, text: str) -> list[int]:
        return self._model.encode(self.cleaned(text))

    def decode(self, ids: Ids) -> str:
        """The text of `ids` up to the first end token, as it was cleaned. Raises UserError for an unknown id."""
        return self._model.decode(list(takewhile(lambda id: id not in self._end, self.known(ids))))

    def token(self, id: int) -> str:
        """The piece of that id, with its mark for a space."""
        return self._model.id_to_piece(id)

    def _rows(self, texts: Sequence[str]) -> Iterable[list[int]]:
        kept = self.context_length - len(self._end)
        pieces = self._model.encode([self.cleaned(text) for text in texts])
        return (ids[:kept] + self._end for ids in pieces)


def load(model: bytes, name: str) -> "SentencePieceProcessor":
    """The processor of a serialised model. Raises UserError, naming `name`, where it is damaged or something else."""
    from sentencepiece import SentencePieceProcessor  # not at import: most models need none

    processor = SentencePieceProcessor()
    try:
        processor.load_from_serialized_proto(model)
    except (RuntimeError, UnicodeError) as error:  # the latter where its message quotes a damaged word
        raise UserError(f"{name} is no sentencepiece model, or a damaged one; fetch it again") from error
    if NORMALIZER not in _fields(model):  # cut between two pieces, a model still loads, and knows fewer words
        raise UserError(f"{name} is cut off; fetch it again")
    return processor


def _fields(model: bytes) -> set[int]:
    """The numbers of the fields of a protocol buffer whose fields all have a length, as a model's have."""
    fields, position = set(), 0
    while position < len(model):
        tag, position = _varint(model, position)
        length, position = _varint(model, position)
        fields.add(tag >> 3)
        position += length
    return fields


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """The number that begins at `position`, seven bits a byte, and where it ends."""
    value, shift = 0, 0
    while True:
        byte = data[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return value, position
