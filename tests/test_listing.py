"""A list that prints as a table."""

import copy
import pickle

from clip_jax.listing import Listing

NAMES = Listing(
    ("name", "size", "made of"), {"ant": (1.5, "<leg>"), "elephant": (12345.678, "trunk")}, "Size: in grams."
)


def test_is_a_list():
    assert NAMES == ["ant", "elephant"]
    assert "ant" in NAMES
    assert (NAMES[1], NAMES[-2:], len(NAMES)) == ("elephant", ["ant", "elephant"], 2)
    assert [name.upper() for name in NAMES] == ["ANT", "ELEPHANT"]


def test_text():
    assert str(NAMES) == repr(NAMES)
    assert str(NAMES).splitlines() == [
        "name           size  made of",
        "--------  ---------  -------",
        "ant            1.50  <leg>",
        "elephant  12,345.68  trunk",
        "Size: in grams.",
    ]
    assert NAMES.text(("made of", "name")).splitlines()[2] == "<leg>    ant"


def test_html():
    html = NAMES._repr_html_()
    assert html.startswith("<table><caption>Size: in grams.</caption><thead><tr><th>name</th>")
    assert "&lt;leg&gt;" in html
    assert "<leg>" not in html
    assert html.count("<tr>") == 3


def test_empty():
    assert str(Listing(("name", "size"), {})) == "name  size\n----  ----"


def test_copies():
    for same in (copy.deepcopy(NAMES), pickle.loads(pickle.dumps(NAMES))):
        assert same == NAMES
        assert str(same) == str(NAMES)
