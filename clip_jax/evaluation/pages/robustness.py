"""The section of a page about robustness: accuracy under shifts against that on the base dataset."""

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

from clip_jax.evaluation.pages.curves import effective_robustness
from clip_jax.evaluation.pages.figures import plot, table
from clip_jax.evaluation.pages.frame import plots, section
from clip_jax.evaluation.pages.looks import Look
from clip_jax.evaluation.pages.rows import Row
from clip_jax.evaluation.pages.words import ABSENT, between, breakable, counted, joined, points, shown
from clip_jax.evaluation.record import Record
from clip_jax.evaluation.robustness import Baseline


def robustness_section(rows: Sequence[Row], models: Mapping[str, Look]) -> str:
    """Of each base dataset the plot, and the table of its shifts."""
    sentence = (
        "<p>The same question about images that came about another way. A shift may have fewer classes, so its figure "
        "is set beside the base's on the same classes; the gap between them is what the shift costs. Effective "
        "robustness is how far a model lies above what models trained the usual way lead to expect at its accuracy."
        "</p>"
    )
    parts = [part for row in rows for part in (_robustness_plot(row, models), _shift_table(row))]
    return section("robustness", "Robustness under shifts", sentence, *parts)


def _robustness_plot(row: Row, models: Mapping[str, Look]) -> str:
    found = {model: (_mean(record, "base"), _mean(record, "figure")) for model, record in row.records.items()}
    baselines = {
        (name, base, shifts)
        for record in row.records.values()
        for base, shifts, name in record.details.get("baselines", ())
    }
    several = len({base for _, base, _ in baselines}) > 1
    told = [f"{model} {shown(base)}% and {shown(shifts)}%" for model, (base, shifts) in found.items()]
    read = (
        "Both axes are on a logit scale. On the dotted line a shift costs nothing; the solid line runs through the "
        "models trained the usual way, and a model's height above it is its effective robustness. Trained so are "
        f"{escape(joined(sorted(name for name, _, _ in baselines)))}."
        if several
        else "Both axes are on a logit scale. On the dotted line a shift costs nothing; the further below, the more."
    )
    title = f"{escape(row.title)} and the mean over {counted(len(_shifts(row)), 'shift')}"
    svg = effective_robustness(found, [Baseline(*one) for one in sorted(baselines)], models, row.title)
    alt = f"Accuracy on {row.title} and mean over the shifts: {joined(told)}"
    return plots([plot(title, svg, alt, read)])


def _shift_table(row: Row) -> str:
    names = [f"{breakable(model)}<br>" if len(row.records) > 1 else "" for model in row.records]
    heads = [f"{name}{head}" for name in names for head in ("shift", "same classes, base", "gap")]
    lines = []
    for name in _shifts(row):
        cells = []
        for record in row.records.values():
            one = record.details["shifts"].get(name)
            if one is None:
                cells.append(f"<td>{ABSENT}</td>" * 3)
                continue
            cells.append(
                f"<td>{shown(one['figure'])}<small>{between(one.get('interval'))}</small></td>"
                f"<td>{shown(one['base'])}</td><td>{points(one['figure'] - one['base'])}</td>"
            )
        lines.append((escape(Row("robustness", name, row.metric, {}).title), cells))
    means = [(_mean(record, "figure"), _mean(record, "base")) for record in row.records.values()]
    cells = [f"<td>{shown(mean)}</td><td>{shown(base)}</td><td>{points(mean - base)}</td>" for mean, base in means]
    lines.append(("mean", cells))
    effective = [record.figures.get("effective_robustness") for record in row.records.values()]
    if any(figure is not None for figure in effective):
        cells = [f"<td>{shown(figure, 'effective_robustness')}</td><td></td><td></td>" for figure in effective]
        lines.append(("effective robustness", cells))
    return table("plain", f"Shifts of {row.title}", heads, lines)


def _shifts(row: Row) -> list[str]:
    return list(dict.fromkeys(name for record in row.records.values() for name in record.details["shifts"]))


def _mean(record: Record, name: str) -> float:
    return float(np.mean([one[name] for one in record.details["shifts"].values()]))
