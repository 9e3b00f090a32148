"""Small pictures of the samples that a set is of, found again in the data it was made of."""

import base64
import io
import warnings
from collections.abc import Iterable

from PIL import Image

from clip_jax.data.spec import open_table
from clip_jax.data.table import Sample
from clip_jax.errors import UserError
from clip_jax.inputs.images import ImageSource, open_image
from clip_jax.search.description import Description
from clip_jax.search.search import Hit

SIDE = 256  # pixels, of the longer one


def thumbnail(source: ImageSource) -> str:
    """An image as a small JPEG in a data URI. Raises UserError where it cannot be read."""
    image = open_image(source)
    image.thumbnail((SIDE, SIDE), Image.Resampling.BICUBIC)
    content = io.BytesIO()
    image.save(content, "jpeg", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}"


def thumbnails(description: Description | None, hits: Iterable[Hit]) -> dict[int, str]:
    """By row the pictures of those hits that still are in the data, with a warning where some are not."""
    wanted = {hit.row: (hit.sample, hit.key) for hit in hits if hit.sample is not None}
    if description is None or not wanted or description.data.endswith(".txt"):
        return {}
    try:
        table = open_table(description.data)
    except UserError as error:
        warnings.warn(f"no pictures, as the data of the set cannot be opened: {error}", stacklevel=2)
        return {}
    found: dict[int, str] = {}
    for row, (place, key) in wanted.items():
        try:
            if place < len(table) and table.keys([place]) == [key]:
                (sample,) = table.read([place])
                if isinstance(sample, Sample):
                    found[row] = thumbnail(sample.image)
        except UserError:
            continue
    if len(found) < len(wanted):
        missing = len(wanted) - len(found)
        warnings.warn(f"{missing} of {len(wanted)} pictures are no longer in {description.data}", stacklevel=2)
    return found
