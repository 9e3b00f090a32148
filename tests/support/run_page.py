"""Runs a page's steps in one process, as a reader would: `python run_page.py` with JSON on standard input.

A step is {"command": [...]}, the arguments of clip-jax, or {"python": "..."}, a block; blocks share their names.
"""

import json
import shlex
import sys

import numpy as np
from PIL import Image

from clip_jax.cli.main import main


def run(steps: list[dict]) -> None:
    """Exits where a command ends badly, and raises what a block raises."""
    pixels = np.random.default_rng(1).integers(0, 256, (50, 40, 3), dtype=np.uint8)
    names = {"uint8_array": pixels, "pil_image": Image.fromarray(pixels)}  # which stand for the reader's own
    for step in steps:
        if "python" in step:
            exec(step["python"], names)
            continue
        print("+ clip-jax", shlex.join(step["command"]), flush=True)
        if "--torch" in step["command"]:
            from support.open_clip_shim import import_open_clip

            import_open_clip()
        try:
            main(step["command"])
        except SystemExit as stop:
            if stop.code:
                raise


if __name__ == "__main__":  # the workers that draw scenes import this file
    run(json.load(sys.stdin))
