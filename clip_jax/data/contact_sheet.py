"""A picture of what a model will see: augmented images with their captions as the tokenizer gives them back."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from clip_jax.errors import UserError

FORMATS = (".png", ".jpg", ".pdf", ".svg")
COLUMNS = 6
_CHARACTERS, _LINES = 27, 4  # of a caption under its image


def draw_contact_sheet(
    pixels: UInt8[np.ndarray, "b size size 3"], captions: Sequence[str], path: Path, title: str
) -> None:
    """Six images a row, each above its caption. Raises UserError where the picture cannot be written."""
    from matplotlib.figure import Figure

    rows = -(-len(pixels) // COLUMNS)
    figure = Figure(figsize=(2 * COLUMNS, 2.65 * rows + 0.4), layout="constrained")
    figure.suptitle(title, x=0.01, ha="left", fontsize=10)
    axes = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
    for place in axes:
        place.set_axis_off()
    for place, image, caption in zip(axes, pixels, captions, strict=False):
        place.imshow(image, interpolation="nearest" if len(image) < 100 else "auto")
        lines = textwrap.wrap(caption, _CHARACTERS, max_lines=_LINES, placeholder=" …") or ["(empty)"]
        text = "\n".join(lines + [""] * (_LINES - len(lines)))
        place.text(0, -0.03, text, transform=place.transAxes, fontsize=7, va="top", parse_math=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=130)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot write the picture {path}: {error}") from error
