"""`clip-jax models`: the tables and their JSON."""

import json

import pytest

from clip_jax.cli import main as command_line
from clip_jax.presets import PRESETS
from clip_jax.weights.pretrained import PRETRAINED


def printed(capsys, *arguments: str) -> list[str]:
    command_line.main(["models", *arguments])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 120
    return lines


def test_architectures(capsys, tmp_path):
    lines = printed(capsys, "--json", str(tmp_path / "models.json"))
    assert len(lines) == len(PRESETS) + 3  # header, rule and caption
    assert "ViT-SO400M-14-SigLIP" in [line.split()[0] for line in lines]
    assert "multiply-add" in lines[-1]
    stored = json.loads((tmp_path / "models.json").read_text())
    assert stored.keys() == PRESETS.keys()
    vit = stored["ViT-B-32"]  # the figures of open_clip's docs/model_profile.csv
    assert vit["parameters"]["total"] / 1e6 == pytest.approx(151.28, abs=0.005)
    assert vit["flops"]["image"] / 1e9 == pytest.approx(8.82, abs=0.005)
    assert (vit["image_size"], vit["context_length"], vit["tokenizer"]) == (224, 77, "clip_bpe")


def test_pretrained(capsys, tmp_path):
    lines = printed(capsys, "--pretrained", "--json", str(tmp_path / "pretrained.json"))
    assert lines[0].split() == ["name", "total", "M", "repository"]
    rows = [line.split() for line in lines]
    assert ["laion2b_s34b_b79k/ViT-B-32", "151.28", "laion/CLIP-ViT-B-32-laion2B-s34B-b79K"] in rows
    stored = json.loads((tmp_path / "pretrained.json").read_text())
    assert stored.keys() == PRETRAINED.keys()
    assert stored["openai/ViT-B-32"]["architecture"] == "ViT-B-32-quickgelu"
    assert stored["dfn5b/ViT-H-14-378"]["preprocess"]["resize"] == "squash"


def test_help_shows_an_example(capsys):
    with pytest.raises(SystemExit) as stop:
        command_line.main(["models", "--help"])
    assert stop.value.code == 0
    assert "example:\n  clip-jax models --pretrained" in capsys.readouterr().out


def test_wrong_argument(capsys):
    with pytest.raises(SystemExit) as stop:
        command_line.main(["models", "--pretraind"])
    assert stop.value.code == 2
    assert capsys.readouterr().err == "clip-jax: unrecognized arguments: --pretraind; see clip-jax models --help\n"
