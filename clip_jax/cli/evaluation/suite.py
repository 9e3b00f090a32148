"""`clip-jax evaluate suite`: evaluate models on many datasets, resumably, and compare them on a page."""

from collections.abc import Sequence
from pathlib import Path

from clip_jax.cli.arguments import split_labels
from clip_jax.cli.evaluation.options import TaskParser, cache_folder
from clip_jax.errors import UserError


def run(arguments: Sequence[str]) -> None:
    """Prints each result as it comes, then a table; writes OUT/results.json and OUT/report.html."""
    parser = TaskParser(
        "suite",
        "Evaluate models on many datasets. Results are kept in OUT; what was stopped goes on when it is called again.",
        "clip-jax evaluate suite --model openai/ViT-B-32 --datasets paper,shifts --root data --out results",
        several_models=True,
    )
    parser.add_argument(
        "--datasets",
        type=split_labels,
        default=[],
        metavar="NAMES",
        help="benchmarks or groups of them (paper, shifts, limits, retrieval), with commas between",
    )
    parser.add_argument(
        "--data",
        action="append",
        default=[],
        type=_named,
        metavar="NAME=SPEC",
        help="where a dataset is, a benchmark or any other; may be given several times",
    )
    parser.add_argument("--root", type=Path, metavar="FOLDER", help="where datasets lie in folders of their names")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where results are kept")
    options = parser.parse_args(arguments)

    from dataclasses import asdict

    from clip_jax.cli.arguments import write_json
    from clip_jax.cli.evaluation.prepare import together_with
    from clip_jax.cli.evaluation.suite_table import print_line, print_table
    from clip_jax.clip import load
    from clip_jax.evaluation.pages.comparison import write_page
    from clip_jax.evaluation.suite import chosen, find_data, run_suite
    from clip_jax.processes import is_first

    entries, missing = find_data(chosen(options.datasets), dict(options.data), options.root)
    if not entries:
        where = f" below {options.root}" if options.root else "; --root FOLDER or --data NAME=SPEC tell where they are"
        raise UserError(f"no data of {', '.join(missing[:5]) or 'any dataset'} found{where}")
    with together_with(options):
        if missing and is_first():
            print(f"no data found, left out: {', '.join(missing)}")
        outcomes, cache = [], cache_folder(options)
        total = len(entries) * len(set(options.model))
        suite = run_suite(
            options.model, lambda name: load(name, options.dtype), entries, options.out, options.batch_size, cache
        )
        for outcome in suite:
            outcomes.append(outcome)
            if is_first():
                print_line(len(outcomes), total, outcome)
        records = [outcome.record for outcome in outcomes if outcome.record]
        if is_first() and records:
            print_table(records)
            for path in filter(None, (options.out / "results.json", options.json)):
                write_json(path, {"results": [asdict(record) for record in records]})
            for path in filter(None, (options.out / "report.html", options.html)):
                write_page(records, path)
                print(f"page: {path}")
        problems = [outcome for outcome in outcomes if outcome.problem]
        if problems:
            first = problems[0]
            raise UserError(
                f"{len(problems)} of {total} evaluations failed, the first is {first.entry.name}: {first.problem}"
            )


def _named(text: str) -> tuple[str, str]:
    name, equals, data = text.partition("=")
    if not name or not equals or not data or "/" in name:
        raise UserError(f"--data {text} is not NAME=SPEC, as in pets=folder:data/pets")
    return name, data
