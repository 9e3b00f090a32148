"""Small pictures of the samples that a set is of, found again in the data it was made of."""

import base64
import io
import warnings
from collections.abc import Iterable

from PIL import Image

from clip_jax.data.spec import open_table
from clip_jax.data.table import Sample, Table
from clip_jax.errors import UserError
from clip_jax.inputs.images import ImageSource, open_image
from clip_jax.search.description import Description
from clip_jax.search.search import Hit
from clip_jax.search.source import printable

SIDE = 256  # pixels, of the longer one


def thumbnail(source: ImageSource) -> str:
    """An image as a small JPEG in a data URI. Raises UserError where it cannot be read."""
    image = open_image(source)
    image.thumbnail((SIDE, SIDE), Image.Resampling.BICUBIC)
    content = io.BytesIO()
    image.save(content, "jpeg", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}"


def thumbnails(description: Description | None, hits: Iterable[Hit]) -> dict[int, str]:
    """By row the pictures of those hits that still are in the data, with a warning where some are not, or are none."""
    wanted = {hit.row: (hit.sample, hit.key) for hit in hits if hit.sample is not None}
    if description is None or not wanted or description.kind == "lines":
        return {}
    try:
        table = open_table(description.data)
    except UserError as error:
        warnings.warn(f"no pictures, as the data of the set cannot be opened: {error}", stacklevel=2)
        return {}
    found: dict[int, str] = {}
    gone = 0
    for row, (place, key) in wanted.items():
        if not 0 <= place < len(table) or printable(*table.keys([place])) != printable(key):
            gone += 1
        elif picture := _picture(table, place):
            found[row] = picture
    if gone:
        warnings.warn(f"{gone} of {len(wanted)} pictures are no longer in {description.data}", stacklevel=2)
    if unreadable := len(wanted) - gone - len(found):
        warnings.warn(f"{unreadable} of {len(wanted)} pictures in {description.data} cannot be read", stacklevel=2)
    return found


def _picture(table: Table, place: int) -> str | None:
    try:
        (sample,) = table.read([place])
        return thumbnail(sample.image) if isinstance(sample, Sample) else None
    except UserError:
        return None
