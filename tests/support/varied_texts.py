# ruff: noqa: RUF001 (characters that look like others are what is tested)
"""Texts of every kind that a caption can be and some that none should be, from a fixed seed."""

import random

SCRIPTS = {
    "latin": "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich",
    "french": "Voix ambiguë d'un cœur qui au zéphyr préfère les jattes de kiwis",
    "turkish": "PİJAMALI HASTA YAĞIZ ŞOFÖRE ÇABUCAK GÜVENDİ ısı",
    "vietnamese": "Con mèo đen ngồi trên chiếc ghế gỗ cũ",
    "greek": "Ο ΣΚΎΛΟΣ ΤΡΈΧΕΙ στο πάρκο με τους φίλους του",
    "cyrillic": "Съешь же ещё этих мягких французских булок, да выпей чаю",
    "armenian": "Բարեւ ձեզ շունը վազում է այգում",
    "georgian": "ძაღლი დარბის პარკში ᲛᲗᲐᲕᲠᲣᲚᲘ",
    "hebrew": "דג סקרן שט בים מאוכזב ולפתע מצא חברה",
    "arabic": "نص حكيم له سر قاطع وذو شأن عظيم ١٢٣",
    "devanagari": "कुत्ता पार्क में दौड़ता है १२३",
    "bengali": "কুকুরটি পার্কে দৌড়াচ্ছে",
    "tamil": "நாய் பூங்காவில் ஓடுகிறது",
    "thai": "สุนัขวิ่งเล่นในสวนสาธารณะ ๑๒๓",
    "khmer": "ឆ្កែកំពុងរត់ក្នុងសួន",
    "chinese": "一只黑色的狗在公园里奔跑，天气很好。",
    "japanese": "黒い犬が公園を走っています。カタカナ ﾊﾝｶｸ",
    "korean": "검은 개가 공원에서 달리고 있습니다",
    "ethiopic": "ውሻው በፓርኩ ውስጥ ይሮጣል",
    "cherokee": "ᎠᏂᏴᏫᏯ ꭰꮒᏼꮻꮿ",
    "deseret": "𐐔𐐯𐑅𐐨𐑉𐐯𐐻 𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𝟘𝟙",
}
ENTITIES = ["&amp;", "&lt;b&gt;", "&amp;amp;", "&amp;lt;", "&copy", "&#39;", "&#x27;", "&#0;", "&#128;", "&#xD800;"]
ENTITIES += ["R&D", "&notit;", "&EACUTE;", "&nbsp;", "&hellip;", "&#128054;", "&quot;a&quot;", "&;", "&#;", "&zwj;"]
EMOJI = ["😀", "👍🏽", "👨‍👩‍👧‍👦", "🏳️‍🌈", "🇩🇪", "☕️", "❤️‍🔥", "🐕‍🦺", "1️⃣", "🧑🏿‍🚀", "©️", "\u200d", "\ufe0f", "🫠"]
SPECIAL = [
    "<start_of_text>",
    "<end_of_text>",
    "<END_OF_TEXT>",
    "<|startoftext|>",
    "<|endoftext|>",
    "<\u017ftart_of_text>",
]
SPECIAL += [
    "</s>",
    "<s>",
    "<unk>",
    "<pad>",
    "<eos>",
    "<bos>",
    "[CLS]",
    "[SEP]",
    "[PAD]",
    "[MASK]",
    "<extra_id_0>",
    "</w>",
]
CONTROL = [*map(chr, (*range(32), 127, *range(0x80, 0xA0))), "\xad", "\u200b", "\u200e", "\u2028", "\u2029", "\ufeff"]
CONTROL += ["\u3000", "\xa0", "\x1b[31mred\x1b[0m", "\r\n", "▁", "\ufffd", "\ud83d", "\ude00", "\U000e0041"]
PUNCTUATION = [
    "...",
    "?!",
    "'s",
    "don't",
    "I'LL",
    "it’s",
    "“quoted”",
    "«x»",
    "--",
    "—",
    "#tag",
    "@user",
    "a_b",
    "$5.00",
]
PUNCTUATION += ["50%", "C++", "http://example.com/a?b=c&d=e", "½", "²", "Ⅻ", "10,000.50", "ﬁsh", "ＦＵＬＬ", "e\u0301"]
PLAIN = ["a", "photo", "of", "the", "big", "red", "dog", "sitting", "in", "front", "two", "old", "cars", "my", "house"]
RANGES = [
    (32, 127),
    (0, 0x250),
    (0x370, 0x3000),
    (0x3000, 0xD800),
    (0xE000, 0x10000),
    (0x10000, 0x20000),
    (0, 0x110000),
]
MISREADINGS = ("cp1252", "latin-1", "cp1251", "mac_roman", "cp437")


def varied_texts(count: int, seed: int = 0) -> list[str]:
    """`count` texts, each kind of text in its turn."""
    rng = random.Random(seed)
    kinds = (_plain, _script, _entities, _emoji, _mojibake, _special, _control, _punctuation, _any_character, _mixed)
    texts = [kinds[index % len(kinds)](rng) for index in range(count)]
    for index in range(0, count, 50):  # over-long, from words as from one word
        texts[index] = (texts[index] + rng.choice(["", " "])) * rng.randrange(20, 80)
    return texts


def _plain(rng: random.Random) -> str:
    words = rng.choices(PLAIN, k=rng.randrange(14))
    return rng.choice([str, str.upper, str.title])(" ".join(words)) + rng.choice(["", ".", "!", " 2019", "  "])


def _script(rng: random.Random) -> str:
    words = rng.choice(list(SCRIPTS.values())).split()
    return rng.choice([" ", "  ", ""]).join(rng.choices(words, k=rng.randrange(1, 8)))


def _among(rng: random.Random, pieces: list[str]) -> str:
    """The pieces among words, with and without space between."""
    chosen = [rng.choice(pieces) if rng.random() < 0.5 else rng.choice(PLAIN) for _ in range(rng.randrange(1, 9))]
    return "".join(piece + rng.choice(["", " "]) for piece in chosen)


def _entities(rng: random.Random) -> str:
    return _among(rng, ENTITIES)


def _emoji(rng: random.Random) -> str:
    return _among(rng, EMOJI)


def _special(rng: random.Random) -> str:
    return _among(rng, SPECIAL)


def _control(rng: random.Random) -> str:
    return _among(rng, CONTROL)


def _punctuation(rng: random.Random) -> str:
    return _among(rng, PUNCTUATION)


def _mojibake(rng: random.Random) -> str:
    """A text read in the wrong encoding, once or twice."""
    text = _script(rng) + rng.choice(["", " “café” – größe", " 😀", "'s"])
    for _ in range(rng.randrange(1, 3)):
        text = text.encode("utf-8", "replace").decode(rng.choice(MISREADINGS), "replace")
    return text


def _any_character(rng: random.Random) -> str:
    low, high = rng.choice(RANGES)
    return "".join(chr(rng.randrange(low, high)) + rng.choice(["", "", " "]) for _ in range(rng.randrange(1, 12)))


def _mixed(rng: random.Random) -> str:
    kinds = (_plain, _script, _entities, _emoji, _mojibake, _special, _control, _punctuation, _any_character)
    return rng.choice(["", " "]).join(rng.choice(kinds)(rng) for _ in range(rng.randrange(2, 5)))
