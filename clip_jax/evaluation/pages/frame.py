"""A page as one HTML file: its frame in assets, the style that all pages share, its sections, and writing it whole."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib import resources
from importlib.metadata import version
from pathlib import Path
from string import Template

import clip_jax
from clip_jax.whole_file import write_output

ASSETS = resources.files("clip_jax") / "assets"


def write_framed(frame: str, parts: Mapping[str, str], path: Path) -> None:
    """Writes a frame of assets, its $names filled with `parts` and $style with page.css, whole or not at all.

    Raises UserError where that fails.
    """
    style = (ASSETS / "page.css").read_text(encoding="utf-8").strip()
    page = Template((ASSETS / frame).read_text(encoding="utf-8")).substitute({"style": style, **parts})
    write_output(path, page)


def footer() -> str:
    """By which versions, and when, the page was made."""
    versions = f"clip_jax {clip_jax.__version__}, jax {version('jax')}, flax {version('flax')}"
    return f"{versions}. {datetime.now():%Y-%m-%d %H:%M}"


def section(name: str, heading: str, *parts: str) -> str:
    """A section of that id; parts are HTML."""
    return f'<section id="{name}">\n<h2>{heading}</h2>\n' + "\n".join(parts) + "\n</section>"


def plots(figures: Sequence[str]) -> str:
    """Plots beside each other, as many as there is room for."""
    return f'<div class="plots">{"".join(figures)}</div>'
