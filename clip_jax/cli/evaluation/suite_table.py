"""What a suite prints: a line a result, and at the end a table for each task with datasets down and models across."""

from collections.abc import Sequence

from clip_jax.evaluation.record import Record
from clip_jax.evaluation.suite import Outcome

WIDTH = 22


def print_line(number: int, total: int, outcome: Outcome) -> None:
    """One outcome of `total`."""
    if outcome.record is None:
        said = f"failed: {outcome.problem}"
    else:
        how = "kept" if outcome.seconds is None else f"{outcome.seconds:.0f} s"
        said = f"{outcome.record.figure:7.2%}  {outcome.record.metric} ({outcome.record.images:,} images, {how})"
        if outcome.record.left_out:
            said += f", {outcome.record.left_out:,} left out"
    job = outcome.job
    print(f"[{number}/{total}] {outcome.model}, {job.task} of {job.dataset.name}: {said}", flush=True)


def print_table(records: Sequence[Record]) -> None:
    """The main figures in percent, with the mean over the datasets that every model has."""
    models = list(dict.fromkeys(record.model for record in records))
    widths = [max(len(_short(model)), 7) for model in models]
    heads = "  ".join(f"{_short(model):>{width}}" for model, width in zip(models, widths, strict=True))
    for task in dict.fromkeys(record.task for record in records):
        of_task = [record for record in records if record.task == task]
        print(f"\n{task:<{WIDTH}} {'metric':<16} {heads}  chance  published")
        _print_rows(of_task, models, widths)


def _print_rows(records: Sequence[Record], models: Sequence[str], widths: Sequence[int]) -> None:
    found = {(record.dataset, record.model): record for record in records}
    datasets = list(dict.fromkeys(record.dataset for record in records))
    for dataset in datasets:
        row = [found.get((dataset, model)) for model in models]
        first = next(record for record in row if record)
        cells = "  ".join(_cell(record, width) for record, width in zip(row, widths, strict=True))
        chance = "-" if first.chance is None else f"{first.chance:.1%}"
        published = ", ".join(f"{value:.1%} ({source})" for source, value in first.published.items())
        print(f"{dataset[:WIDTH]:<{WIDTH}} {first.metric:<16} {cells}  {chance:>6}  {published}".rstrip())
    whole = [dataset for dataset in datasets if all((dataset, model) in found for model in models)]
    if len(whole) > 1:
        means = [sum(found[dataset, model].figure for dataset in whole) / len(whole) for model in models]
        cells = "  ".join(f"{mean:>{width}.2%}" for mean, width in zip(means, widths, strict=True))
        print(f"{f'mean of {len(whole)}':<{WIDTH}} {'':<16} {cells}")


def _short(model: str) -> str:
    """The end of a long name, where names differ."""
    return model if len(model) <= WIDTH else f"…{model[1 - WIDTH :]}"


def _cell(record: Record | None, width: int) -> str:
    return f"{'-' if record is None else f'{record.figure:.2%}':>{width}}"
