"""What all plots of a page have in common: how each model looks, the legend above, axes in percent."""

from collections.abc import Sequence
from dataclasses import dataclass

from clip_jax.evaluation.pages.figures import BLUE, WARM, Axes
from clip_jax.evaluation.pages.words import shortened

WIDTH = 4.6  # inches of 96 CSS pixels, so that a phone shows it at three quarters
INK = "#1d2530"  # as in assets/page.css
COLOURS = (BLUE, WARM, "#3a7d52", "#7b4b9c", "#a67a14", "#22818f")
MARKS = ("o", "s", "^", "v", "P", "X")


@dataclass(frozen=True)
class Look:
    """By which colour and mark a model is known throughout a page, and its name in plots."""

    colour: str
    mark: str
    name: str


def looks(models: Sequence[str]) -> dict[str, Look]:
    """Of each model; colours come again after six, with other marks."""
    return {
        model: Look(
            COLOURS[i % len(COLOURS)],
            MARKS[(i + i // len(COLOURS)) % len(MARKS)],
            shortened(model, 34),
        )
        for i, model in enumerate(models)
    }


def legend(axes: Axes, handles: Sequence[Axes], columns: int = 0) -> None:
    """Above the axes, from the page's left edge on; in two columns where the names are short."""
    columns = columns or (2 if max(len(handle.get_label()) for handle in handles) < 24 else 1)
    axes.figure.legend(
        handles=handles,
        loc="outside upper left",
        ncols=columns,
        frameon=False,
        handlelength=1.4,
        columnspacing=1.2,
        borderpad=0,
        labelspacing=0.3,
    )


def handle(mark: str, colour: str, name: str, hollow: bool = False, line: object = "none") -> Axes:
    """What a legend shows for a series: its mark, colour and name."""
    from matplotlib.lines import Line2D

    face, width = ("none", 0.9) if hollow else (colour, 1.8 if mark == "|" else 0)
    return Line2D(
        [], [], color=colour, marker=mark, ls=line, markersize=9 if mark == "|" else 6, mfc=face, mew=width, label=name
    )


def percent_axis(axis: Axes, label: str) -> None:
    """Labels an axis, and shows its shares as percentages."""
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    axis.set_major_locator(MaxNLocator(6))
    axis.set_major_formatter(PercentFormatter(1, symbol="%"))
    axis.set_label_text(label)
