"""`clip-jax evaluate suite`: evaluate models on many datasets, resumably, and compare them on a page."""

from collections.abc import Sequence
from pathlib import Path

from clip_jax.cli.arguments import split_labels
from clip_jax.cli.evaluation.options import (
    TaskParser,
    add_baselines_argument,
    add_few_shot_arguments,
    cache_folder,
    check_seeds,
    named_spec,
    once,
)
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
        "--tasks",
        type=split_labels,
        default=[],
        metavar="NAMES",
        help="zero-shot, retrieval, linear-probe, few-shot, robustness, with commas between (default: retrieval for "
        "the benchmarks of it, zero-shot for all others)",
    )
    parser.add_argument("--root", type=Path, metavar="FOLDER", help="where datasets lie in folders of their names")
    for part, what in (
        ("data", "where a dataset is, a benchmark or any other"),
        ("train", "its training images, for probes"),
        ("validation", "those that a linear probe's strength is chosen on"),
    ):
        parser.add_argument(
            f"--{part}",
            action="append",
            default=[],
            type=named_spec,
            metavar="NAME=SPEC",
            help=f"{what}; may be repeated",
        )
    add_few_shot_arguments(parser)
    parser.add_argument("--seed", type=int, default=0, help="draws a linear probe's validation images (default: 0)")
    parser.add_argument("--per-template", action="store_true", help="tell what each template reaches alone, too")
    add_baselines_argument(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where results are kept")
    options = parser.parse_args(arguments)
    check_seeds(options)

    from dataclasses import asdict

    from clip_jax.cli.arguments import write_json
    from clip_jax.cli.evaluation.prepare import together_with
    from clip_jax.cli.evaluation.suite_table import print_line, print_table
    from clip_jax.clip import load
    from clip_jax.evaluation.datasets import Places, chosen, find_data
    from clip_jax.evaluation.jobs import Settings, jobs_of
    from clip_jax.evaluation.pages.comparison import write_page
    from clip_jax.evaluation.robustness import read_baselines
    from clip_jax.evaluation.suite import run_suite
    from clip_jax.processes import is_first

    places = Places(*(once(f"--{part}", getattr(options, part)) for part in ("data", "train", "validation")))
    datasets, missing = find_data(chosen(options.datasets), places, options.root)
    if not datasets:
        where = f" below {options.root}" if options.root else "; --root FOLDER or --data NAME=SPEC tell where they are"
        raise UserError(f"no data of {', '.join(missing[:5]) or 'any dataset'} found{where}")
    jobs, left_out = jobs_of(datasets, options.tasks)
    if not jobs:
        raise UserError(f"there is nothing to do: {left_out[0] if left_out else 'the tasks do not fit the datasets'}")
    baselines = tuple(read_baselines(options.baselines)) if options.baselines else ()
    settings = Settings(options.seed, options.shots, options.seeds, options.per_template, baselines)
    with together_with(options):
        if is_first():
            if missing:
                print(f"no data found, left out: {', '.join(missing)}")
            for told in left_out:
                print(f"left out: {told}")
        outcomes, cache = [], cache_folder(options)
        total = len(jobs) * len(set(options.model))
        suite = run_suite(
            options.model,
            lambda name: load(name, options.dtype),
            jobs,
            options.out,
            settings,
            options.batch_size,
            cache,
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
                f"{len(problems)} of {total} evaluations failed, the first is {first.job.task} of "
                f"{first.job.dataset.name}: {first.problem}"
            )
