"""Runs the steps of pages in one process, as a reader would: `python run_page.py` with JSON on standard input.

A step is {"page": "..."}, where a page begins, {"command": [...]}, the arguments of clip-jax, or {"python": "..."}, a
block; the blocks of a page share their names.
"""

import json
import shlex
import sys
from typing import Any

from clip_jax.cli.main import main


def run(steps: list[dict]) -> None:
    """Exits where a command ends badly, and raises what a block raises."""
    names: dict[str, Any] = {}
    for step in steps:
        if "page" in step:
            names = {}
            print("#", step["page"], flush=True)
        elif "python" in step:
            exec(step["python"], names)
        else:
            command(step["command"])


def command(arguments: list[str]) -> None:
    """Exits where it ends badly."""
    print("+ clip-jax", shlex.join(arguments), flush=True)
    if "--torch" in arguments:
        from support.open_clip_shim import import_open_clip

        import_open_clip()
    try:
        main(arguments)
    except SystemExit as stop:
        if stop.code:
            raise


if __name__ == "__main__":  # the workers that draw scenes import this file
    run(json.load(sys.stdin))
