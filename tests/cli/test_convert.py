"""`clip-jax convert`: what it prints and writes when all is well."""

import json
import re

import jax
import numpy as np
import pytest
from support.checkpoints import write_open_clip

import clip_jax
from clip_jax.cli.main import main

pytest.importorskip("torch")


def test_convert(tmp_path, capsys):
    write_open_clip(tmp_path / "source", "RN50")
    main(["convert", str(tmp_path / "source"), str(tmp_path / "target"), "--json", str(tmp_path / "result.json")])
    lines = capsys.readouterr().out.splitlines()
    parameters = sum(leaf.size for leaf in jax.tree.leaves(clip_jax.load(tmp_path / "source").params))
    assert lines[0] == (
        f"read   {tmp_path / 'source'} (open_clip_resnet): {parameters / 1e6:.1f} M parameters, float32"
    )
    assert re.fullmatch(rf"wrote  {tmp_path / 'target'} \(clip_jax\): \d+\.\d MB in \d+\.\d s", lines[1])
    assert lines[2:] == ["  clip_jax.json", "  model.safetensors"]
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["config"] == json.loads((tmp_path / "target" / "clip_jax.json").read_text())["config"]
    sizes = [file.stat().st_size for file in (tmp_path / "target").iterdir()]
    assert (result["parameters"], result["bytes"], result["types"]) == (parameters, sum(sizes), ["float32"])
    assert (result["source_layout"], result["layout"]) == ("open_clip_resnet", "clip_jax")


@pytest.mark.parametrize("layout", ["clip_jax", "open_clip", "hf", "openai"])
def test_every_layout(tmp_path, capsys, layout):
    """A model of ours into each, and back: the same model."""
    original = clip_jax.create("tiny-quickgelu")
    clip_jax.save(original, tmp_path / "ours")
    main(["convert", str(tmp_path / "ours"), str(tmp_path / "theirs"), "--to", layout])
    main(["convert", str(tmp_path / "theirs"), str(tmp_path / "back")])
    assert "clip-jax:" not in capsys.readouterr().err  # no warning; progress shows where it takes long
    back = clip_jax.load(tmp_path / "back")
    jax.tree.map(np.testing.assert_array_equal, back.params, original.params)
    assert back.config.vision == original.config.vision
    assert back.config.text == original.config.text
    assert back.config.preprocess.mean == original.config.preprocess.mean


def test_a_tower_at_another_size(tmp_path, capsys):
    clip_jax.save(clip_jax.create("tiny"), tmp_path / "ours")
    main(["convert", str(tmp_path / "ours"), str(tmp_path / "larger"), "--image-size", "80", "--context-length", "20"])
    capsys.readouterr()
    clip = clip_jax.load(tmp_path / "larger")
    assert (clip.config.vision.image_size, clip.config.text.context_length) == (80, 20)
    assert clip.encode_image(np.zeros((50, 60, 3), np.uint8)).shape == (128,)
