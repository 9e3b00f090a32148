"""CLIP in JAX/Flax: train on TPU pods, convert PyTorch weights, evaluate zero-shot.

Everything public is importable from here and loaded on first use, so that `import clip_jax` stays quick and needs
neither TensorFlow nor torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clip_jax import losses
    from clip_jax.clip import Clip, create, load, save
    from clip_jax.config import ClipConfig
    from clip_jax.errors import UserError
    from clip_jax.presets import list_models
    from clip_jax.weights.pretrained import list_pretrained

__version__ = "0.1.0"
__all__ = ["Clip", "ClipConfig", "UserError", "create", "list_models", "list_pretrained", "load", "losses", "save"]

_HOMES = {
    "Clip": "clip_jax.clip",
    "create": "clip_jax.clip",
    "load": "clip_jax.clip",
    "save": "clip_jax.clip",
    "ClipConfig": "clip_jax.config",
    "UserError": "clip_jax.errors",
    "list_models": "clip_jax.presets",
    "list_pretrained": "clip_jax.weights.pretrained",
}


def __getattr__(name: str) -> Any:
    if name == "losses":
        return import_module("clip_jax.losses")
    if name not in _HOMES:
        raise AttributeError(f"module 'clip_jax' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
