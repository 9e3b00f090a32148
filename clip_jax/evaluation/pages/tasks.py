"""The sections of a page that a task has: retrieval, linear probe, few-shot."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from clip_jax.evaluation.pages.curves import few_shot_curves, search_curves
from clip_jax.evaluation.pages.figures import plot, table
from clip_jax.evaluation.pages.frame import plots, section
from clip_jax.evaluation.pages.looks import Look
from clip_jax.evaluation.pages.plots import against_probe
from clip_jax.evaluation.pages.rows import Row
from clip_jax.evaluation.pages.words import (
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

RECALLS = ("recall_at_1", "recall_at_5", "recall_at_10", "median_rank")
DIRECTIONS = {"image_to_text": "image → text", "text_to_image": "text → image"}


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


def linear_probe_section(rows: Sequence[Row], models: Mapping[str, Look]) -> str:
    """The search for each dataset's strength."""
    figures = _against_probe(rows, models)
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


def _against_probe(rows: Sequence[Row], models: Mapping[str, Look]) -> list[str]:
    """Zero-shot beside the probe, where there are several datasets."""
    gaps: dict[str, dict[str, float]] = {}
    for row in rows:
        for model, record in row.records.items():
            if record.details.get("zero_shot") is not None:
                gaps.setdefault(row.title, {})[model] = record.details["zero_shot"] - record.figure
    if len(gaps) < 2:
        return []
    told, means = [by_model({model: points(gap) for model, gap in of.items()}) for of in gaps.values()], {}
    for model in models:
        own = [of[model] for of in gaps.values() if model in of]
        means |= {model: f"{points(float(np.mean(own)))} on average"} if own else {}
    sentence = (
        "At zero, words alone do as well as a classifier fitted to all labels; the further to the left, the more "
        f"labels add. In points of percent: {escape(by_model(means))}."
    )
    alt = "; ".join(f"{title} {one}" for title, one in zip(gaps, told, strict=True))
    return [plot("Zero-shot against the linear probe", against_probe(gaps, models), alt, sentence)]


def _chosen(record: Record) -> str:
    found = record.details
    validation, images = found["validation_images"], found["train_images"] + found["validation_images"]
    text = (
        f"λ = {found['strength']:.3g}, chosen on {counted(validation, 'image')}; {shown(record.figure)}% on the test "
        f"images after a fit to {images:,}"
    )
    return text if found.get("zero_shot") is None else f"{text}; zero-shot {shown(found['zero_shot'])}%"


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
    sentence = f"With {shots[0]} to {counted(shots[-1], 'image')} of each class: {told}."
    svg = few_shot_curves(details, models, metric)
    return plot(title, svg, alt, escape(f"{sentence} {reached}." if reached else sentence))


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
