"""`clip-jax evaluate few-shot`: fit linear classifiers to a few images of each class."""

from collections.abc import Sequence

from clip_jax.cli.evaluation.options import (
    TaskParser,
    add_few_shot_arguments,
    add_question_arguments,
    cache_folder,
    check_seeds,
)


def run(arguments: Sequence[str]) -> None:
    """Prints the mean figure at each number of shots with its standard error, and zero-shot beside."""
    parser = TaskParser(
        "few-shot",
        "Fit logistic regression to the features of a few images of each class, drawn by several seeds.",
        "clip-jax evaluate few-shot --model runs/scenes --train folder:data/train --data folder:data/test",
    )
    parser.add_argument("--train", required=True, metavar="SPEC", help="labelled images that examples are drawn from")
    parser.add_argument("--data", required=True, metavar="SPEC", help="labelled images that it is tested on")
    add_few_shot_arguments(parser)
    add_question_arguments(parser)
    options = parser.parse_args(arguments)
    check_seeds(options)

    from clip_jax.cli.evaluation.prepare import question_of, subject_of, together_with
    from clip_jax.cli.evaluation.show import show
    from clip_jax.data.spec import open_table
    from clip_jax.evaluation.features import embed_table
    from clip_jax.evaluation.probes.records import few_shot_record
    from clip_jax.processes import is_first

    with together_with(options):
        train, test = open_table(options.train), open_table(options.data)
        question, cache = question_of(test, options), cache_folder(options)
        subject = subject_of(options, cache)
        examples = embed_table(subject.clip, train, options.batch_size, cache, options.train)
        asked = embed_table(subject.clip, test, options.batch_size, cache, options.data)
        record = few_shot_record(subject, question, examples, asked, options.shots, tuple(range(options.seeds)))
        show(record, options)
        if is_first():
            for shots, mean, error in zip(*(record.details[name] for name in ("shots", "mean", "error")), strict=True):
                print(f"  {f'{shots} shots':28} {mean:8.2%}" + ("" if error is None else f"  (± {error:.2%})"))
            print(f"  {'zero-shot':28} {record.details['zero_shot']:8.2%}")
