"""`clip-jax models`: the names that models go by."""

from collections.abc import Sequence
from dataclasses import asdict

from clip_jax.cli.arguments import Parser, write_json


def run(arguments: Sequence[str]) -> None:
    """Prints the table of architectures, or that of pretrained weights."""
    parser = Parser(
        "models",
        "List the named architectures: parameters, FLOPs, image size, context length and tokenizer. With\n"
        "--pretrained, list the released weights that have a name, which clip_jax.load takes.",
        "clip-jax models --pretrained",
    )
    parser.add_argument("--pretrained", action="store_true", help="list released weights instead of architectures")
    options = parser.parse_args(arguments)

    from clip_jax.model_size import flops, parameters
    from clip_jax.presets import PRESETS, list_models

    if options.pretrained:
        from clip_jax.weights.pretrained import PRETRAINED, list_pretrained

        names = list_pretrained()
        print(names.text(("name", "total M", "repository")))
        write_json(options.json, {name: asdict(PRETRAINED[name]) for name in names})
        return
    names = list_models()
    print(names)
    write_json(
        options.json,
        {
            name: {
                "parameters": asdict(parameters(PRESETS[name])),
                "flops": asdict(flops(PRESETS[name])),
                "image_size": PRESETS[name].vision.image_size,
                "context_length": PRESETS[name].text.context_length,
                "tokenizer": PRESETS[name].tokenizer.kind,
            }
            for name in names
        },
    )
