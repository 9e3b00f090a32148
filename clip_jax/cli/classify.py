"""`clip-jax classify`: which of some labels fit a user's own images."""

from collections.abc import Sequence

from clip_jax.cli.arguments import Parser, split_labels, write_json


def run(arguments: Sequence[str]) -> None:
    """Prints the probability of each label for each image, the likeliest first."""
    parser = Parser(
        "classify",
        "Say which of some labels fit your images, with a probability for each.",
        "clip-jax classify cat.jpg --labels 'dog,cat' --model runs/scenes",
    )
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="image files")
    parser.add_argument("--labels", required=True, type=split_labels, help="the labels, separated by commas")
    parser.add_argument("--model", required=True, help="a model folder, a training workdir or a pretrained name")
    parser.add_argument(
        "--template",
        action="append",
        metavar="TEXT",
        help="how a label is put into words, with {} for it; may be given several times (default: 'a photo of a {}.')",
    )
    parser.add_argument("--exif", action="store_true", help="turn images as their EXIF orientation says")
    options = parser.parse_args(arguments)

    from clip_jax.clip import load
    from clip_jax.inputs.images import open_image

    images = [open_image(path, options.exif) for path in options.images]
    answers = load(options.model).classify(images, options.labels, options.template)
    for path, answer in zip(options.images, answers, strict=True):
        print(path)
        for label, probability in sorted(answer.items(), key=lambda item: -item[1]):
            print(f"  {probability:6.1%}  {label}")
    write_json(options.json, dict(zip(options.images, answers, strict=True)))
