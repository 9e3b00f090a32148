"""The notebooks as they are committed: no outputs, one install cell that leaves alone what is there, code that fits."""

import ast
import importlib
import importlib.util
import subprocess
import sys
from importlib import metadata
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import nbformat
import numpy as np
import pytest
from packaging.requirements import Requirement
from PIL import ExifTags, Image
from support.notebooks import FOLDER, NAMES, code_of, read

import clip_jax

REPOSITORY = "github.com/OWNER/clip_jax"  # until there is one; every notebook and the README have it
HEAVY = ("torch", "transformers", "google")  # which only some have, and importing takes seconds


@pytest.mark.parametrize("name", NAMES)
def test_committed_without_outputs(name):
    notebook = read(name)

    assert nbformat.writes(notebook) + "\n" == (FOLDER / f"{name}.ipynb").read_text(encoding="utf-8")
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert notebook.metadata.language_info == {"name": "python"}
    for cell in notebook.cells:
        hidden = {"cellView": "form", "jupyter": {"source_hidden": True}}
        assert cell.metadata == (hidden if cell.id == "install" else {})
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None


@pytest.mark.parametrize("name", NAMES)
def test_begins_with_title_badge_and_install_cell(name):
    notebook = read(name)
    first, install = notebook.cells[:2]
    title, _, badge, *_ = first.source.splitlines()

    assert title.startswith("# ")
    image = "https://colab.research.google.com/assets/colab-badge.svg"
    place = REPOSITORY.replace("github.com", "https://colab.research.google.com/github")
    assert badge == f"[![Open in Colab]({image})]({place}/blob/main/experiments/notebooks/{name}.ipynb)"
    assert install.cell_type == "code"
    assert install.source == read(NAMES[0]).cells[1].source
    assert f'"git+https://{REPOSITORY}"' in install.source


def test_readme_shows_every_notebook():
    readme = (FOLDER.parents[1] / "README.md").read_text(encoding="utf-8")

    for name in NAMES:
        assert f"(experiments/notebooks/{name}.ipynb)" in readme
        assert f"{REPOSITORY.removeprefix('github.com/')}/blob/main/experiments/notebooks/{name}.ipynb" in readme


@pytest.mark.parametrize("name", NAMES)
def test_every_section_of_code_is_explained_and_asserts_are_said_in_words(name):
    cells = read(name).cells
    asserts = [node for node in ast.walk(ast.parse(code_of(name))) if isinstance(node, ast.Assert)]

    for before, cell in pairwise(cells):
        assert not (before.cell_type == cell.cell_type == "code"), f"nothing is said before {cell.id}"
    assert len(asserts) >= 4
    assert all(isinstance(node.msg, ast.Constant) for node in asserts)


@pytest.mark.parametrize("name", NAMES)
def test_imports_resolve(name):
    tree = ast.parse(code_of(name), f"{name}.ipynb")

    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                assert importlib.util.find_spec(alias.name), alias.name
        elif isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] not in HEAVY:
            module = importlib.import_module(str(node.module))
            for alias in node.names:
                assert hasattr(module, alias.name), f"{node.module}.{alias.name}"


class Pip:
    """What is installed on a machine of which `importlib.metadata` and pip are asked in this one's place."""

    def __init__(self, monkeypatch, installed: dict[str, str], with_clip_jax: bool = False) -> None:
        self.installed, self.calls = installed, []
        requirements = metadata.requires("clip_jax")
        there = SimpleNamespace()
        monkeypatch.setattr(
            importlib.util, "find_spec", lambda name: there if with_clip_jax or name != "clip_jax" else None
        )
        monkeypatch.setattr(metadata, "version", self._version)
        monkeypatch.setattr(metadata, "requires", lambda name: requirements)
        monkeypatch.setattr(subprocess, "run", lambda command, check: self.calls.append(command[4:]))

    def _version(self, name: str) -> str:
        if name not in self.installed:
            raise metadata.PackageNotFoundError(name)
        return self.installed[name]


def needed(extra: str = "train") -> list[Requirement]:
    """What the package asks for on this machine, TensorFlow under the name that Colab has it by."""
    lines = metadata.requires("clip_jax") or []
    return [one for one in map(Requirement, lines) if one.marker is None or one.marker.evaluate({"extra": extra})]


def least(requirement: Requirement) -> str:
    """The lowest version that will do."""
    return next((one.version for one in requirement.specifier if one.operator in (">=", "==")), "1.0")


INSTALL = read(NAMES[0]).cells[1].source


def test_install_cell_does_nothing_where_clip_jax_is(monkeypatch):
    calls = []
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: calls.append(1))
    exec(INSTALL, {})

    assert not calls


def test_install_cell_leaves_alone_what_will_do(monkeypatch):
    there = {one.name: least(one) for one in needed()}
    there["tensorflow"] = there.pop("tensorflow-cpu", "") or there["tensorflow"]
    del there["ml-collections"]
    there["torch"] = "2.0"
    pip = Pip(monkeypatch, there)
    exec(INSTALL, {})

    assert pip.calls[0] == ["--quiet", "--no-deps", f"clip_jax @ git+https://{REPOSITORY}"]
    assert [call[:2] for call in pip.calls[1:]] == [["--quiet", pip.calls[1][1]]]
    assert pip.calls[1][1].startswith("ml-collections>=")


def test_install_cell_goes_on_where_it_failed(monkeypatch):
    """In Colab, where the package came but not all that it needs."""
    there = {one.name: least(one) for one in needed()}
    del there["ml-collections"]
    pip = Pip(monkeypatch, there, with_clip_jax=True)
    monkeypatch.setitem(sys.modules, "google.colab", SimpleNamespace())
    exec(INSTALL, {})

    [(_, package)] = pip.calls
    assert package.startswith("ml-collections>=")


def test_install_cell_asks_for_a_restart_only_where_it_helps(monkeypatch):
    there = {one.name: least(one) for one in needed()} | {"pillow": "1.0"}
    monkeypatch.delitem(sys.modules, "PIL")
    pip = Pip(monkeypatch, there)
    exec(INSTALL, {})
    assert pip.calls[1][1].startswith("pillow>=")
    monkeypatch.undo()

    pip = Pip(monkeypatch, there)
    with pytest.raises(SystemExit, match=r"Upgraded: pillow, .* Restart the session"):
        exec(INSTALL, {})
    assert len(pip.calls) == 2


def test_install_cell_upgrades_an_old_jax_with_what_runs_it(monkeypatch):
    there = {one.name: least(one) for one in needed()} | {"jax": "0.7.2", "jax-cuda12-plugin": "0.7.2"}
    pip = Pip(monkeypatch, there)
    with pytest.raises(SystemExit, match=r"Upgraded: jax, .* Restart the session"):
        exec(INSTALL, {})

    _, (_, *upgraded) = pip.calls
    requirement = Requirement(upgraded[0])
    assert len(upgraded) == 1
    assert (requirement.name, requirement.extras) == ("jax", {"cuda12"})
    assert requirement.specifier == next(one.specifier for one in needed() if one.name == "jax")


@pytest.mark.filterwarnings("ignore:FigureCanvasAgg is non-interactive")
def test_photos_are_asked_for_in_colab_and_turned(monkeypatch, tmp_path):
    import matplotlib.pyplot as plt

    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    lying = Image.Exif()
    lying[ExifTags.Base.Orientation] = 6  # to be turned clockwise
    Image.fromarray(pixels).save(tmp_path / "phone.png", exif=lying)
    colab = SimpleNamespace(files=SimpleNamespace(upload=lambda: {str(tmp_path / "phone.png"): b""}))
    monkeypatch.setitem(sys.modules, "google.colab", colab)
    clip = clip_jax.create("tiny", seed=3)
    [cell] = [cell.source for cell in read("interacting").cells if cell.id == "photos"]
    names: dict[str, Any] = {"sys": sys, "clip": clip, "plt": plt, "np": np, "Image": Image}
    exec(cell, names)

    upright = np.rot90(pixels, -1)
    np.testing.assert_array_equal(np.asarray(names["upright"][0]), upright)
    assert names["results"] == clip.classify([np.ascontiguousarray(upright)], ["dog", "cat"])
    plt.close("all")
