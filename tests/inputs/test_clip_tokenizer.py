# ruff: noqa: RUF001 (characters that look like others are what is tested)
"""CLIP's token ids against open_clip's tokenizer, and what holds without it."""

import gzip

import numpy as np
import pytest
from support.open_clip_shim import import_open_clip
from support.varied_texts import varied_texts

from clip_jax.errors import UserError
from clip_jax.inputs.clip_tokenizer import ClipTokenizer

TEXTS = [
    "",
    " \t\n ",
    "a photo of a dog",
    "A PHOTO, of a cat's 2 dogs!!! they're we'll I'd it'S 'tis 10,000.50",
    "tab\tand\nnewline\r\nand\rreturn\x0b\x0c\x1c\x1d\x1e\x1f\x00\x07\x7fcontrol \x1b[36;44mcolour\x1b[0m",
    "fish &amp; chips &lt;b&gt; &amp;amp; &amp;lt; &copy &#39;s &#x27;s &#0; &#128; &#xD800; R&D &notit; &EACUTE;",
    "<start_of_text> and <END_OF_TEXT>, <|startoftext|> <|endoftext|> x<end_of_text>y !<end_of_text>! <start_of_text",
    "<\u017ftart_of_text> it'\u017f 'S '\u017fx don\u2019t \u2018quoted\u2019 \u201cwords\u201d",
    "\u0558 \ua7cd \u212a\u212b \u0130stanbul STRASSE stra\xdfe \u1e9e \u0149 \u01f0",  # odd case and young letters
    "schÃ¶n cafÃ© â€œquotesâ€\x9d âœ” l\u2019Ã©tÃ© Ã la mode \xa0 \x85 \x93",  # text decoded in the wrong encoding
    "ﬁsh ﬂag ＦＵＬＬ　ＷＩＤＴＨ ﾊﾝｶｸ e\u0301 \u00e9 ñ n\u0303",
    "😀👍🏽👨‍👩‍👧 🇩🇪 ☕️ \ufe0f \u200d \u200b \ufeff \u2028 \u2029 \u3000 \xad",
    "Привет, мир! 你好世界 こんにちは 안녕하세요 مرحبا שלום नमस्ते สวัสดี Γειά σου Բարեւ გამარჯობა",
    "½ ² ⅷ ٣ 五 Ⅻ 𝟘 𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𐐀 \U0001e900 \U000e0041",
    "\ud83d\ude00 lone \ud83d and \ude00 surrogates",
    "___ --- ... ?!?! http://example.com/a_b?c=d&e=f#g @user #tag $5.00 50% C++ C# </w> a</w>b",
    "word " * 200,
    "x" * 3000,
    "!" * 500,
    "ab" * 40 + " é" * 120,
]


@pytest.fixture(scope="module")
def open_clip():
    try:
        return import_open_clip()
    except ImportError as error:
        pytest.skip(f"needs open_clip: {error}")


@pytest.mark.parametrize("context_length", [77, 9, 2])
def test_ids_are_those_of_open_clip(open_clip, context_length):
    texts = TEXTS + varied_texts(2500)
    expected = open_clip.SimpleTokenizer(context_length=context_length)(texts).numpy()
    tokens = ClipTokenizer(context_length)(texts)
    different = [text for text, a, b in zip(texts, tokens, expected, strict=True) if not np.array_equal(a, b)]
    assert different == []


@pytest.mark.parametrize(
    ("clean", "theirs"), [("clip", "lower"), ("whitespace", "whitespace"), ("canonicalize", "canonicalize")]
)
def test_ids_after_other_cleaning(open_clip, clean, theirs):
    texts = TEXTS + varied_texts(500, seed=1)
    expected = open_clip.SimpleTokenizer(clean=theirs)(texts).numpy()
    np.testing.assert_array_equal(ClipTokenizer(77, clean=clean)(texts), expected)


def test_long_text_is_encoded_uncut(open_clip):
    reference = open_clip.SimpleTokenizer()
    assert [ClipTokenizer(5).encode(text) for text in TEXTS] == [reference.encode(text) for text in TEXTS]


@pytest.mark.parametrize("merges", [0, 1, 1000])
def test_smaller_vocabulary_keeps_the_first_merges(open_clip, tmp_path, merges):
    with gzip.open(open_clip.tokenizer.default_bpe(), "rt", encoding="utf-8") as file:
        lines = [next(file).rstrip("\n") for _ in range(1 + merges)]
    (tmp_path / "bpe.txt.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    reference = open_clip.SimpleTokenizer(bpe_path=str(tmp_path / "bpe.txt.gz"))
    tokenizer = ClipTokenizer(77, vocab_size=514 + merges)
    assert tokenizer.vocab_size == reference.vocab_size
    tokens = tokenizer(TEXTS)
    np.testing.assert_array_equal(tokens, reference(TEXTS).numpy())
    assert (tokens.max(axis=1) == tokenizer.end_token).all()


def test_known_ids():
    tokens = ClipTokenizer(9)(["a photo of a cat", "a photo of a cat, a photo of a dog"])
    assert tokens.dtype == np.int32
    assert tokens.tolist() == [
        [49406, 320, 1125, 539, 320, 2368, 49407, 0, 0],
        [49406, 320, 1125, 539, 320, 2368, 267, 320, 49407],
    ]


def test_pad_id_fills_up():
    tokens = ClipTokenizer(7, pad_id=49407)(["a cat"])
    assert tokens.tolist() == [[49406, 320, 2368, 49407, 49407, 49407, 49407]]
    assert ClipTokenizer(7, pad_id=49407).decode(tokens[0]) == "a cat"
    with pytest.raises(UserError, match="token id 514 is outside the vocabulary of 514"):
        ClipTokenizer(7, vocab_size=514, pad_id=514)


def test_no_texts_make_no_rows():
    assert ClipTokenizer(77)([]).shape == (0, 77)


@pytest.mark.parametrize(
    ("text", "decoded"),
    [
        ("A Dog's  life", "a dog 's life"),
        ("Größe 你好 😀", "größe 你好 😀"),
        ("price: 10", "price : 1 0"),
        ("", ""),
    ],
)
def test_decode_gives_the_words_back(text, decoded):
    tokenizer = ClipTokenizer(77)
    assert tokenizer.decode(tokenizer([text])[0]) == decoded
    assert tokenizer.decode(tokenizer.encode(text)) == decoded


def test_decode_of_a_cut_character_is_a_replacement():
    tokenizer = ClipTokenizer(77, vocab_size=514)
    assert tokenizer.decode(tokenizer.encode("é")[:1]) == "\ufffd"


@pytest.mark.parametrize("token", [-1, 514])
def test_unknown_id_is_refused(token):
    with pytest.raises(UserError, match=f"token id {token} is outside the vocabulary of 514"):
        ClipTokenizer(77, vocab_size=514).decode([token])


@pytest.mark.parametrize("arguments", [(77, 513), (77, 49409), (1, 49408)])
def test_impossible_sizes_are_refused(arguments):
    with pytest.raises(UserError, match="must"):
        ClipTokenizer(*arguments)


def test_one_string_for_a_list_is_refused():
    with pytest.raises(UserError, match=r"not 'a dog'; \['a dog'\] would be"):
        ClipTokenizer(77)("a dog")


@pytest.mark.parametrize(("value", "kind"), [(None, "NoneType"), (b"a dog", "bytes"), (float("nan"), "float")])
def test_what_is_no_string_is_refused(untyped, value, kind):
    with pytest.raises(UserError, match=f"a text must be a string, not {value!r} of type {kind}"):
        ClipTokenizer(77)(["a dog", value])
