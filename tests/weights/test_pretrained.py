"""The table of pretrained names against open_clip's own."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from support.open_clip_shim import import_open_clip

from clip_jax.errors import UserError
from clip_jax.presets import PRESETS, get_config
from clip_jax.weights.pretrained import PRETRAINED, get_pretrained, list_pretrained

SCRIPT = Path(__file__).parents[2] / "experiments" / "make_pretrained.py"


def their_entries() -> dict[str, dict]:
    """open_clip's entries of architectures that we have, by our name for them."""
    open_clip = import_open_clip()
    from open_clip.pretrained import get_pretrained_cfg

    pairs = [pair for pair in open_clip.list_pretrained() if pair[0] in PRESETS]
    return {f"{tag}/{architecture}": get_pretrained_cfg(architecture, tag) for architecture, tag in pairs}


def test_every_entry_of_open_clip_is_there():
    theirs = their_entries()
    assert PRETRAINED.keys() == theirs.keys()
    assert len(theirs) > 130
    assert all(entry["hf_hub"] for entry in theirs.values()), "weights with nothing but a URL are not in the table"


@pytest.mark.parametrize("name", PRETRAINED)
def test_entry_equals_open_clips(name):
    ours, theirs = get_pretrained(name), their_entries()[name]
    assert ours.name == name
    assert f"{ours.repository}/" == theirs["hf_hub"]
    architecture = name.split("/")[1]
    quick = theirs.get("quick_gelu", False)
    assert ours.architecture == architecture.removesuffix("-quickgelu") + ("-quickgelu" if quick else "")
    assert ours.config.text.transformer.activation == ("quick_gelu" if quick else _activation(architecture))
    preprocess = ours.config.preprocess
    assert (preprocess.mean, preprocess.std) == (theirs["mean"], theirs["std"])
    assert (preprocess.interpolation, preprocess.resize) == (theirs["interpolation"], theirs["resize_mode"])
    assert ours.revision is None


def _activation(architecture: str) -> str:
    assert "quickgelu" not in architecture
    return "gelu_tanh" if "SigLIP2" in architecture else "gelu"


def test_config_is_the_presets_otherwise():
    squashed = get_pretrained("dfn5b/ViT-H-14-378")
    preset = get_config("ViT-H-14-378-quickgelu")
    assert squashed.config != preset
    assert squashed.config.vision == preset.vision
    assert squashed.config.preprocess.resize == "squash"
    assert get_pretrained("openai/ViT-B-32").config == get_config("ViT-B-32-quickgelu")


@pytest.mark.skipif(importlib.util.find_spec("open_clip") is None, reason="needs open_clip_torch")
def test_vendored_table_equals_its_source():
    run = subprocess.run([sys.executable, SCRIPT, "--check"], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout == "134 weights, from open_clip_torch 3.3.0\n"


def test_list_pretrained_is_a_list_and_a_table():
    names = list_pretrained()
    assert names == sorted(PRETRAINED)
    assert "laion2b_s34b_b79k/ViT-B-32" in names
    header, _, *rows = str(names).splitlines()
    assert header.split() == ["name", "architecture", "total", "M", "repository"]
    row = next(row for row in rows if row.startswith("openai/ViT-L-14-336 "))
    assert row.split() == [
        *("openai/ViT-L-14-336", "ViT-L-14-336-quickgelu", "427.94", "timm/vit_large_patch14_clip_336.openai"),
    ]
    assert "<td" in names._repr_html_()


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("ViT-B-32/openai", "did you mean 'openai/ViT-B-32'?"),
        ("vit-b-32/OpenAI", "did you mean 'openai/ViT-B-32'?"),
        ("openai/ViT-B/32", "did you mean 'openai/ViT-B-32'?"),
        ("laion2b-s34b-b79k/ViT-B-32", "did you mean 'laion2b_s34b_b79k/ViT-B-32'?"),
        ("ViT-L-14-CLIPA/datacomp1B", "did you mean 'datacomp1b/ViT-L-14-CLIPA'?"),
        (
            "laion/CLIP-ViT-B-32-laion2B-s34B-b79K",
            "did you mean 'laion2b_s34b_b79k/ViT-B-32', or 'hf-hub:laion/CLIP-ViT-B-32-laion2B-s34B-b79K'?",
        ),
        ("?", "clip_jax.list_pretrained() has the names"),
    ],
)
def test_unknown_name(name, hint):
    with pytest.raises(UserError) as caught:
        get_pretrained(name)
    assert str(caught.value) == f"there is no file, folder or pretrained model '{name}'; {hint}"
