"""Figures for an HTML page: plots as SVG, matrices as tables of coloured cells, images as data URIs."""

import base64
import io
import re
import warnings
from collections.abc import Callable, Sequence
from html import escape
from typing import Any, TypeAlias

from PIL import Image

from clip_jax.inputs.images import FORMATS

Axes: TypeAlias = Any
"""Those of Matplotlib, which is imported only to draw."""

BLUE, WARM, GREY = "#24548c", "#bf4f26", "#5d6878"  # as in assets/page.css
# Names of fonts stay in the SVG, which then takes the page's own; Matplotlib lays text out with DejaVu, a wide font.
PAGE_FONT = "font-family: system-ui, 'Segoe UI', 'Liberation Sans', sans-serif"
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "clip_jax",
    "font.family": ["DejaVu Sans"],
    "font.size": 9.75,  # points: 13 CSS pixels
    "text.parse_math": False,  # a dollar sign in a name is one
    "text.color": GREY,
    "axes.labelcolor": GREY,
    "axes.edgecolor": "#c3cad3",
    "xtick.color": GREY,
    "ytick.color": GREY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#edf0f3",
}


def draw(paint: Callable[[Axes], None], width: float = 3.4, height: float = 2.3) -> str:
    """An SVG, in inches as wide and high as that, of what `paint` puts on its axes."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    text = io.StringIO()
    with rc_context(STYLE), warnings.catch_warnings():  # pyright: ignore[reportArgumentType]
        warnings.filterwarnings("ignore", "Glyph .* missing")  # from DejaVu; the page's fonts may have it
        figure = Figure(figsize=(width, height), layout="constrained")
        paint(figure.subplots())
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    return re.sub(r'font-family: [^;"]*', PAGE_FONT, text.getvalue())


def curve(steps: Sequence[float], values: Sequence[float], percent: bool = False, chance: float | None = None) -> str:
    """An SVG of `values` against `steps`, with a dashed line at `chance`; `percent` shows shares from 0 to 100%."""
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    def paint(axes: Axes) -> None:
        axes.plot(steps, values, color=BLUE, linewidth=1.6, marker="o" if len(steps) < 25 else "", markersize=3.5)
        if percent:
            axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        if chance is not None:
            axes.axhline(chance, color=WARM, linewidth=1.2, linestyle="--")
            axes.annotate(
                "chance", (1, chance), (0, 3), axes.get_yaxis_transform(), "offset points", color=WARM, ha="right"
            )
        axes.set_ylim(0, 1.02 if percent else None)
        axes.set_xlim(0, None)
        axes.set_xlabel("step")
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))

    return draw(paint)


def image_tag(image: bytes, alt: str) -> str:
    """An <img> that holds an encoded image (JPEG, PNG, WebP) itself."""
    with Image.open(io.BytesIO(image), formats=FORMATS) as opened:
        return _data_image(opened.get_format_mimetype() or "image/jpeg", image, alt)


def svg_tag(svg: str, alt: str) -> str:
    """An <img> that holds an SVG itself."""
    return _data_image("image/svg+xml", svg.encode(), alt)


def _data_image(mime: str, content: bytes, alt: str) -> str:
    return f'<img src="data:{mime};base64,{base64.b64encode(content).decode()}" alt="{escape(alt)}">'


def cell(strength: float, text: str, own: bool, tip: str) -> str:
    """A table cell whose blue grows with `strength` in [0, 1]; `own` outlines it, `tip` shows on hovering."""
    shade = f"background:rgb(36 84 140/{0.04 + 0.96 * strength:.2f});color:{'#fff' if strength > 0.65 else '#1d2530'}"
    return f'<td style="{shade}"{" class=own" if own else ""} title="{escape(tip)}">{text}</td>'


def table(
    kind: str, label: str, column_heads: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]], corner: str = ""
) -> str:
    """A table of class `kind` that scrolls where it is too wide; heads are HTML, rows are (head, cells), all HTML.

    `corner`, also HTML, is the head of the rows' heads.
    """
    heads = "".join(f'<th scope="col">{head}</th>' for head in column_heads)
    body = "".join(f'<tr><th scope="row">{head}</th>{"".join(cells)}</tr>\n' for head, cells in rows)
    return scrolling(
        label, f'<table class="{kind}"><thead><tr><td>{corner}</td>{heads}</tr></thead>\n<tbody>{body}</tbody></table>'
    )


def scrolling(label: str, html: str) -> str:
    """A region that scrolls, by keys too, where what it holds is too wide."""
    return f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(label)}">{html}</div>'


def plot(title: str, svg: str, alt: str, sentence: str) -> str:
    """A <figure> with a plot below its title and above how to read it; title and sentence are HTML."""
    return f"<figure><figcaption>{title}</figcaption>{svg_tag(svg, alt)}<p>{sentence}</p></figure>"
