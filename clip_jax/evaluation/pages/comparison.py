"""The page of evaluation results: one or several models on one or many datasets, side by side.

One HTML file that needs nothing else: style and plots are inside it. assets/evaluation.html is its frame. On it
are the table of main figures (scores), plots of all datasets (plots), a section for each further task
(tasks), and zero-shot on each dataset (classification).
"""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from clip_jax.evaluation.pages.classification import dataset_block
from clip_jax.evaluation.pages.figures import plot, table
from clip_jax.evaluation.pages.frame import footer, plots, section, write_framed
from clip_jax.evaluation.pages.head import introduction, model_list, tiles
from clip_jax.evaluation.pages.looks import Look, looks
from clip_jax.evaluation.pages.plots import differences, dots
from clip_jax.evaluation.pages.robustness import robustness_section
from clip_jax.evaluation.pages.rows import Comparison, Group, Row, compare
from clip_jax.evaluation.pages.scores import score_sentence, score_table
from clip_jax.evaluation.pages.tasks import few_shot_section, linear_probe_section, retrieval_section
from clip_jax.evaluation.pages.words import TASKS, joined, shown
from clip_jax.evaluation.record import Record

OPEN = 2  # datasets whose blocks stand open


def write_page(records: Sequence[Record], path: Path) -> None:
    """Writes the page to `path`, whole or not at all.

    Raises UserError where that fails, for no records, and for two of one model in one task on one dataset.
    """
    comparison = compare(records)
    models = looks(comparison.models)
    title = f"Evaluation of {comparison.models[0] if len(models) == 1 else f'{len(models)} models'}"
    sections = [_overview(comparison, models)]
    if rows := comparison.of("retrieval"):
        sections.append(retrieval_section(rows))
    if rows := comparison.of("linear-probe"):
        sections.append(linear_probe_section(rows, models))
    if rows := comparison.of("few-shot"):
        sections.append(few_shot_section(rows, models))
    if rows := comparison.of("robustness"):
        sections.append(robustness_section(rows, models))
    sections += [_zero_shot(comparison.of("zero-shot"), models), _remarks(comparison), _left_out(comparison)]
    parts = {
        "title": escape(title),
        "introduction": introduction(comparison),
        "models": model_list(models),
        "tiles": tiles(comparison),
        "reading": score_sentence(comparison),
        "scores": score_table(comparison),
        "sections": "\n".join(filter(None, sections)),
        "footer": footer(),
    }
    write_framed("evaluation.html", parts, path)


def _overview(comparison: Comparison, models: Mapping[str, Look]) -> str:
    """The plots that set datasets below each other, for groups of several."""
    figures = [_dots(group, models) for group in comparison.groups if len(group.rows) > 1]
    if len(models) == 2:
        first, second = models
        for task in dict.fromkeys(row.task for row in comparison.rows):
            rows = [row for row in comparison.of(task) if len(row.records) == 2]
            figures += [_differences(task, rows, first, second)] if len(rows) > 1 else []
    return section("datasets", "Dataset by dataset", plots(figures)) if figures else ""


def _dots(group: Group, models: Mapping[str, Look]) -> str:
    bar = (
        ", its bar the 95% interval" if any(one.interval for row in group.rows for one in row.records.values()) else ""
    )
    sentence = f"Each mark is a model's figure on a dataset{bar}; further right is better."
    if any(row.chance is not None for row in group.rows):
        sentence += " The grey tick is what guessing reaches."
    if any(record.published for row in group.rows for record in row.records.values()):
        sentence += " Hollow marks are published figures of the same model."
    if group.name == "limits":
        sentence += (
            " These ask for what CLIP is known to be weak at: counting, distances, fine-grained kinds and digits."
        )
    alt = "; ".join(
        f"{row.title}: "
        + joined([f"{model} {shown(record.figure, row.metric)}%" for model, record in row.records.items()])
        for row in group.rows
    )
    return plot(escape(group.title), dots(group.rows, models), alt, sentence)


def _differences(task: str, rows: Sequence[Row], first: str, second: str) -> str:
    ahead = sum(row.records[first].figure > row.records[second].figure for row in rows)
    title = f"{TASKS.get(task, task)}: {escape(first)} minus {escape(second)}"
    sentence = (
        f"Bars to the right: {escape(first)} is ahead, on {ahead} of {len(rows)}; to the left: {escape(second)} is. "
        "Bars are pale where the two 95% intervals meet, so that the difference may be chance."
    )
    gaps = [row.records[first].figure - row.records[second].figure for row in rows]
    alt = f"{first} minus {second} on {len(rows)} datasets, from {100 * min(gaps):.1f} to {100 * max(gaps):.1f} points"
    return plot(title, differences(rows, first, second), alt, sentence)


def _zero_shot(rows: Sequence[Row], models: Mapping[str, Look]) -> str:
    blocks = [dataset_block(row, models, is_open=len(rows) <= OPEN) for row in rows]
    hint = "" if len(rows) <= OPEN else "<p>Each dataset opens with a click.</p>"
    return section("zero-shot", "Zero-shot in detail", hint, *blocks) if blocks else ""


def _remarks(comparison: Comparison) -> str:
    """Where the data may not be those of published figures."""
    told: dict[str, dict[str, None]] = {}
    for row in comparison.rows:
        for record in row.records.values():
            told.setdefault(row.title, {}).update(dict.fromkeys(record.remarks))
    lines = [f"<p><b>{escape(title)}</b>: {escape(' '.join(one))}</p>" for title, one in told.items() if one]
    return section("remarks", "Where data differ from those of published figures", *lines) if lines else ""


def _left_out(comparison: Comparison) -> str:
    """The images that no figure counts."""
    told, lines = [], {}
    for row in comparison.rows:
        for model, record in row.records.items():
            if record.left_out:
                of = f"{record.left_out:,} of {record.images + record.left_out:,}"
                told.append(f"{of} of {row.title} ({TASKS.get(row.task, row.task).lower()}, {model})")
            for key, reason in record.bad:
                lines[key, reason, row.title] = [_words(reason), _words(row.title)]
    if not told:
        return ""
    heads = [f'<span class="words">{head}</span>' for head in ("why", "dataset")]
    first = [(escape(key), lines[key, *rest]) for key, *rest in lines]
    sentence = f"<p>No figure counts these images: {escape(joined(told))}. The first of them:</p>"
    return section("left-out", "Images left out", sentence, table("plain", "Images left out", heads, first, "image"))


def _words(text: str) -> str:
    return f'<td class="words">{escape(text)}</td>'
