"""Printing what an evaluation found, and writing it where it was asked for."""

import argparse
from dataclasses import asdict

from clip_jax.cli.arguments import write_json
from clip_jax.evaluation.record import Record
from clip_jax.processes import is_first

WHOLE = ("median_rank",)  # figures that are no shares


def show(record: Record, options: argparse.Namespace) -> None:
    """Prints a record's figures, and writes --json and --html; of several processes, the first does."""
    if not is_first():
        return
    print_figures(record)
    write_json(options.json, record.figures | asdict(record) | record.details)
    if options.html:
        from clip_jax.evaluation.pages.comparison import write_page

        write_page([record], options.html)
        print(f"page: {options.html}")


def print_figures(record: Record) -> None:
    """The main figure first, with its interval and what it is held against."""
    print(heading(record))
    for name, value in record.figures.items():
        if name == "top1" and record.metric == "accuracy":  # the same
            continue
        if name.startswith("shots_"):  # few-shot prints them with their errors
            continue
        shown = f"{value:8.1f}" if name.endswith(WHOLE) else f"{value:8.2%}"
        line = f"  {name:28} {shown}"
        if name == record.metric and record.interval:
            line += f"  (95 %: {record.interval[0]:.2%} to {record.interval[1]:.2%})"
        print(line)
    for source, value in record.published.items():
        print(f"  {f'{record.metric} in {source}':28} {value:8.2%}")
    for told in record.remarks:
        print(f"  note: {told}")
    if record.left_out:
        first = f", the first is {record.bad[0][0]}" if record.bad else ""
        print(f"left out: {record.left_out} that cannot be used{first}")


def heading(record: Record) -> str:
    """How many images and classes or captions, and what guessing reaches."""
    parts = [f"{record.images:,} images"]
    parts += [f"{record.details[name]:,} {name}" for name in ("classes", "captions") if name in record.details]
    return ", ".join(parts) + ("" if record.chance is None else f", chance {record.chance:.1%}")
