"""What tells a model's features from another's: a digest of a tower and of all else that makes them."""

import hashlib
import json
from functools import lru_cache
from typing import Literal

import jax
import numpy as np

from clip_jax.clip import Clip


@lru_cache(maxsize=2)  # a large model takes seconds, and every classifier asks
def fingerprint_of(clip: Clip, tower: Literal["visual", "text"]) -> str:
    """A digest of what makes one tower's features: the model's config, how it computes, and the tower's values."""
    described = json.dumps([clip.config.to_dict(), clip.compute.dtype], sort_keys=True)
    digest = hashlib.blake2b(described.encode(), digest_size=16)
    for leaf in jax.tree.leaves(clip.params[tower]):
        digest.update(np.ascontiguousarray(leaf).reshape(-1).view(np.uint8).data)
    if tower == "text":
        for name, content in sorted(clip.tokenizer_files.items()):
            digest.update(name.encode() + content)
    return digest.hexdigest()
