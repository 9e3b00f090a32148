"""What there is to see about zero-shot on one dataset: calibration, wording, classes and confusions."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from clip_jax.evaluation.pages.curves import reliability
from clip_jax.evaluation.pages.figures import plot, table
from clip_jax.evaluation.pages.frame import plots
from clip_jax.evaluation.pages.looks import Look
from clip_jax.evaluation.pages.plots import strip
from clip_jax.evaluation.pages.rows import Row
from clip_jax.evaluation.pages.scores import other_figures
from clip_jax.evaluation.pages.words import ABSENT, breakable, by_model, metric_name, shown

CLASSES_SHOWN, ENDS_SHOWN = 50, 15  # all of so many classes; of more, so many worst and best
TEMPLATES_SHOWN = 8
COLUMN = 13  # classes below each other before a second column begins


def dataset_block(row: Row, models: Mapping[str, Look], is_open: bool) -> str:
    """A block that opens and closes, headed by the dataset and its figures."""
    details = {model: record.details for model, record in row.records.items()}
    heads = [breakable(model) for model in row.records]
    parts = [
        table("plain", f"All figures of {row.title}", heads, other_figures(row)),
        plots(_calibration(row, details, models) + _wording(row, details, models)),
        _templates(row, details),
        _classes(row, details, models),
        _confusions(row, details),
    ]
    return (
        f"<details{' open' if is_open else ''}><summary><b>{escape(row.title)}</b> "
        f"<small>{escape(row.note)}</small></summary>\n" + "\n".join(filter(None, parts)) + "</details>"
    )


def _calibration(row: Row, details: Mapping[str, dict[str, Any]], models: Mapping[str, Look]) -> list[str]:
    bins = {model: found["reliability"] for model, found in details.items() if found.get("reliability")}
    if not bins:
        return []
    errors = {model: row.records[model].figures.get("calibration_error") for model in bins}
    told = by_model({model: f"{shown(error)}%" for model, error in errors.items()})
    sentence = (
        "Of the answers given with some confidence, how many are right; larger marks are more images. Below the "
        f"dashed line the model is surer than it should be, above it less. Expected calibration error: {escape(told)}."
    )
    alt = f"Share of right answers against confidence on {row.title}; expected calibration error: {told}"
    return [plot("Calibration", reliability(bins, models), alt, sentence)]


def _wording(row: Row, details: Mapping[str, dict[str, Any]], models: Mapping[str, Look]) -> list[str]:
    wordings = {model: found["wording"] for model, found in details.items() if found.get("wording")}
    if not wordings:
        return []
    told = by_model(
        {
            model: f"{_range(list(one['by_template'].values()))} alone, "
            f"{shown(one['embedding_ensemble'])}% together as embeddings, "
            f"{shown(one['probability_ensemble'])}% as probabilities"
            for model, one in wordings.items()
        }
    )
    sentence = (
        "What each wording of the prompt reaches alone, and all of them together, their embeddings averaged or their "
        f"probabilities. The wider the dots lie, the more wording matters. {escape(told)}."
    )
    alt = f"{metric_name(row.metric)} of each template on {row.title}: {told}"
    return [plot("Wording", strip(wordings, models, metric_name(row.metric)), alt, sentence)]


def _range(figures: list[float]) -> str:
    low, high = shown(min(figures)), shown(max(figures))
    return f"{low}%" if low == high else f"{low}% to {high}%"


def _templates(row: Row, details: Mapping[str, dict[str, Any]]) -> str:
    wordings = {model: found["wording"] for model, found in details.items() if found.get("wording")}
    if not wordings:
        told = {model: _listed(found["templates"]) for model, found in details.items() if found.get("templates")}
        if not told:
            return ""
        text = next(iter(told.values())) if len(set(told.values())) == 1 else by_model(told)
        return f"<h3>Templates</h3><p>{escape(text)}</p>"
    first = next(iter(wordings.values()))["by_template"]
    names = dict.fromkeys([*sorted(first, key=first.__getitem__, reverse=True)])
    names |= dict.fromkeys(name for wording in wordings.values() for name in wording["by_template"])
    lines = [
        (
            f"<b>all, averaged as {space}</b>",
            [f"<td><b>{shown(one[f'{key}_ensemble'])}</b></td>" for one in wordings.values()],
        )
        for space, key in (("embeddings", "embedding"), ("probabilities", "probability"))
    ]
    lines += [
        (escape(name), [f"<td>{shown(one['by_template'].get(name))}</td>" for one in wordings.values()])
        for name in names
    ]
    heads = [breakable(model) for model in wordings]
    tall = table("plain", f"Templates of {row.title}", heads, lines, "template")
    return f'<h3>Templates</h3><div class="tall">{tall}</div>'


def _listed(templates: Sequence[str]) -> str:
    """The first of them, and how many more there are."""
    more = f" and {len(templates) - TEMPLATES_SHOWN:,} more" if len(templates) > TEMPLATES_SHOWN else ""
    return ", ".join(f"“{template}”" for template in templates[:TEMPLATES_SHOWN]) + more


def _classes(row: Row, details: Mapping[str, dict[str, Any]], models: Mapping[str, Look]) -> str:
    figures = {model: found["per_class"] for model, found in details.items() if found.get("per_class")}
    if not figures:
        return ""
    sizes = {name: size for found in details.values() for name, size in found.get("class_sizes", {}).items()}
    names = dict.fromkeys(name for each in figures.values() for name in each)

    def mean(name: str) -> float:
        known = [each[name] for each in figures.values() if name in each]
        return sum(known) / len(known)

    order = sorted(names, key=mean, reverse=True)
    if len(order) > CLASSES_SHOWN:
        told = f"The {ENDS_SHOWN} best and the {ENDS_SHOWN} worst of {len(order):,} classes"
        columns = [order[:ENDS_SHOWN], order[-ENDS_SHOWN:]]
    else:
        told = "Each class"
        half = -(-len(order) // 2) if len(order) > COLUMN else len(order)
        columns = [order[:half], order[half:]]
    what = "average precision" if row.metric == "map_11_point" else "share of its images that are named right"
    heads = ["images", *(breakable(model) for model in figures)]
    tables = [
        table(
            "plain",
            f"Classes of {row.title}",
            heads,
            [(escape(name), _bars(name, sizes, figures, models)) for name in column],
            "class",
        )
        for column in columns
        if column
    ]
    sentence = f"<p>{told}: {what}, in percent, from the best down.</p>"
    layout = "beside" if len(figures) < 3 else "below"
    return f'<h3>Classes</h3>{sentence}<div class="{layout}">{"".join(tables)}</div>'


def _bars(
    name: str, sizes: Mapping[str, int], figures: Mapping[str, dict[str, float]], models: Mapping[str, Look]
) -> list[str]:
    cells = [f"<td>{sizes[name]:,}</td>" if name in sizes else f"<td>{ABSENT}</td>"]
    for model, each in figures.items():
        share = each.get(name)
        width = f"width:{100 * (share or 0):.0f}%;background:{models[model].colour}"
        bar = f'<span class="track"><span class="bar" style="{width}"></span></span>'
        cells.append(f'<td class="share">{bar}<span>{shown(share)}</span></td>')
    return cells


def _confusions(row: Row, details: Mapping[str, dict[str, Any]]) -> str:
    tables = []
    for model, found in details.items():
        sizes = found.get("class_sizes", {})
        lines = [
            (escape(true), [f'<td class="words">{escape(answer)}</td>', f"<td>{count:,}{_of(sizes.get(true))}</td>"])
            for true, answer, count in found.get("confusions", ())
        ]
        if lines:
            name = f"<b>{breakable(model)}</b><br>" if len(row.records) > 1 else ""
            label = f"Confusions of {model} on {row.title}"
            tables.append(
                table("plain", label, ['<span class="words">taken for</span>', "images"], lines, f"{name}class")
            )
    if not tables:
        return ""
    sentence = "<p>The class of the images, what they were taken for, and how many of that class's images were.</p>"
    return f'<h3>Most frequent confusions</h3>{sentence}<div class="beside">{"".join(tables)}</div>'


def _of(size: int | None) -> str:
    return f" of {size:,}" if size else ""
