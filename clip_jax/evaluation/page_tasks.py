"""The sections of a page that a task has: retrieval, few-shot, linear probe, robustness."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from clip_jax.evaluation.figures import plot, table
from clip_jax.evaluation.page_curves import effective_robustness, few_shot_curves, search_curves
from clip_jax.evaluation.page_looks import Look
from clip_jax.evaluation.page_rows import Row
from clip_jax.evaluation.page_words import (
    ABSENT,
    axis_name,
    between,
    breakable,
    by_model,
    counted,
    joined,
    metric_name,
    points,
    shown,
)
from clip_jax.evaluation.record import Record
from clip_jax.evaluation.robustness import Baseline

RECALLS = ("recall_at_1", "recall_at_5", "recall_at_10", "median_rank")
DIRECTIONS = {"image_to_text": "image → text", "text_to_image": "text → image"}


def section(name: str, heading: str, *parts: str) -> str:
    """A section of that id; parts are HTML."""
    return f'<section id="{name}">\n<h2>{heading}</h2>\n' + "\n".join(parts) + "\n</section>"


def plots(figures: Sequence[str]) -> str:
    """Plots beside each other, as many as there is room for."""
    return f'<div class="plots">{"".join(figures)}</div>'


def retrieval_section(rows: Sequence[Row]) -> str:
    """Recalls in both directions."""
    names = [f"{direction}_{recall}" for direction in DIRECTIONS for recall in RECALLS]
    heads = [f"{way}<br>{metric_name(recall)}" for way in DIRECTIONS.values() for recall in RECALLS]
    heads = [head.replace(" ", "&nbsp;") for head in heads]
    lines = []
    for row in rows:
        for model, record in row.records.items():
            intervals = record.details.get("intervals", {})
            cells = [
                f"<td>{shown(record.figures.get(name), name)}<small>{between(intervals.get(name))}</small></td>"
                for name in names
            ]
            captions = counted(record.details.get("captions", 0), "caption")
            prefix = f", each after “{escape(record.details['prefix'])}”" if record.details.get("prefix") else ""
            below = f"<small>{breakable(model)}; {counted(record.images, 'image')}, {captions}{prefix}</small>"
            lines.append((escape(row.title) + below, cells))
    sentence = (
        "<p>Image to text: how often one of an image's own captions is among the first 1, 5 or 10 of all captions. "
        "Text to image: how often a caption's image is among the first of all images. Percent, with the 95% range "
        "below; the median rank is 1 where half of them or more come first.</p>"
    )
    return section("retrieval", "Retrieval", sentence, table("plain", "Retrieval", heads, lines))


def few_shot_section(rows: Sequence[Row], models: Mapping[str, Look]) -> str:
    """The curves of each dataset, after their average where there are several."""
    figures = []
    if average := _average_few_shot(rows):
        title = f"Average over {counted(len(rows), 'dataset')}"
        figures.append(_few_shot_plot(title, average, models, axis_name([row.metric for row in rows])))
    for row in rows:
        details = {model: record.details for model, record in row.records.items()}
        figures.append(_few_shot_plot(escape(row.title), details, models, metric_name(row.metric)))
    seeds = sorted({record.details["seeds"] for row in rows for record in row.records.values()})
    draws = joined([*map(str, seeds[:-1]), counted(seeds[-1], "draw")])
    sentence = (
        "<p>A linear classifier is fitted to the features of a few labelled images of each class, and judged on the "
        f"test images: the mean over {draws} of these images, and its standard error as a bar. The dashed line "
        "is zero-shot, which sees no labelled image; where a curve crosses it, labels begin to be worth more than "
        "words.</p>"
    )
    return section("few-shot", "Few-shot", sentence, plots(figures))


def _few_shot_plot(title: str, details: Mapping[str, dict[str, Any]], models: Mapping[str, Look], metric: str) -> str:
    reached = by_model(
        {model: _reached(found) for model, found in details.items() if found.get("zero_shot") is not None}
    )
    told = by_model(
        {model: f"{shown(found['mean'][0])}% to {shown(found['mean'][-1])}%" for model, found in details.items()}
    )
    shots = next(iter(details.values()))["shots"]
    alt = f"{metric} against {shots[0]} to {shots[-1]} labelled images of each class. {told}"
    return plot(title, few_shot_curves(details, models, metric), alt, f"{escape(reached)}." if reached else "")


def _reached(found: dict[str, Any]) -> str:
    """How many images of each class are worth as much as zero-shot."""
    enough = [count for count, mean in zip(found["shots"], found["mean"], strict=True) if mean >= found["zero_shot"]]
    when = f"at {counted(enough[0], 'image')}" if enough else f"at no number up to {found['shots'][-1]} images"
    return f"{shown(found['zero_shot'])}%, zero-shot, is reached {when} of each class"


def _average_few_shot(rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """The mean over the rows as details of few-shot; empty unless several rows have the same models and shots."""
    every = [record.details for row in rows for record in row.records.values()]
    alike = len({tuple(row.records) for row in rows}) == len({tuple(one["shots"]) for one in every}) == 1
    if len(rows) < 2 or not alike:
        return {}
    found = {}
    for model in rows[0].records:
        details = [row.records[model].details for row in rows]
        errors = np.array([[math.nan if e is None else e for e in one["error"]] for one in details])
        zero_shot = [one["zero_shot"] for one in details if one.get("zero_shot") is not None]
        found[model] = {
            "shots": details[0]["shots"],
            "mean": np.mean([one["mean"] for one in details], axis=0).tolist(),
            "error": (np.sqrt((errors**2).sum(axis=0)) / len(rows)).tolist(),
            "zero_shot": float(np.mean(zero_shot)) if len(zero_shot) == len(rows) else None,
        }
    return found


def linear_probe_section(rows: Sequence[Row], models: Mapping[str, Look]) -> str:
    """The search for each dataset's strength."""
    figures = []
    for row in rows:
        details = {model: record.details for model, record in row.records.items()}
        told = by_model({model: _chosen(record) for model, record in row.records.items()})
        alt = f"{metric_name(row.metric)} on validation images against the strength of the regularisation. {told}"
        svg = search_curves(details, models, metric_name(row.metric))
        figures.append(plot(escape(row.title), svg, alt, f"{escape(told)}."))
    sentence = (
        "<p>A linear classifier is fitted to the features of training images. How strongly it is regularised is "
        "searched for on validation images: every second decade first, then ever closer around the best. The ringed "
        "strength is used to fit once more, to training and validation images together; too little of it lets the "
        "classifier learn the training images by heart, too much lets it learn nothing.</p>"
    )
    return section("linear-probe", "Linear probe", sentence, plots(figures))


def _chosen(record: Record) -> str:
    found = record.details
    validation, images = found["validation_images"], found["train_images"] + found["validation_images"]
    text = (
        f"λ = {found['strength']:.3g}, chosen on {counted(validation, 'image')}; {shown(record.figure)}% on the test "
        f"images after a fit to {images:,}"
    )
    return text if found.get("zero_shot") is None else f"{text}; zero-shot {shown(found['zero_shot'])}%"


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
    effective = [record.figures.get("effective_robustness") for record in row.records.values()]
    if any(figure is not None for figure in effective):
        cells = [f"<td>{shown(figure, 'effective_robustness')}</td><td></td><td></td>" for figure in effective]
        lines.append(("effective robustness", cells))
    return table("plain", f"Shifts of {row.title}", heads, lines)


def _shifts(row: Row) -> list[str]:
    return list(dict.fromkeys(name for record in row.records.values() for name in record.details["shifts"]))


def _mean(record: Record, name: str) -> float:
    return float(np.mean([one[name] for one in record.details["shifts"].values()]))
