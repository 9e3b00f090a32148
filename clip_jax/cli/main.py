"""The command line `clip-jax`: finds the command, loads only that one, and turns user errors into one line."""

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module

from clip_jax.cli.arguments import StrictParser
from clip_jax.errors import UserError

# Name, module and a line of help. Modules are loaded when chosen, which keeps `clip-jax --help` quick.
COMMANDS = {
    "demo": "draw captioned scenes, train a tiny CLIP on them, evaluate it zero-shot, write a report",
    "train": "train a model from a config file, or resume what the workdir holds",
    "doctor": "look a host or a pod over before a run: packages, devices, hosts, disk, data, one dry step",
    "data": "index data, or look through it before a run: counts, sizes, bad samples, speed, a contact sheet",
    "plan": "compile the train step for a TPU slice that is not there: does it fit, what does it cost",
    "launch": "train on a Cloud TPU slice: create, install, start, follow, begin again after preemption, delete",
    "evaluate": "zero-shot, retrieval, linear probes, few-shot, robustness, on one or many datasets",
    "classify": "say which of some labels fit your images",
    "embed": "turn all images or texts of some data into a file of embeddings, resumably",
    "search": "find what is nearest to texts or images in such a file, with a contact sheet",
    "models": "list the named architectures and their sizes, or the pretrained weights that have a name",
    "convert": "convert a model between clip_jax, open_clip, transformers and OpenAI layouts",
    "parity": "compare two checkpoints layer by layer",
}
TRAINING_PACKAGES = ("tensorflow", "ml_collections", "matplotlib", "tensorboardX")
EXAMPLES = """examples:
  clip-jax demo
  clip-jax train --config=configs/scenes.py --workdir=runs/scenes
  clip-jax plan --config=configs/openai_vit_b32.py --topology v5e:16x16
  clip-jax evaluate zero-shot --model runs/scenes --data runs/scenes/scenes/held_out
  clip-jax classify star.jpg --labels 'red star,blue ring' --model runs/scenes
  clip-jax embed folder:photos --model openai/ViT-B-32 --out photos.npy
  clip-jax search photos.npy --text 'a dog on a beach' --html found.html
  clip-jax convert ViT-B-32.pt released/ --to hf"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a command and exits: 0 on success, 2 for a user's mistake, 1 where the answer is no or a process is lost.

    A run that a disk, a bucket or the network failed exits with 74; one that was asked to stop has saved its state and
    exits with 75, anything else that is interrupted with 130.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    warnings.showwarning = _warn
    try:
        _run(arguments)
    except UserError as error:
        sys.exit(_fail(" ".join(str(error).split()), error.exit_code))
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in TRAINING_PACKAGES:
            raise
        sys.exit(_fail(f"this command needs the package '{error.name}'; pip install '.[train]' in the repository"))
    except BrokenPipeError:  # as in `clip-jax models | head`; nothing is left to say, nor anybody to hear it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        print("clip-jax: interrupted", file=sys.stderr)
        sys.exit(130)


def _run(arguments: list[str]) -> None:
    parser = StrictParser(
        prog="clip-jax",
        description="CLIP in JAX: train, evaluate and use contrastive image-text models.",
        epilog="commands:\n"
        + "".join(f"  {name:10} {line}\n" for name, line in COMMANDS.items())
        + f"\n{EXAMPLES}\n\n`clip-jax COMMAND --help` tells more.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="clip-jax [-h] [--version] COMMAND ...",
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    parser.add_argument("command", nargs="?", metavar="COMMAND", help="one of those below")
    # What follows the command belongs to it, its --help included.
    place = next((i for i, argument in enumerate(arguments) if not argument.startswith("-")), len(arguments))
    options = parser.parse_args(arguments[: place + 1])
    if options.version:
        from clip_jax import __version__

        print(f"clip_jax {__version__}")
        return
    if options.command is None:
        parser.print_help()
        return
    if options.command not in COMMANDS:
        from clip_jax.schema import nearest

        raise UserError(f"there is no command '{options.command}'; {nearest(options.command, COMMANDS)}")
    command = import_module(f"clip_jax.cli.{options.command}")
    command.run(arguments[place + 1 :])


def _warn(message: Warning | str, *_: object) -> None:
    print(f"clip-jax: warning: {' '.join(str(message).split())}", file=sys.stderr)


def _fail(message: str, code: int = UserError.exit_code) -> int:
    print(f"clip-jax: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    main()
