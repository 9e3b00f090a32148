"""TensorFlow, which takes seconds to import, once something is read that needs it."""

import os
from typing import Any

from clip_jax.errors import UserError


def tensorflow() -> Any:
    """TensorFlow, kept off the accelerator and quiet. Raises UserError where it is not installed."""
    # Both silence what TensorFlow says of its build when imported; nothing here uses the kernels that are switched off.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    try:
        import tensorflow as tf
    except ImportError as error:
        raise UserError(
            "images for training, tf.train.Examples and tfds are read through TensorFlow; "
            "pip install '.[train]' in the repository"
        ) from error
    tf.config.set_visible_devices([], "GPU")  # it would take the memory that JAX needs
    return tf
