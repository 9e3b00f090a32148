"""What the commands' parsers have in common."""

import argparse
import json
from pathlib import Path
from typing import Any, NoReturn

from clip_jax.errors import UserError
from clip_jax.whole_file import write_output


class StrictParser(argparse.ArgumentParser):
    """An argument parser whose mistakes are UserErrors, which the command line prints as one line."""

    def error(self, message: str) -> NoReturn:
        """Raises UserError where argparse would print its usage and exit."""
        raise UserError(f"{message}; see {self.prog} --help")


class Parser(StrictParser):
    """A command's parser: its help ends with an example, and `--json FILE` is among its options."""

    def __init__(self, command: str, description: str, example: str) -> None:
        super().__init__(
            prog=f"clip-jax {command}",
            description=description,
            epilog=f"example:\n  {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        self.add_argument("--json", metavar="FILE", type=Path, help="also write the result to FILE as JSON")


def write_json(path: Path | None, result: dict[str, Any]) -> None:
    """Writes the result where `--json` asked for it."""
    if path is not None:
        write_output(path, json.dumps(result, indent=2) + "\n")


def split_labels(text: str) -> list[str]:
    """'a, b,c' as ['a', 'b', 'c']."""
    return [label.strip() for label in text.split(",")]
