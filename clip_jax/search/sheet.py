"""A contact sheet: what was found for each query, as one HTML file that holds its pictures."""

from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from string import Template

from clip_jax.search.search import Hit, Query
from clip_jax.search.thumbnails import thumbnail
from clip_jax.whole_file import write_output

ASSETS = resources.files("clip_jax") / "assets"


def write_sheet(
    queries: Sequence[Query], answers: Sequence[Sequence[Hit]], pictures: Mapping[int, str], about: str, path: Path
) -> None:
    """Writes the page, whole or not at all; `pictures` are data URIs by row, `about` says what was searched.

    Raises UserError where that fails.
    """
    sections = "\n".join(_section(query, hits, pictures) for query, hits in zip(queries, answers, strict=True))
    style, frame = ((ASSETS / name).read_text(encoding="utf-8") for name in ("page.css", "search.html"))
    page = Template(frame).substitute(style=style.strip(), about=escape(about), sections=sections)
    write_output(path, page)


def _section(query: Query, hits: Sequence[Hit], pictures: Mapping[int, str]) -> str:
    asked = escape(query.name)
    if query.image:
        asked = f'<img class="asked" src="{thumbnail(query.image)}" alt=""> {asked}'
    cards = "".join(_card(hit, pictures) for hit in hits)
    return f'<section>\n<h2>{asked}</h2>\n<ol class="hits">\n{cards}</ol>\n</section>'


def _card(hit: Hit, pictures: Mapping[int, str]) -> str:
    picture = pictures.get(hit.row)
    shown = f'<img src="{picture}" alt="{escape(hit.caption or hit.key)}">' if picture else ""
    caption = f"<p>{escape(hit.caption)}</p>" if hit.caption else ""
    return (
        f'<li>{shown}<p><b>{hit.rank}</b> <span class="score">{hit.score:.4f}</span></p>{caption}'
        f"<small>{escape(hit.key)}</small></li>\n"
    )
