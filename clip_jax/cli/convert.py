"""`clip-jax convert`: a model from any layout into another."""

import math
import time
from collections.abc import Sequence

from clip_jax.cli.arguments import Parser, write_json
from clip_jax.cli.weights_arguments import add_weights_arguments


def run(arguments: Sequence[str]) -> None:
    """Converts, and prints what was read and what was written."""
    parser = Parser(
        "convert",
        "Convert a model between layouts: clip_jax, open_clip, hf (transformers' CLIPModel and SiglipModel), openai.\n"
        "SRC is a folder or file in any of them, which is recognised by content (also OpenAI's TorchScript .pt, state\n"
        "dicts in .pt, .bin and .safetensors, big_vision's SigLIP .npz, a training workdir, also in gs://), a name\n"
        "that `clip-jax models --pretrained` lists, or hf-hub:OWNER/NAME. Tokenizer and preprocessing go along.\n"
        "Parameters keep their type and value to the last bit. Nothing in a pickle is ever run.",
        "clip-jax convert ViT-B-32.pt released/ --to hf",
    )
    parser.add_argument("source", metavar="SRC", help="what to read")
    parser.add_argument("target", metavar="DST", help="the folder to write")
    parser.add_argument("--to", metavar="LAYOUT", default="clip_jax", help="its layout (default: clip_jax)")
    parser.add_argument("--overwrite", action="store_true", help="replace the model that DST holds")
    add_weights_arguments(parser)
    parser.add_argument("--image-size", type=int, metavar="PIXELS", help="resample image positions to this resolution")
    parser.add_argument("--context-length", type=int, metavar="N", help="keep only the first N text positions")
    parser.add_argument("--resample-text", action="store_true", help="stretch the text positions to --context-length")
    options = parser.parse_args(arguments)

    from clip_jax.weights.evidence import Hints
    from clip_jax.weights.folders import as_path, check_target
    from clip_jax.weights.loading import find_checkpoint
    from clip_jax.weights.resample import resized
    from clip_jax.weights.writing import check_layout, check_replaceable, write_checkpoint

    started = time.perf_counter()
    target = as_path(options.target)
    check_layout(options.to)
    check_replaceable(target)
    check_target(target, options.overwrite)
    hints = Hints(options.model, options.activation, options.vision_heads, options.text_heads)
    checkpoint = find_checkpoint(options.source, hints, options.revision, cache=options.cache_dir)
    source_table = checkpoint.origin.table
    checkpoint = resized(checkpoint, options.image_size, options.context_length, options.resample_text)
    write_checkpoint(checkpoint, target, options.to, options.overwrite)
    seconds = time.perf_counter() - started

    parameters = sum(math.prod(parameter.shape) for parameter in checkpoint.parameters.values())
    types = sorted({parameter.dtype.name for parameter in checkpoint.parameters.values()})
    size = sum(path.stat().st_size for path in target.iterdir() if path.is_file())
    print(f"read   {options.source} ({source_table}): {parameters / 1e6:.1f} M parameters, {', '.join(types)}")
    print(f"wrote  {options.target} ({options.to}): {size / 1e6:.1f} MB in {seconds:.1f} s")
    for name in sorted(path.name for path in target.iterdir()):
        print(f"  {name}")
    write_json(
        options.json,
        {
            "source": str(options.source),
            "source_layout": source_table,
            "target": str(options.target),
            "layout": options.to,
            "parameters": parameters,
            "types": types,
            "bytes": size,
            "seconds": seconds,
            "config": checkpoint.config.to_dict(),
        },
    )
