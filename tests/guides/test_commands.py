"""Every command and every Python block of the README and the guides: checked here, and run by the slow tests.

A block that needs more than this machine has says so in a comment before it, and in words; its flags are checked only.
"""

import re
import runpy
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.commands import OTHERS, check, furnish, run_steps, words
from support.markdown import GUIDES, ROOT, blocks

CLOUD = ROOT / "experiments" / "tpu" / "README.md"
PAGES = (ROOT / "README.md", *GUIDES)
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


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> Path:
    """The workdir of the demo, made sooner."""
    folder = tmp_path_factory.mktemp("demo")
    furnish(folder)
    run_steps([{"command": DEMO}], folder)
    return folder / "runs" / "demo"


@pytest.fixture
def folder(tmp_path, demo) -> Path:
    """As a reader has it: the repository's, after the demo, with images of one's own."""
    furnish(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "demo").symlink_to(demo)
    rng = np.random.default_rng(0)
    for name in ("a.jpg", "b.jpg", "photo.jpg", "star.png"):
        Image.fromarray(rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)).save(tmp_path / name)
    return tmp_path


@pytest.mark.parametrize("page", [*PAGES, CLOUD], ids=page_name)
def test_flags_and_keys(page, bare, monkeypatch, capsys):
    """Of every command, also of those that nothing here can run."""
    monkeypatch.chdir(bare)
    extras = setup_extras(monkeypatch)
    found = words(blocks(page, "bash"), bare)
    assert found or not blocks(page, "bash")
    for program, *arguments in found:
        if program == "clip-jax":
            check(arguments, monkeypatch, capsys)
        elif program == "pip":
            [asked] = re.findall(r"\.\[([a-z,]+)\]", " ".join(arguments))
            assert {*asked.split(",")} <= extras
        else:
            assert program in OTHERS


def setup_extras(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    import setuptools

    found = {}
    with monkeypatch.context() as patch:
        patch.setattr(setuptools, "setup", lambda **options: found.update(options))
        runpy.run_path(str(ROOT / "setup.py"))
    return {*found["extras_require"]}


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
            if "gcloud" in line.split("#")[0].split(" ")[0] or "launch status" in line:
                assert "☁" in line, line


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_blocks_run(page, folder):
    """As they stand, one after the other, in the folder where the demo has been."""
    steps = []
    for block in blocks(page, "bash", "python"):
        if block.needs:
            continue
        if block.language == "python":
            steps.append({"python": block.text})
            continue
        for program, *arguments in words([block], folder):
            assert program == "clip-jax", program
            steps.append({"command": arguments})
    out = run_steps(steps, folder)
    assert out.count("+ clip-jax") == sum("command" in step for step in steps)
