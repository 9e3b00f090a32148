"""The head of a page of results: what was evaluated and when, and the figures that come first."""

from collections.abc import Mapping
from datetime import datetime
from html import escape

from clip_jax.evaluation.pages.looks import Look
from clip_jax.evaluation.pages.rows import Comparison
from clip_jax.evaluation.pages.words import TASKS, breakable, counted, joined, metric_name, shown


def introduction(comparison: Comparison) -> str:
    """How much there is on the page, and when it was written."""
    tasks = dict.fromkeys(row.task for row in comparison.rows)
    names = [TASKS.get(task, task).lower() for task in tasks]
    datasets = len({row.dataset for row in comparison.rows})
    left_out = sum(_most(comparison, "left_out").values())
    unused = "Every image could be used." if not left_out else f"{counted(left_out, 'image')} could not be used."
    return (
        f"<p>{counted(len(comparison.models), 'model')} on {counted(datasets, 'dataset')}: {escape(joined(names))}. "
        f"{unused} The page was written on {datetime.now():%d %B %Y}.</p>"
    )


def model_list(models: Mapping[str, Look]) -> str:
    """Several models and their colours."""
    if len(models) < 2:
        return ""
    items = "".join(
        f'<li><span class="mark" style="background:{look.colour}"></span>{breakable(model)}</li>'
        for model, look in models.items()
    )
    return f'<ul class="models">{items}</ul>'


def tiles(comparison: Comparison) -> str:
    """The first group's averages, the best first; of a single row, what it is held against too."""
    first = comparison.groups[0]
    row = first.rows[0]
    averages = {model: first.average(model) for model in comparison.models}
    known = {model: figure for model, figure in averages.items() if figure is not None}
    single = len(first.rows) == 1
    metric = metric_name(row.metric) if single else f"average of {counted(len(first.shared), 'dataset')}"
    found = [
        (f"{shown(figure, row.metric)}%", breakable(model), f"{escape(first.title)}: {metric}")
        for model, figure in sorted(known.items(), key=lambda item: -item[1])[:4]
    ]
    if single and len(comparison.models) == 1:
        record = row.records[comparison.models[0]]
        if record.chance is not None:
            found.append((f"{shown(record.chance)}%", "chance", "what guessing reaches"))
        found += [(f"{shown(figure)}%", escape(source), "published") for source, figure in record.published.items()]
    datasets = len({row.dataset for row in comparison.rows})
    found.append((f"{datasets:,}", "datasets" if datasets > 1 else "dataset", "evaluated"))
    found.append((f"{sum(_most(comparison, 'images').values()):,}", "images", "asked about"))
    return "".join(f"<li><strong>{a}</strong><span>{b}</span><small>{c}</small></li>" for a, b, c in found)


def _most(comparison: Comparison, name: str) -> dict[str, int]:
    """Of each dataset the most images, used or `left_out`, of any task and model: they are the same ones."""
    most: dict[str, int] = {}
    for record in comparison.records:
        most[record.dataset] = max(getattr(record, name), most.get(record.dataset, 0))
    return most
