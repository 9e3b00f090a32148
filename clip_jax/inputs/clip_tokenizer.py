"""OpenAI's byte-pair encoding of captions, with the same token ids as open_clip's tokenizer.

Three steps: clean the text, split it into words by a regular expression, merge the bytes of each word by rank.
The merging is the `tokenizers` library's. The splitting is not: its regular expressions know other Unicode
tables and other rules of case than those the vocabulary was used with. Captions repeat their words, so ids are
remembered per word, which is several times as fast as that library's whole pipeline over whole captions.

Radford et al. 2021, section 2.4; Sennrich et al. 2016 for the encoding itself.
"""

import gzip
from collections.abc import Iterable, Sequence
from functools import lru_cache
from importlib import resources
from itertools import chain, takewhile

import regex
from tokenizers.models import BPE

from clip_jax.config import Cleaning
from clip_jax.errors import UserError
from clip_jax.inputs.base_tokenizer import Ids, Tokenizer

END_OF_WORD = "</w>"
MAX_VOCAB_SIZE = 49408
MIN_VOCAB_SIZE = 2 * 256 + 2  # each byte inside and at the end of a word, and two special tokens
REMEMBERED_WORDS = 2**16

# A caption that spells a special token gets its id, as in open_clip.
SPECIAL_WORDS = ("<start_of_text>", "<end_of_text>")
WORD = regex.compile(
    "|".join(SPECIAL_WORDS) + r"|'(?:s|t|re|ve|m|ll|d)|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+", flags=regex.IGNORECASE
)


class ClipTokenizer(Tokenizer):
    """Captions to rows of token ids: start, the text's ids, end, then `pad_id`.

    A `vocab_size` V below 49,408 keeps the first V - 514 merges. The start token is V - 2 and the end token V - 1,
    so that the end token is the largest id whatever V is, which pooling by argmax relies on.
    Raises UserError for a vocab_size outside 514..49408, a context_length below 2 or a pad_id outside the vocabulary.
    """

    def __init__(
        self, context_length: int, vocab_size: int = MAX_VOCAB_SIZE, clean: Cleaning = "clip", pad_id: int = 0
    ) -> None:
        if not MIN_VOCAB_SIZE <= vocab_size <= MAX_VOCAB_SIZE:
            raise UserError(f"vocab_size {vocab_size} must lie between {MIN_VOCAB_SIZE} and {MAX_VOCAB_SIZE}")
        if context_length < 2:
            raise UserError(f"context_length {context_length} must be at least 2, for the start and end tokens")
        super().__init__(context_length, clean, pad_id)
        self.vocab_size = vocab_size
        self.known([pad_id])
        self.start_token = vocab_size - 2
        self.end_token = vocab_size - 1

        self._byte_symbols = byte_symbols()
        self._tokens, merges = vocabulary(vocab_size)
        ids = {token: id for id, token in enumerate(self._tokens)}
        self._bpe = BPE(ids, merges, cache_capacity=0, end_of_word_suffix=END_OF_WORD)
        self._word_ids = lru_cache(maxsize=REMEMBERED_WORDS)(self._merge)

    def encode(self, text: str) -> list[int]:
        return list(chain.from_iterable(map(self._word_ids, WORD.findall(self.cleaned(text)))))

    def decode(self, ids: Ids) -> str:
        """The text of `ids` up to the first end token: in lower case, with a space between words.

        Bytes that are not UTF-8, as where a character was cut, become U+FFFD. Raises UserError for an unknown id.
        """
        text_ids = (id for id in takewhile(lambda id: id != self.end_token, self.known(ids)) if id != self.start_token)
        byte_of = {symbol: byte for byte, symbol in enumerate(self._byte_symbols)}
        words = "".join(self._tokens[id] for id in text_ids).split(END_OF_WORD)
        return " ".join(bytes(map(byte_of.__getitem__, word)).decode(errors="replace") for word in words).strip()

    def _rows(self, texts: Sequence[str]) -> Iterable[list[int]]:
        kept = self.context_length - 2
        return ([self.start_token, *self.encode(text)[:kept], self.end_token] for text in texts)

    def _merge(self, word: str) -> tuple[int, ...]:
        if word in SPECIAL_WORDS:
            return (self.start_token + SPECIAL_WORDS.index(word),)
        symbols = "".join(self._byte_symbols[byte] for byte in word.encode())
        return tuple(token.id for token in self._bpe.tokenize(symbols))


def vocabulary(vocab_size: int) -> tuple[list[str], list[tuple[str, str]]]:
    """The tokens by id, all but start and end, and the merges by rank: pairs of tokens that become one."""
    merges = _merges()[: vocab_size - MIN_VOCAB_SIZE]
    symbols = sorted(byte_symbols())  # the vocabulary's order: first the bytes that stand for themselves
    return [*symbols, *(symbol + END_OF_WORD for symbol in symbols), *map("".join, merges)], merges


def byte_symbols() -> list[str]:
    """The visible character that stands for each byte in the merges: its own in Latin-1, or one from U+0100 on."""
    substitutes = map(chr, range(256, 512))
    own = (char if char.isprintable() and char != " " else None for char in map(chr, range(256)))
    return [char or next(substitutes) for char in own]


@lru_cache
def _merges() -> list[tuple[str, str]]:
    packed = (resources.files("clip_jax") / "assets" / "clip_bpe_merges.txt.gz").read_bytes()
    pairs = (line.split(" ") for line in gzip.decompress(packed).decode().splitlines())
    return [(left, right) for left, right in pairs]
