"""Every config key in the text of the README and the guides, with its value where one is given, by the schema."""

import re
from dataclasses import asdict, fields
from pathlib import Path

import pytest
from support.config_keys import at, config_with, holds, key_and_text, literal
from support.markdown import CLOUD, GUIDES, ROOT, code, prose, table

from clip_jax.training.config import TrainConfig
from clip_jax.training.recipes import scenes

GROUPS = {field.name for field in fields(TrainConfig)}
KEY = re.compile(r"([a-z_]+)(\.\w+)*(=.+)?")
TABLES = [page for page in GUIDES if page.name in ("training.md", "data.md")]


def keys(page: Path) -> list[str]:
    """What is a key of ours, or KEY=VALUE, between backticks; on the migration page others' code comes first."""
    text = prose(page)
    text = text[text.index("\n## open_clip_train") :] if page.name == "migration.md" else text
    return [one for one in dict.fromkeys(code(text)) if (found := KEY.fullmatch(one)) and found[1] in GROUPS]


@pytest.mark.parametrize("key", sorted({key for page in (*GUIDES, CLOUD, ROOT / "README.md") for key in keys(page)}))
def test_is_taken(key):
    """On top of the demo's recipe, which draws its data."""
    if "=" not in key:
        at(asdict(config_with("seed=0", scenes())), key)
        return
    name, text = key_and_text(key)
    assert holds(at(asdict(config_with(key, scenes())), name), literal(text))


@pytest.mark.parametrize("page", TABLES, ids=lambda page: page.name)
def test_tables_have_keys_alone(page):
    """So that none is passed over above."""
    told = [key for row in table(page, "key", "does") for key in code(row[0])]
    assert told
    assert {*told} <= {*keys(page)}
