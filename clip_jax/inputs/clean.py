"""What is done to a text before it becomes tokens: each family of models was trained on texts cleaned in its own way.

The three modes of open_clip begin with `repaired`; those of transformers and SigLIP 2 take a text as it is.
"""

import html
import re
import string
from collections.abc import Callable, Mapping

import ftfy
from tokenizers.normalizers import Lowercase

from clip_jax.config import Cleaning

# Printable ASCII, tab and newline without '&'. ftfy repairs encodings, quotes, widths and ligatures (none of them
# in ASCII), control characters and entities, and html.unescape needs an '&': neither would change such a text.
PLAIN = re.compile(r"[\t\n -%'-~]*")

_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)
_LOWERCASE = Lowercase()


def clip(text: str) -> str:
    """`text` with its encoding repaired, entities resolved, white space collapsed, in lower case.

    OpenAI's CLIP; open_clip calls it `lower`.
    """
    return whitespace(text).lower()


def whitespace(text: str) -> str:
    """`text` with its encoding repaired, entities resolved and white space collapsed (open_clip's `whitespace`)."""
    return " ".join(repaired(text).split())


def canonicalize(text: str) -> str:
    """`text` repaired, in lower case, without ASCII punctuation, white space collapsed; "_" becomes a space.

    open_clip's `canonicalize`, which is that of SigLIP's own evaluation (big_vision) with repairs before.
    """
    return _without_punctuation(repaired(text).replace("_", " "))


def siglip(text: str) -> str:
    """`text` in lower case, without ASCII punctuation, white space collapsed (transformers' SiglipTokenizer).

    It differs from `canonicalize` where a text has "_", which vanishes here, entities or characters to repair.
    """
    return _without_punctuation(well_formed(text))


def lower(text: str) -> str:
    """`text` in lower case, character by character (transformers' Siglip2Tokenizer).

    Unlike str.lower, a sigma at the end of a word is as any other. SigLIP 2 itself was trained with ASCII lowered only.
    """
    return _LOWERCASE.normalize_str(well_formed(text))


def well_formed(text: str) -> str:
    """`text` as UTF-8 can hold it: pairs of surrogates as their character, lone ones as U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def repaired(text: str) -> str:
    """`text` with its encoding, quotes and widths repaired by ftfy, in NFC, and entities resolved, even if twice."""
    return text if PLAIN.fullmatch(text) else html.unescape(html.unescape(ftfy.fix_text(text)))


def _without_punctuation(text: str) -> str:
    return " ".join(text.translate(_WITHOUT_PUNCTUATION).lower().split())


CLEANERS: Mapping[Cleaning, Callable[[str], str]] = {
    "clip": clip,
    "whitespace": whitespace,
    "canonicalize": canonicalize,
    "siglip": siglip,
    "lower": lower,
    "none": well_formed,
}
