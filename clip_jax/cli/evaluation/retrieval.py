"""`clip-jax evaluate retrieval`: find the captions of images, and the images of captions."""

from collections.abc import Sequence

from clip_jax.cli.evaluation.options import TaskParser, cache_folder


def run(arguments: Sequence[str]) -> None:
    """Prints recall at 1, 5 and 10 and the median rank in both directions."""
    parser = TaskParser(
        "retrieval",
        "Find the captions of images among all captions, and the image of each caption among all images.",
        "clip-jax evaluate retrieval --model runs/scenes --data 'tar:runs/scenes/scenes/held_out?captions=captions'",
    )
    parser.add_argument("--data", required=True, metavar="SPEC", help="captioned images; several captions each count")
    parser.add_argument("--prefix", help="put before every caption (default: that of --dataset, or nothing)")
    parser.add_argument("--dataset", metavar="NAME", help="the benchmark that the data is: flickr30k or coco")
    options = parser.parse_args(arguments)

    from clip_jax.cli.evaluation.prepare import subject_of, together_with
    from clip_jax.cli.evaluation.show import show
    from clip_jax.data.spec import open_table
    from clip_jax.evaluation.features import embed_table
    from clip_jax.evaluation.tasks import retrieval_record

    with together_with(options):
        table = open_table(options.data)
        subject = subject_of(options, cache_folder(options))
        features = embed_table(subject.clip, table, options.batch_size, subject.cache, options.data)
        show(retrieval_record(subject, features, options.prefix), options)
