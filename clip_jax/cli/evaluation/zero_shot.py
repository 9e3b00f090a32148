"""`clip-jax evaluate zero-shot`: classify labelled images by the names of their classes."""

from collections.abc import Sequence

from clip_jax.cli.evaluation.options import TaskParser, add_question_arguments, cache_folder


def run(arguments: Sequence[str]) -> None:
    """Prints the figures, and each class's accuracy and each template's where asked for."""
    parser = TaskParser(
        "zero-shot",
        "Classify labelled images by the names of their classes.",
        "clip-jax evaluate zero-shot --model runs/scenes --data tar:runs/scenes/scenes/held_out --per-template",
    )
    parser.add_argument(
        "--data",
        required=True,
        metavar="SPEC",
        help="a folder per class, tars with .cls and classnames.txt, ...",
    )
    add_question_arguments(parser)
    parser.add_argument("--per-class", action="store_true", help="print each class's accuracy too")
    parser.add_argument("--per-template", action="store_true", help="print what each template reaches alone too")
    options = parser.parse_args(arguments)

    from clip_jax.cli.evaluation.prepare import question_of, subject_of, together_with
    from clip_jax.cli.evaluation.show import show
    from clip_jax.data.spec import open_table
    from clip_jax.evaluation.features import embed_table
    from clip_jax.evaluation.tasks import zero_shot_record
    from clip_jax.processes import is_first

    with together_with(options):
        table = open_table(options.data)
        question = question_of(table, options)
        subject = subject_of(options, cache_folder(options))
        features = embed_table(subject.clip, table, options.batch_size, subject.cache, options.data)
        record = zero_shot_record(subject, features, question, options.per_template)
        show(record, options)
        if options.per_class and is_first():
            for name, value in sorted(record.details["per_class"].items(), key=lambda item: item[1]):
                print(f"  {value:6.1%}  {name}")
        if options.per_template and is_first():
            wording = record.details["wording"]
            for template, value in sorted(wording["by_template"].items(), key=lambda item: -item[1]):
                print(f"  {value:6.1%}  {template}")
            print(f"  {wording['embedding_ensemble']:6.1%}  all of them, averaged as embeddings")
            print(f"  {wording['probability_ensemble']:6.1%}  all of them, averaged as probabilities")
