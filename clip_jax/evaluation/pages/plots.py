"""Plots that set datasets below each other: the models' figures, their differences, and what wording does to them."""

import textwrap
from collections.abc import Mapping, Sequence

from clip_jax.evaluation.pages.figures import BLUE, GREY, WARM, Axes, draw
from clip_jax.evaluation.pages.looks import INK, WIDTH, Look, handle, legend, percent_axis
from clip_jax.evaluation.pages.rows import Row
from clip_jax.evaluation.pages.words import axis_name, points, shortened

SOURCE_MARKS = ("D", "d", "p", "h")
LABEL, LINES = 19, 2
MANY = 12  # rows from which on the axis is labelled above too


def dots(rows: Sequence[Row], models: Mapping[str, Look]) -> str:
    """Of each row the models' figures with their intervals, chance and what is published."""
    models = {model: look for model, look in models.items() if any(model in row.records for row in rows)}
    sources = list(dict.fromkeys(source for row in rows for one in row.records.values() for source in one.published))
    pitch = 0.36 if len(models) < 3 else 0.15 * len(models)

    def paint(axes: Axes) -> None:
        for y, row in enumerate(rows):
            if row.chance is not None:
                axes.plot([row.chance] * 2, [y - 0.3, y + 0.3], color=GREY, linewidth=1.6)
            for i, (model, look) in enumerate(models.items()):
                record, place = row.records.get(model), y + (i - (len(models) - 1) / 2) * 0.7 / len(models)
                if record is None:
                    continue
                for source, figure in record.published.items():
                    mark = SOURCE_MARKS[sources.index(source) % len(SOURCE_MARKS)]
                    axes.plot(figure, place, mark, markersize=6.5, mfc="none", mec=look.colour, mew=0.9)
                if record.interval:
                    axes.plot(record.interval, [place] * 2, color=look.colour, linewidth=2.2, alpha=0.55)
                axes.plot(record.figure, place, look.mark, markersize=5, color=look.colour, mec="none")
        _label_rows(axes, [row.title for row in rows])
        axes.tick_params(axis="x", labeltop=len(rows) > MANY)
        percent_axis(axes.xaxis, axis_name([row.metric for row in rows]))
        handles = [handle(look.mark, look.colour, look.name) for look in models.values()]
        if any(row.chance is not None for row in rows):
            handles.append(handle("|", GREY, "chance"))
        for i, source in enumerate(sources):
            mark = SOURCE_MARKS[i % len(SOURCE_MARKS)]
            handles.append(handle(mark, GREY, f"published: {shortened(source, 20)}", hollow=True))
        legend(axes, handles)

    return draw(paint, WIDTH, 0.75 + pitch * len(rows) + 0.1 * len(models))


def differences(rows: Sequence[Row], first: str, second: str) -> str:
    """Bars of how far the first model lies above the second, sorted; pale where the two intervals meet.

    Source: figure 5 of the paper.
    """

    def gap(row: Row) -> float:
        return row.records[first].figure - row.records[second].figure

    order = sorted(rows, key=gap, reverse=True)

    def paint(axes: Axes) -> None:
        for y, row in enumerate(order):
            ahead, alpha = gap(row) >= 0, 0.4 if _meet(row, first, second) else 1
            axes.barh(y, gap(row), 0.68, color=BLUE if ahead else WARM, alpha=alpha)
            offset, side = ((4, 0), "left") if ahead else ((-4, 0), "right")
            axes.annotate(points(gap(row)), (gap(row), y), offset, textcoords="offset points", va="center", ha=side)
        axes.axvline(0, color=GREY, linewidth=0.8)
        axes.margins(x=0.3)
        _label_rows(axes, [row.title for row in order])
        axes.xaxis.set_major_formatter(lambda value, _: points(value).removesuffix(".0").lstrip("±"))
        axes.set_xlabel("difference, points of percent")

    return draw(paint, WIDTH, 0.7 + 0.36 * len(rows))


def against_probe(gaps: Mapping[str, Mapping[str, float]], models: Mapping[str, Look]) -> str:
    """By dataset and model how far zero-shot lies above the linear probe, sorted.

    Source: figures 5 and 8 of the paper.
    """
    order = sorted(gaps, key=lambda dataset: -max(gaps[dataset].values()))
    shown = [model for model in models if any(model in of for of in gaps.values())]

    def paint(axes: Axes) -> None:
        axes.axvline(0, color=GREY, linewidth=0.8)
        for y, dataset in enumerate(order):
            for i, model in enumerate(shown):
                if (gap := gaps[dataset].get(model)) is not None:
                    place, look = y + (i - (len(shown) - 1) / 2) * 0.7 / len(shown), models[model]
                    axes.plot([0, gap], [place] * 2, color=look.colour, linewidth=1.6, alpha=0.45)
                    axes.plot(gap, place, look.mark, markersize=5.5, color=look.colour, mec="none")
        _label_rows(axes, order)
        axes.xaxis.set_major_formatter(lambda value, _: points(value).removesuffix(".0").lstrip("±"))
        axes.set_xlabel("zero-shot minus linear probe, points of percent")
        legend(axes, [handle(models[model].mark, models[model].colour, models[model].name) for model in shown])

    return draw(paint, WIDTH, 0.85 + max(0.3, 0.15 * len(shown)) * len(order) + 0.1 * len(shown))


def strip(wordings: Mapping[str, dict], models: Mapping[str, Look], metric: str) -> str:
    """By model a dot for each template alone, and the two ensembles of all; `wordings` as in zero-shot's details."""

    def paint(axes: Axes) -> None:
        for y, (model, wording) in enumerate(wordings.items()):
            alone, look = list(wording["by_template"].values()), models[model]
            # The golden section spreads them evenly and the same each time, so that equal figures can be told apart.
            places = [y - 0.22 + 0.44 * (0.618034 * i % 1) for i in range(len(alone))]
            axes.plot(alone, places, "o", markersize=5, color=look.colour, alpha=0.4, mec="none")
            axes.plot([wording["probability_ensemble"]] * 2, [y - 0.36, y + 0.36], color=INK, ls=(0, (2, 1.4)))
            axes.plot([wording["embedding_ensemble"]] * 2, [y - 0.36, y + 0.36], color=INK, linewidth=2.4)
        _label_rows(axes, [models[model].name for model in wordings])
        percent_axis(axes.xaxis, metric)
        legend(
            axes,
            [
                handle("o", GREY, "each template alone"),
                handle("|", INK, "all, averaged as embeddings"),
                handle("", INK, "all, averaged as probabilities", line=(0, (2, 1.4))),
            ],
            columns=1,
        )

    return draw(paint, WIDTH, 1.35 + 0.55 * len(wordings))


def _label_rows(axes: Axes, names: Sequence[str]) -> None:
    lines = [textwrap.wrap(shortened(name, LABEL * LINES), LABEL, max_lines=LINES, placeholder=" …") for name in names]
    axes.set_yticks(range(len(names)), ["\n".join(each) for each in lines], linespacing=0.95)
    axes.set_ylim(len(names) - 0.45, -0.55)
    axes.tick_params(axis="y", length=0)


def _meet(row: Row, first: str, second: str) -> bool:
    intervals = row.records[first].interval, row.records[second].interval
    if not intervals[0] or not intervals[1]:
        return False
    return intervals[0][0] <= intervals[1][1] and intervals[1][0] <= intervals[0][1]
