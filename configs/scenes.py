"""A tiny CLIP on drawn scenes: what `clip-jax demo` trains. The images are drawn where they are missing.

clip-jax train --config=configs/scenes.py --workdir=runs/scenes
"""

from clip_jax.training.recipes import scenes as get_config

__all__ = ["get_config"]
