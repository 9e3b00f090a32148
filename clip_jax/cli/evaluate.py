"""`clip-jax evaluate`: a model's figures, one task of several."""

import argparse
from collections.abc import Sequence
from importlib import import_module

from clip_jax.cli.arguments import StrictParser
from clip_jax.errors import UserError

TASKS = {
    "zero-shot": "classify labelled images by the names of their classes",
    "retrieval": "find the captions of images, and the images of captions",
    "linear-probe": "fit a linear classifier to the image features of training data",
    "few-shot": "fit linear classifiers to a few images of each class",
    "robustness": "compare zero-shot accuracy on a dataset with that on shifts of it",
    "suite": "evaluate models on many datasets, resumably, and compare them on a page",
}
EXAMPLES = """examples:
  clip-jax evaluate zero-shot --model runs/scenes --data runs/scenes/scenes/held_out
  clip-jax evaluate zero-shot --model openai/ViT-B-32 --dataset food101 --data 'tfds:food101?split=validation'
  clip-jax evaluate retrieval --model runs/scenes --data 'tar:runs/scenes/scenes/held_out?captions=captions'
  clip-jax evaluate suite --model openai/ViT-B-32 --datasets paper --root data --out results"""


def run(arguments: Sequence[str]) -> None:
    """Runs one task."""
    parser = StrictParser(
        prog="clip-jax evaluate",
        description="Evaluate a model. Every task has a --help of its own, and writes its result with --json FILE.",
        epilog="tasks:\n" + "".join(f"  {name:13} {line}\n" for name, line in TASKS.items()) + f"\n{EXAMPLES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="clip-jax evaluate [-h] TASK ...",
    )
    parser.add_argument("task", metavar="TASK", help="one of those below")
    options = parser.parse_args(arguments[:1])
    if options.task not in TASKS:
        from clip_jax.schema import nearest

        raise UserError(f"there is no task '{options.task}'; {nearest(options.task, TASKS)}")
    import_module(f"clip_jax.cli.evaluation.{options.task.replace('-', '_')}").run(arguments[1:])
