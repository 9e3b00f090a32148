"""`clip-jax train`: a training run from a config file and overrides."""

from collections.abc import Sequence
from pathlib import Path

from clip_jax.cli.arguments import Parser, write_json
from clip_jax.cli.config_arguments import joined, overrides_of


def run(arguments: Sequence[str]) -> None:
    """Trains, or resumes what the workdir holds, and prints the last figures."""
    parser = Parser(
        "train",
        "Train a model, or resume what the workdir holds: the same command goes on where a run was stopped.\n"
        "--config.KEY=VALUE overrides any key of the config, as in --config.optimizer.learning_rate=3e-4.",
        "clip-jax train --config=configs/scenes.py --workdir=runs/scenes --config.seed=1",
    )
    parser.add_argument(
        "--config", required=True, metavar="FILE[:ARG]", help="a Python file whose get_config(ARG) returns the config"
    )
    parser.add_argument("--workdir", required=True, type=Path, help="the folder of the run")
    options, rest = parser.parse_known_args(joined(arguments))
    overrides = overrides_of(parser, rest)

    from clip_jax.training.config_file import load_config
    from clip_jax.training.loop import train
    from clip_jax.training.metrics import read_metrics

    train(load_config(options.config, overrides), options.workdir)
    last: dict = {}
    for line in read_metrics(options.workdir):
        last |= line
    print(f"trained to step {last['step']} in {options.workdir}")
    for name, value in last.items():
        if name == "loss" or name.startswith("eval/"):
            print(f"  {name:40} {value:.4f}")
    write_json(options.json, last)
