"""`clip-jax evaluate`: a model's figures on labelled data."""

from collections.abc import Sequence

from clip_jax.cli.arguments import Parser, split_labels, write_json

TASKS = ("zero-shot",)


def run(arguments: Sequence[str]) -> None:
    """Prints the task's metrics, and each class's accuracy where asked for."""
    parser = Parser(
        "evaluate",
        "Evaluate a model. zero-shot: classify labelled images by the names of their classes.",
        "clip-jax evaluate zero-shot --model runs/scenes --data tar:runs/scenes/scenes/held_out",
    )
    parser.add_argument("task", choices=TASKS, metavar="TASK", help="zero-shot")
    parser.add_argument("--model", required=True, help="a model folder or a training workdir")
    parser.add_argument(
        "--data", required=True, metavar="SPEC", help="a folder per class, or tars with .cls and classnames.txt"
    )
    parser.add_argument("--labels", type=split_labels, default=(), help="choose among these (default: the data's own)")
    parser.add_argument(
        "--template",
        action="append",
        metavar="TEXT",
        help="how a class name is put into words, with {} for it; may be given several times, to be ensembled",
    )
    parser.add_argument("--batch-size", type=int, default=64, help="images encoded at once (default: 64)")
    parser.add_argument("--per-class", action="store_true", help="print each class's accuracy too")
    options = parser.parse_args(arguments)

    from clip_jax.clip import load
    from clip_jax.data.spec import open_table
    from clip_jax.evaluation.zero_shot import zero_shot

    table = open_table(options.data)
    result = zero_shot(load(options.model), table, options.labels, options.template, options.batch_size)
    print(f"{len(result.truth)} images, {len(result.class_names)} classes, chance {result.chance:.1%}")
    if result.bad:
        print(f"left out: {len(result.bad)} that cannot be used, the first is {result.bad[0].key}")
    for name, value in result.metrics().items():
        print(f"  {name:15} {value:6.1%}")
    if options.per_class:
        for name, value in sorted(result.per_class().items(), key=lambda item: item[1]):
            print(f"  {value:6.1%}  {name}")
    write_json(
        options.json,
        {
            **result.metrics(),
            "chance": result.chance,
            "images": len(result.truth),
            "left_out": len(result.bad),
            "classes": len(result.class_names),
            "per_class": result.per_class(),
        },
    )
