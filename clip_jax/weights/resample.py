"""Position embeddings for another image size or context length."""

from dataclasses import replace

import jax
import numpy as np
from jaxtyping import Float

from clip_jax.config import ClipConfig, ResNetConfig
from clip_jax.errors import UserError
from clip_jax.weights.checkpoint import Checkpoint, Origin, Parameter

MAX_GRID = 512  # positions along a side: more are of no use, and would fill memories
MAX_CONTEXT = 2**16


def resized(
    checkpoint: Checkpoint,
    image_size: int | None = None,
    context_length: int | None = None,
    resample_text: bool = False,
) -> Checkpoint:
    """The model for images of another size, or texts of another length.

    Image positions are resampled as open_clip does when it loads at another size (bicubic, antialiased, the class row
    kept). Of text positions the first ones are kept, or all are resampled (linear) where `resample_text` asks for
    it. Raises UserError where a longer context would need resampling that was not asked for.
    """
    if image_size is not None and image_size != checkpoint.config.vision.image_size:
        checkpoint = _at_image_size(checkpoint, image_size)
    if context_length is not None and context_length != checkpoint.config.text.context_length:
        checkpoint = _at_context_length(checkpoint, context_length, resample_text)
    return checkpoint


def resample_grid(positions: Float[np.ndarray, "n d"], old: int, new: int, class_row: bool) -> Float[np.ndarray, "m d"]:
    """Positions of an old x old grid on a new x new grid; a first row that belongs to no patch stays as it is.

    Source: open_clip `resize_pos_embed`, torch's bicubic interpolation with antialias and without aligned corners.
    """
    first, grid = positions[:class_row], positions[class_row:].astype(np.float32)
    width = positions.shape[-1]
    # Width by height by one kernel each, exact to the last bits also where TPUs would round products.
    with jax.default_matmul_precision("highest"):
        resampled = jax.image.resize(grid.reshape(old, old, width), (new, new, width), "cubic", antialias=True)
    return np.concatenate([first.astype(np.float32), np.asarray(resampled).reshape(-1, width)])


def resample_line(positions: Float[np.ndarray, "n d"], length: int) -> Float[np.ndarray, "m d"]:
    """Text positions stretched or squeezed to another length, linearly and without antialiasing.

    Source: open_clip `resize_text_pos_embed`.
    """
    with jax.default_matmul_precision("highest"):
        shape = (length, positions.shape[-1])
        return np.asarray(jax.image.resize(positions.astype(np.float32), shape, "linear", antialias=False))


def _at_image_size(checkpoint: Checkpoint, image_size: int) -> Checkpoint:
    old, vision = checkpoint.config.vision, replace(checkpoint.config.vision, image_size=image_size)
    if vision.grid > MAX_GRID:
        raise UserError(
            f"image size {image_size} makes {vision.grid} x {vision.grid} positions; {MAX_GRID} is the most"
        )
    config = replace(checkpoint.config, vision=vision)
    if vision.grid == old.grid:
        return replace(checkpoint, config=config)
    resnet = isinstance(vision, ResNetConfig)
    path = "visual/attention_pool/positional_embedding" if resnet else "visual/positional_embedding"
    class_row = resnet or vision.class_token
    values = resample_grid(checkpoint.parameters[path].read(None), old.grid, vision.grid, class_row)
    return _with_values(checkpoint, config, path, values)


def _at_context_length(checkpoint: Checkpoint, length: int, resample: bool) -> Checkpoint:
    text = checkpoint.config.text
    if length > MAX_CONTEXT:
        raise UserError(f"context length {length} is too long; {MAX_CONTEXT} is the most")
    if length < 1 or (length > text.context_length and not resample):
        raise UserError(
            f"context length {length} is not within the {text.context_length} positions that were trained; "
            "resample_text=True (--resample-text) stretches them"
        )
    path = "text/positional_embedding"
    positions = checkpoint.parameters[path].read(None)
    values = resample_line(positions, length) if resample else positions[:length].copy()
    config = replace(checkpoint.config, text=replace(text, context_length=length))
    return _with_values(checkpoint, config, path, values)


def _with_values(checkpoint: Checkpoint, config: ClipConfig, path: str, values: np.ndarray) -> Checkpoint:
    parameter = Parameter(values.shape, values.dtype, lambda layer: values)
    dtypes = {name: dtype for name, dtype in checkpoint.origin.dtypes.items() if name != path}
    if values.dtype != np.float32:
        dtypes[path] = values.dtype.name
    origin: Origin = replace(checkpoint.origin, dtypes=dtypes)
    return replace(checkpoint, config=config, parameters={**checkpoint.parameters, path: parameter}, origin=origin)
