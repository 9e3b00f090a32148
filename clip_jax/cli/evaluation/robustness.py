"""`clip-jax evaluate robustness`: compare zero-shot accuracy on a dataset with that on shifts of it."""

from collections.abc import Sequence

from clip_jax.cli.evaluation.options import (
    TaskParser,
    add_baselines_argument,
    add_question_arguments,
    cache_folder,
    named_spec,
    once,
)


def run(arguments: Sequence[str]) -> None:
    """Prints the accuracy on the base, on each shift, and there also the base's on the same classes."""
    parser = TaskParser(
        "robustness",
        "Compare zero-shot accuracy on a dataset with that on images of its classes that came about another way.",
        "clip-jax evaluate robustness --model openai/ViT-B-32 --dataset imagenet \\\n"
        "    --data 'tfds:imagenet2012?split=validation' --shift 'imagenet_v2=tfds:imagenet_v2?split=test'",
    )
    parser.add_argument("--data", required=True, metavar="SPEC", help="the base dataset, labelled")
    parser.add_argument(
        "--shift",
        action="append",
        required=True,
        type=named_spec,
        metavar="NAME=SPEC",
        help="a shift; where NAME is a benchmark, it has that one's classes and templates; may be given several times",
    )
    add_baselines_argument(parser)
    add_question_arguments(parser, metric=False)
    options = parser.parse_args(arguments)

    from clip_jax.cli.evaluation.prepare import question_of, subject_of, together_with
    from clip_jax.cli.evaluation.show import show
    from clip_jax.data.spec import open_table
    from clip_jax.evaluation.features import embed_table
    from clip_jax.evaluation.robustness import Shift, ask_shift, read_baselines, robustness_record

    with together_with(options):
        shift_specs = once("--shift", options.shift)
        baselines = read_baselines(options.baselines) if options.baselines else []
        table, tables = open_table(options.data), {name: open_table(data) for name, data in shift_specs.items()}
        question = question_of(table, options)
        templates = question.templates if options.template or options.templates else ()
        asked = {name: ask_shift(name, shifted, question, templates) for name, shifted in tables.items()}
        cache = cache_folder(options)
        subject = subject_of(options, cache)
        features = embed_table(subject.clip, table, options.batch_size, cache, options.data)
        shifts = {
            name: Shift(embed_table(subject.clip, tables[name], options.batch_size, cache, data), *asked[name])
            for name, data in shift_specs.items()
        }
        record = robustness_record(subject, features, question, shifts, baselines)
        show(record, options)
