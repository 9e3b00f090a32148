"""Tables of the README and the guides that list what the package has: all of it, and nothing else."""

from pathlib import Path

from support.commands import setup_extras
from support.markdown import GUIDES, ROOT, code, table

from clip_jax.data.spec import OPTIONS
from clip_jax.evaluation.benchmarks import list_benchmarks
from clip_jax.evaluation.datasets import GROUPS
from clip_jax.training.workdir import FREE

PAGES = {page.name: page for page in GUIDES}


def test_extras():
    told = [code(row[0])[0] for row in table(ROOT / "README.md", "extra", "for")]
    assert sorted(told) == sorted(setup_extras())


def test_kinds_of_data_and_their_options():
    """Beside its own options, a kind's cell may have values of them, but no other kind's option."""
    known = {option for options in OPTIONS.values() for option in options}
    told = {}
    for kinds, _, options in table(PAGES["data.md"], "kind", "location", "options"):
        named = {word.partition("=")[0] for word in code(options)} & known
        told |= {kind: named for kind in code(kinds)}
    assert told == {kind: {*options} for kind, options in OPTIONS.items()}


def test_benchmarks():
    rows = table(PAGES["evaluation.md"], "group, for `--datasets`", "benchmarks")
    told = {code(group)[0]: code(names) for group, names in rows}
    assert told == {group: list_benchmarks(group) for group in GROUPS}


def test_recipes():
    told = [Path(name).name for row in table(PAGES["training.md"], "config", "is") for name in code(row[0])]
    assert sorted(told) == sorted(path.name for path in (ROOT / "configs").glob("*.py"))


def test_what_may_change_in_a_workdir():
    rows = table(PAGES["training.md"], "it says, or does", "then")
    [then] = [then for says, then in rows if says == "the workdir holds another run"]
    assert {*code(then)} == FREE
