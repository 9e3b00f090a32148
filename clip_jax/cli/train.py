"""`clip-jax train`: a training run from a config file and overrides."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from clip_jax.cli.arguments import Parser, write_json


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
    options, rest = parser.parse_known_args(_joined(arguments))
    overrides = [_override(parser, argument) for argument in rest]

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


def _joined(arguments: Sequence[str]) -> list[str]:
    """The arguments with `--config.key value` written as `--config.key=value`."""
    joined: list[str] = []
    for argument in arguments:
        if joined and joined[-1].startswith("--config.") and "=" not in joined[-1] and not argument.startswith("--"):
            joined[-1] += f"={argument}"
        else:
            joined.append(argument)
    return joined


def _override(parser: argparse.ArgumentParser, argument: str) -> tuple[str, str]:
    if not argument.startswith("--config.") or "=" not in argument:
        parser.error(f"unknown argument {argument}; overrides look like --config.KEY=VALUE")
    key, _, value = argument.removeprefix("--config.").partition("=")
    return key, value
