"""Overrides of a config on the command line: --config.KEY=VALUE."""

import argparse
from collections.abc import Sequence


def joined(arguments: Sequence[str]) -> list[str]:
    """The arguments with `--config.key value` written as `--config.key=value`."""
    found: list[str] = []
    for argument in arguments:
        if found and found[-1].startswith("--config.") and "=" not in found[-1] and not argument.startswith("--"):
            found[-1] += f"={argument}"
        else:
            found.append(argument)
    return found


def overrides_of(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of a dotted key and its text. Raises UserError, through the parser, for anything else."""
    overrides = []
    for argument in arguments:
        if not argument.startswith("--config.") or "=" not in argument:
            parser.error(f"unknown argument {argument}; overrides look like --config.KEY=VALUE")
        key, _, value = argument.removeprefix("--config.").partition("=")
        overrides.append((key, value))
    return overrides
