"""`clip-jax evaluate linear-probe`: fit a linear classifier to the image features of training data."""

from collections.abc import Sequence

from clip_jax.cli.evaluation.options import TaskParser, add_question_arguments, cache_folder, check_seeds


def run(arguments: Sequence[str]) -> None:
    """Prints the figure on the test data, the strength that was chosen, and zero-shot beside."""
    parser = TaskParser(
        "linear-probe",
        "Fit logistic regression to image features, before the projection, with the paper's search of its strength.",
        "clip-jax evaluate linear-probe --model runs/scenes --train folder:data/train --data folder:data/test",
    )
    parser.add_argument("--train", required=True, metavar="SPEC", help="labelled images that it is fitted to")
    parser.add_argument(
        "--validation", metavar="SPEC", help="those the strength is chosen on (default: a fifth of the training images)"
    )
    parser.add_argument("--data", required=True, metavar="SPEC", help="labelled images that it is tested on")
    parser.add_argument("--seed", type=int, default=0, help="draws the validation images (default: 0)")
    add_question_arguments(parser)
    options = parser.parse_args(arguments)
    check_seeds(options)

    from clip_jax.cli.evaluation.prepare import question_of, subject_of, together_with
    from clip_jax.cli.evaluation.show import show
    from clip_jax.data.spec import open_table
    from clip_jax.evaluation.features import embed_table
    from clip_jax.evaluation.probes.records import linear_probe_record
    from clip_jax.processes import is_first

    with together_with(options):
        given = {name: getattr(options, name) for name in ("train", "validation", "data")}
        tables = {name: open_table(data) for name, data in given.items() if data}
        question, cache = question_of(tables["data"], options), cache_folder(options)
        subject = subject_of(options, cache)
        features = {
            name: embed_table(subject.clip, table, options.batch_size, cache, given[name])
            for name, table in tables.items()
        }
        record = linear_probe_record(
            subject, question, features["train"], features.get("validation"), features["data"], options.seed
        )
        show(record, options)
        if is_first():
            strength, zero_shot = record.details["strength"], record.details["zero_shot"]
            print(f"  {'zero-shot':28} {zero_shot:8.2%}")
            print(f"  {'lambda':28} {strength:8.2g}  (scikit-learn's C: {1 / strength:.3g})")
