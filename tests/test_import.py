"""What importing and using the package drags in, seen from a fresh interpreter."""

import subprocess
import sys

import pytest

ENCODE = """
import numpy as np
clip = clip_jax.create("tiny")
clip.encode_image(np.zeros((70, 80, 3), np.uint8))
clip.encode_text("a dog")
"""


@pytest.mark.parametrize(
    ("code", "unwanted"),
    [
        ("", ["tensorflow", "torch", "jax", "flax", "orbax", "transformers"]),
        ("clip_jax.list_models()", ["tensorflow", "torch", "jax", "flax", "orbax", "transformers"]),
        (ENCODE, ["tensorflow", "torch", "orbax", "transformers", "open_clip", "torchvision"]),
    ],
    ids=["import", "list models", "encode"],
)
def test_stays_light(code, unwanted):
    program = f"import sys, clip_jax\n{code}\nprint(*(name for name in {unwanted} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.split() == []


def test_public_names_resolve():
    import clip_jax

    for name in clip_jax.__all__:
        assert getattr(clip_jax, name) is not None
        assert name in dir(clip_jax)
    with pytest.raises(AttributeError, match="nonsense"):
        clip_jax.nonsense  # noqa: B018
