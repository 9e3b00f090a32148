"""`clip-jax parity`: two checkpoints compared layer by layer."""

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from clip_jax.cli.arguments import Parser, write_json
from clip_jax.cli.weights_arguments import add_weights_arguments

MAX_BATCH = 1024


def run(arguments: Sequence[str]) -> None:
    """Prints a table of differences; exits with code 1 where one is beyond the tolerance."""
    parser = Parser(
        "parity",
        "Run the same random inputs through two checkpoints, in whatever layouts, and compare every layer of both\n"
        "towers, the features and the logits. With --torch, B runs in PyTorch, by open_clip or transformers.",
        "clip-jax parity released/ exported/ --torch",
    )
    parser.add_argument("a", metavar="A", help="a model: folder, file or pretrained name")
    parser.add_argument("b", metavar="B", help="another")
    parser.add_argument("--torch", action="store_true", help="run B in PyTorch (a folder of layout open_clip or hf)")
    parser.add_argument("--batch-size", type=int, default=8, metavar="N", help="random images and texts (default: 8)")
    parser.add_argument("--seed", type=int, default=0, help="of the inputs (default: 0)")
    parser.add_argument(
        "--tolerance", type=float, default=None, help="largest relative difference to accept (default: 1e-5)"
    )
    add_weights_arguments(parser)
    options = parser.parse_args(arguments)
    if not 1 <= options.batch_size <= MAX_BATCH:
        parser.error(f"--batch-size must lie in 1..{MAX_BATCH}")
    if options.seed < 0:
        parser.error("--seed must not be negative")
    if options.tolerance is not None and not 0 <= options.tolerance < float("inf"):
        parser.error("--tolerance must be a number that is not negative")

    from clip_jax.weights.evidence import Hints
    from clip_jax.weights.loading import find_checkpoint
    from clip_jax.weights.parity import FLOAT32_TOLERANCE, check_comparable, compare, random_inputs, trace

    tolerance = FLOAT32_TOLERANCE if options.tolerance is None else options.tolerance
    hints = Hints(options.model, options.activation, options.vision_heads, options.text_heads)
    a, b = (find_checkpoint(name, hints, options.revision, cache=options.cache_dir) for name in (options.a, options.b))
    check_comparable(a.config, b.config)
    inputs = random_inputs(a.config, options.batch_size, options.seed)
    ours = trace(a, *inputs)
    if options.torch:
        from clip_jax.weights.torch_model import trace_in_torch

        theirs = trace_in_torch(Path(options.b), *inputs)
    else:
        theirs = trace(b, *inputs)
    result = compare(ours, theirs)

    print(f"{'':20} {'absolute':>10} {'relative':>10}")
    for difference in result.differences:
        mark = "" if difference.relative <= tolerance else "  <-- beyond the tolerance"
        print(f"{difference.name:20} {difference.absolute:10.1e} {difference.relative:10.1e}{mark}")
    equal = result.largest <= tolerance
    print(f"top text the same for {result.same_top:.0%} of the images")
    verdict = "equal" if equal else "DIFFERENT"
    print(f"{verdict}: largest relative difference {result.largest:.1e}, tolerance {tolerance:g}")
    write_json(
        options.json,
        {
            "differences": [asdict(difference) for difference in result.differences],
            "same_top": result.same_top,
            "largest": result.largest,
            "tolerance": tolerance,
            "equal": equal,
        },
    )
    if not equal:
        sys.exit(1)
