"""The table of main figures: datasets down, models across, what each is held against beside."""

from html import escape

from clip_jax.evaluation.pages.figures import scrolling
from clip_jax.evaluation.pages.rows import Comparison, Group, Row
from clip_jax.evaluation.pages.words import ABSENT, between, breakable, metric_name, points, shown

EMPTY = f'<td title="not known">{ABSENT}</td>'


def score_table(comparison: Comparison) -> str:
    """Every row, group by group, each group with its average; the best of a row is marked where there are several."""
    sources = {model: _sources(comparison, model) for model in comparison.models}
    width = 2 + sum(1 + len(each) for each in sources.values())
    bodies = "".join(_body(group, sources, width) for group in comparison.groups)
    return scrolling("Main figures", f'<table class="scores"><thead>{_heads(sources)}</thead>\n{bodies}</table>')


def score_sentence(comparison: Comparison) -> str:
    """How to read the table."""
    parts = ["Figures are percent."]
    if any(record.interval for record in comparison.records):
        parts.append("Below each is where 95% of the figures lie when the images are resampled.")
    if any(record.published for record in comparison.records):
        parts.append("Below a published figure is how far this result lies above or below it, in points of percent.")
    if len(comparison.models) > 1:
        parts.append("The best of a row is marked.")
        if any(len(group.shared) > 1 for group in comparison.groups):
            parts.append("Averages are over the datasets that all models have.")
    return " ".join(parts)


def _heads(sources: dict[str, tuple[str, ...]]) -> str:
    rows = 2 if any(sources.values()) else 1
    models = "".join(
        f'<th scope="colgroup" class="model" colspan="{1 + len(each)}">{breakable(model)}</th>'
        for model, each in sources.items()
    )
    upper = f'<tr><td rowspan="{rows}"></td>{models}<th scope="col" rowspan="{rows}">chance</th></tr>'
    if rows == 1:
        return upper
    lower = "".join(
        '<th scope="col" class="model">this result</th>'
        + "".join(f'<th scope="col">{escape(source)}</th>' for source in each)
        for each in sources.values()
    )
    return f"{upper}\n<tr>{lower}</tr>"


def _body(group: Group, sources: dict[str, tuple[str, ...]], width: int) -> str:
    lines = [f'<tr class="group"><th scope="rowgroup" colspan="{width}"><span>{escape(group.title)}</span></th></tr>']
    lines += [_line(row, sources) for row in group.rows]
    if len(group.shared) > 1:
        lines.append(_average(group, sources))
    return "<tbody>" + "\n".join(lines) + "</tbody>\n"


def _line(row: Row, sources: dict[str, tuple[str, ...]]) -> str:
    best = best_models({model: record.figure for model, record in row.records.items()}, row.metric, len(sources))
    cells = []
    for model, each in sources.items():
        record = row.records.get(model)
        if record is None:
            cells.append(f'<td class="model" title="not evaluated">{ABSENT}</td>' + "<td></td>" * len(each))
            continue
        cells.append(_cell(record.figure, row.metric, between(record.interval), model in best))
        for source in each:
            theirs = record.published.get(source)
            cells.append(EMPTY if theirs is None else _published(theirs, record.figure, row.metric))
    chance = EMPTY if row.chance is None else f"<td>{_small(row.chance)}</td>"
    head = f"{escape(row.title)}<small>{escape(row.note)}</small>"
    return f'<tr><th scope="row">{head}</th>{"".join(cells)}{chance}</tr>'


def _average(group: Group, sources: dict[str, tuple[str, ...]]) -> str:
    averages = {model: group.average(model) for model in sources}
    known = {model: figure for model, figure in averages.items() if figure is not None}
    metric = group.rows[0].metric
    best = best_models(known, metric, len(sources))
    cells = []
    for model, each in sources.items():
        if model not in known:
            cells.append(f'<td class="model">{ABSENT}</td>' + "<td></td>" * len(each))
            continue
        cells.append(_cell(known[model], metric, "", model in best))
        for source in each:
            theirs = group.average(model, source)
            cells.append("<td></td>" if theirs is None else _published(theirs, known[model], metric))
    head = f"average<small>of {len(group.shared)} datasets</small>"
    return f'<tr class="average"><th scope="row">{head}</th>{"".join(cells)}<td></td></tr>'


def _cell(figure: float, metric: str, below: str, best: bool) -> str:
    kind, tip = ("model best", ' title="the best of its row"') if best else ("model", "")
    return f'<td class="{kind}"{tip}>{shown(figure, metric)}<small>{below}</small></td>'


def _published(theirs: float, ours: float, metric: str) -> str:
    return f"<td>{shown(theirs, metric)}<small>{points(ours - theirs)}</small></td>"


def _small(chance: float) -> str:
    """With one digit that is not 0 where it is less than 0.05 %, as in retrieval."""
    return shown(chance) if chance >= 0.0005 or not chance else f"{100 * chance:.1g}"


def best_models(figures: dict[str, float], metric: str, models: int) -> set[str]:
    """Those whose figure is written as the highest is, of several that are compared; none where there is one."""
    if models < 2 or len(figures) < 2:
        return set()
    highest = shown(max(figures.values()), metric)
    return {model for model, figure in figures.items() if shown(figure, metric) == highest}


def _sources(comparison: Comparison, model: str) -> tuple[str, ...]:
    records = [record for record in comparison.records if record.model == model]
    return tuple(dict.fromkeys(source for record in records for source in record.published))


def other_figures(row: Row) -> list[tuple[str, list[str]]]:
    """All figures of a row's records by name, with a cell for each model; for figures.table."""
    names = dict.fromkeys(name for record in row.records.values() for name in record.figures)
    if row.metric == "accuracy":
        names.pop("top1", None)  # the same
    return [
        (
            escape(metric_name(name)),
            [f"<td>{shown(record.figures.get(name), name)}</td>" for record in row.records.values()],
        )
        for name in names
    ]
