# ruff: noqa: RUF001 (characters that look like others are what is tested)
"""Each cleaning mode against the library whose mode it is."""

import html
import random

import ftfy
import pytest
from support.open_clip_shim import import_open_clip
from support.tokenizer_models import c4_like, write
from support.varied_texts import varied_texts

from clip_jax.inputs.clean import CLEANERS, PLAIN, repaired, well_formed

TEXTS = varied_texts(2500, seed=3)


@pytest.fixture(scope="module")
def open_clip():
    return import_open_clip()


@pytest.mark.parametrize(
    ("mode", "theirs"), [("clip", "lower"), ("whitespace", "whitespace"), ("canonicalize", "canonicalize")]
)
def test_modes_of_open_clip(open_clip, mode, theirs):
    reference = open_clip.tokenizer.get_clean_fn(theirs)
    assert [text for text in TEXTS if CLEANERS[mode](text) != reference(text)] == []


def test_siglip_is_that_of_transformers(open_clip, tmp_path):
    from transformers import SiglipTokenizer

    reference = SiglipTokenizer(write(tmp_path, {"spiece.model": c4_like()}) + "/spiece.model").canonicalize_text
    texts = [well_formed(text) for text in TEXTS]
    assert [text for text in texts if CLEANERS["siglip"](text) != reference(text)] == []


def test_lower_is_that_of_transformers(open_clip):
    from transformers import Siglip2Tokenizer

    reference = Siglip2Tokenizer().backend_tokenizer.normalizer  # which also writes "▁" for spaces
    texts = [well_formed(text) for text in TEXTS]
    different = [t for t in texts if CLEANERS["lower"](t).replace(" ", "▁") != reference.normalize_str(t)]
    assert different == []


@pytest.mark.parametrize(
    ("text", "canonicalize", "siglip"),
    [
        ("A dog's  life, isn't it?", "a dogs life isnt it", "a dogs life isnt it"),
        ("snake_case", "snake case", "snakecase"),
        ("fish &amp; chips", "fish chips", "fish amp chips"),
        ("schÃ¶n", "schön", "schã¶n"),
        ("“quoted”", "quoted", "“quoted”"),  # repaired to ASCII quotes, which are removed
    ],
)
def test_canonicalize_and_siglip_differ_by_repairs_and_underscores(text, canonicalize, siglip):
    assert CLEANERS["canonicalize"](text) == canonicalize
    assert CLEANERS["siglip"](text) == siglip


@pytest.mark.parametrize(
    ("mode", "cleaned"),
    [
        ("clip", "ο σκύλος & co."),
        ("whitespace", "Ο ΣΚΎΛΟΣ & Co."),
        ("canonicalize", "ο σκύλος co"),
        ("siglip", "ο σκύλος amp co"),
        ("lower", "ο  σκύλοσ &amp; co. "),
        ("none", "Ο  ΣΚΎΛΟΣ &amp; Co. "),
    ],
)
def test_what_each_mode_leaves(mode, cleaned):
    assert CLEANERS[mode]("Ο  ΣΚΎΛΟΣ &amp; Co. ") == cleaned


@pytest.mark.parametrize("mode", CLEANERS)
def test_every_mode_leaves_text_that_utf8_can_hold(mode):
    for text in ("\ud83d", "a\ud83db", "\ude00\ud83d", "&#xD800;", "\ufeffa\ud83d\ude00"):
        CLEANERS[mode](text).encode()


def test_surrogates_become_their_character_or_its_replacement():
    assert well_formed("\ufeffa\ud83d\ude00 \ud83d \ude00") == "\ufeffa😀 \ufffd \ufffd"
    assert [text for text in TEXTS if text.isascii() and well_formed(text) != text] == []


def test_plain_text_is_what_the_repairs_leave():
    rng = random.Random(1)
    plain = [chr(code) for code in range(128) if PLAIN.fullmatch(chr(code))]
    assert len(plain) == 96
    for text in [*plain, *("".join(rng.choices(plain, k=rng.randrange(60))) for _ in range(300))]:
        assert html.unescape(html.unescape(ftfy.fix_text(text))) == text == repaired(text)
