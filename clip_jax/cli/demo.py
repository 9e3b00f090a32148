"""`clip-jax demo`: from nothing to a trained, evaluated CLIP and a report, in minutes on two CPU cores."""

from collections.abc import Sequence
from pathlib import Path

from clip_jax.cli.arguments import Parser, write_json


def run(arguments: Sequence[str]) -> None:
    """Runs the demo and prints its figures and where the report is."""
    parser = Parser(
        "demo",
        "Draw captioned scenes, train a tiny CLIP on them, evaluate it zero-shot on combinations of colour and shape\n"
        "that it never saw, and write a report page. About five minutes on two CPU cores.",
        "clip-jax demo --workdir=runs/demo",
    )
    parser.add_argument(
        "--workdir", type=Path, default=Path("runs/demo"), help="the folder of the run (default: runs/demo)"
    )
    options = parser.parse_args(arguments)

    from clip_jax.training.demo import run_demo

    figures = run_demo(options.workdir)
    print(f"zero-shot on combinations never seen:  {figures.held_out_top1:6.1%}  (chance {figures.chance:.1%})")
    print(f"  with every combination as a label:   {figures.all_combinations_top1:6.1%}")
    print(f"linear probe on the same images:       {figures.linear_probe_top1:6.1%}")
    story = figures.story
    print(f"how many objects there are:            {story['number_top1']:6.1%}  (chance {story['number_chance']:.1%})")
    print(f"which of two objects is where:         {story['order_top1']:6.1%}  (chance {story['order_chance']:.1%})")
    print(f"drawn in outline, as never trained on: {story['outline_top1']:6.1%}  (chance {figures.chance:.1%})")
    print(f"{figures.seconds:.0f} seconds; the report is {figures.report}")
    write_json(options.json, figures.flat())
