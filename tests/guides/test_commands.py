"""Every command and every Python block of the README and the guides: checked here, and run by the slow tests.

A block that needs more than this machine has says so in a comment before it, and in words; its flags are checked only.
"""

import ast
import re
import shlex
from pathlib import Path

import pytest
from support.commands import OTHERS, check, check_flags, furnish, run_steps, setup_extras, words
from support.markdown import CLOUD, GUIDES, ROOT, blocks, code, prose

README = ROOT / "README.md"
PAGES = (README, *GUIDES)
CONFIGS = sorted((ROOT / "configs").glob("*.py"))
NEEDS = ("a cloud account", "libtpu, minutes", "a download", "downloads, hours", "minutes: .ci/run runs both")
# The demo's own config at a fortieth of its size: what a reader's `clip-jax demo` leaves, sooner.
DEMO = ("train", "--config=configs/scenes.py", "--workdir=runs/demo", "--config.steps=20", "--config.evaluate.every=20")
DEMO += ("--config.data.draw.train=600", "--config.data.draw.held_out=240", "--config.batch_size=32")
DEMO += ("--config.checkpoint.every=20",)


def page_name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.fixture(scope="module")
def bare(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bare")
    furnish(folder)
    return folder


@pytest.mark.parametrize("page", [*PAGES, CLOUD], ids=page_name)
def test_flags_and_keys(page, bare, monkeypatch, capsys):
    """Of every command, also of those that nothing here can run."""
    monkeypatch.chdir(bare)
    found = words(blocks(page, "bash"), bare)
    assert found or not blocks(page, "bash")
    for program, *arguments in found:
        if program == "clip-jax":
            check(arguments, monkeypatch, capsys)
        else:
            assert program in OTHERS


@pytest.mark.parametrize("page", [*PAGES, CLOUD, ROOT / "CONTRIBUTING.md"], ids=page_name)
def test_commands_in_the_text(page, monkeypatch, capsys):
    for span in code(prose(page)):
        if span.startswith("clip-jax "):
            check_flags(span, monkeypatch, capsys)
    asked = re.findall(r"\.\[([a-z,]+)\]", page.read_text(encoding="utf-8"))
    assert {extra for several in asked for extra in several.split(",")} <= setup_extras()


@pytest.mark.parametrize("config", CONFIGS, ids=page_name)
def test_commands_of_recipes(config, bare, monkeypatch, capsys):
    monkeypatch.chdir(bare)
    said = ast.get_docstring(ast.parse(config.read_text(encoding="utf-8"))) or ""
    [command] = [line for line in said.splitlines() if line.lstrip().startswith("clip-jax ")]
    check(shlex.split(command)[1:], monkeypatch, capsys)


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_what_blocks_need_is_said(page):
    """In the comment by one of few phrases, and to the reader in the words before the block or in its comments."""
    text = page.read_text(encoding="utf-8")
    for block in blocks(page, "bash", "python"):
        if block.needs:
            assert block.needs in NEEDS, block.name
            before = text[: text.index(block.text)].rsplit("\n\n", 2)
            first = re.split(r"[ ,:]+", block.needs.removeprefix("a "))[0]
            assert first in " ".join(before[-2:]).replace("<!-- needs", "") + block.text, block.name


def test_cloud_commands_are_marked():
    """One by one, on the page that is about them."""
    for block in blocks(CLOUD, "bash"):
        for line in block.text.replace("\\\n", " ").splitlines():
            asks = line.split("#")[0].lstrip().startswith(("gcloud", "clip-jax launch")) or "gs://" in line
            if asks and "--dry-run" not in line:
                assert "☁" in line, line


@pytest.mark.slow
def test_blocks_run(tmp_path):
    """As they stand, one after the other, all pages in the folder where the demo has been, in the README's order."""
    furnish(tmp_path)
    run_steps([{"command": DEMO}], tmp_path)
    linked = re.findall(r"\]\((experiments/guides/\w+\.md)\)", README.read_text(encoding="utf-8"))
    order = [README, *(ROOT / name for name in dict.fromkeys(linked))]
    assert sorted(order) == sorted(PAGES)
    steps = []
    for page in order:
        steps.append({"page": page_name(page)})
        for block in blocks(page, "bash", "python"):
            if block.needs:
                continue
            if block.language == "python":
                steps.append({"python": block.text})
                continue
            for program, *arguments in words([block], tmp_path, real=["tar"]):  # out of the demo's data
                assert program == "clip-jax", program
                steps.append({"command": arguments})
    out = run_steps(steps, tmp_path)
    assert out.count("+ clip-jax") == sum("command" in step for step in steps)
