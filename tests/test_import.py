"""What importing and using the package drags in, seen from a fresh interpreter."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "clip_jax"
ORDER = ("cli", "tpu", "training", "evaluation", "search", "clip", "weights", "data", "losses", "models", "sharding")
ORDER += ("inputs", "config")

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


def imported(path: Path) -> set[str]:
    """What of clip_jax a file imports, by the first name behind that, wherever in the file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names] if "." not in node.module else [node.module]
        else:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        found |= {name.split(".")[1] for name in names if name.startswith("clip_jax.")}
    return found


@pytest.mark.parametrize("part", ORDER)
def test_imports_point_one_way(part):
    allowed = ORDER[ORDER.index(part) :]
    files = [PACKAGE / f"{part}.py"] if (PACKAGE / f"{part}.py").exists() else sorted((PACKAGE / part).rglob("*.py"))
    assert files
    wrong = {str(path): found for path in files if (found := (imported(path) & {*ORDER}) - {*allowed})}
    assert not wrong
