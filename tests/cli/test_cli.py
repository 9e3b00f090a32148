"""The command line: quick help, and one clear line with exit code 2 for whatever a user gets wrong."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from clip_jax.cli import evaluate
from clip_jax.cli import main as command_line
from clip_jax.clip import create, save


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a command run in this process."""
    try:
        command_line.main(arguments)
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("model")
    save(create("tiny"), folder)
    return str(folder)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> str:
    root = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (root / name).mkdir()
        Image.fromarray(rng.integers(0, 256, (60, 50, 3), dtype=np.uint8)).save(root / name / "a.png")
    (root / "broken.jpg").write_bytes(b"\xff\xd8\xff not an image")
    return str(root)


def test_help_imports_nothing_heavy():
    script = (
        "import sys\nfrom clip_jax.cli.main import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "print(sorted({name.split('.')[0] for name in sys.modules} & {'jax', 'flax', 'numpy', 'tensorflow', 'torch'}))"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "examples:" in result.stdout
    assert result.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("command", list(command_line.COMMANDS))
def test_every_command_has_help_with_an_example(capsys, command):
    code, out, _ = run(capsys, command, "--help")
    assert code == 0
    assert re.search(rf"examples?:\n  clip-jax {command}", out)
    assert "--json" in out


@pytest.mark.parametrize("task", evaluate.TASKS)
def test_every_task_has_help_with_an_example(capsys, task):
    code, out, _ = run(capsys, "evaluate", task, "--help")
    assert code == 0
    assert f"example:\n  clip-jax evaluate {task}" in out
    assert "--json" in out


def test_classify_prints_and_writes(capsys, model, pictures, tmp_path):
    image, out_file = f"{pictures}/cat/a.png", tmp_path / "deep" / "answer.json"
    code, out, _ = run(capsys, "classify", image, "--labels", "dog, cat", "--model", model, "--json", str(out_file))
    assert code == 0
    answer = json.loads(out_file.read_text())[image]
    assert answer.keys() == {"dog", "cat"}
    assert sum(answer.values()) == pytest.approx(1, abs=1e-5)
    assert out.splitlines()[0] == image
    assert out.splitlines()[1].strip().endswith(max(answer, key=answer.get))


def test_evaluate_zero_shot(capsys, model, pictures, tmp_path):
    (tmp_path / "data").mkdir()
    for name in ("cat", "dog"):
        os.symlink(f"{pictures}/{name}", tmp_path / "data" / name)
    code, out, _ = run(
        capsys,
        *("evaluate", "zero-shot", "--model", model, "--data", str(tmp_path / "data")),
        *("--per-class", "--json", str(tmp_path / "r.json")),
    )
    assert code == 0
    result = json.loads((tmp_path / "r.json").read_text())
    assert result["images"] == 2
    assert result["chance"] == 0.5
    assert result["top1"] == np.mean(list(result["per_class"].values()))
    assert "2 images, 2 classes, chance 50.0%" in out


WRONG = {
    "command": (["trian"], "no command 'trian'; did you mean 'train'?"),
    "no image": (["classify", "nope.png", "--labels", "a,b", "--model", "{model}"], "image 'nope.png' does not exist"),
    "corrupt image": (
        ["classify", "{pictures}/broken.jpg", "--labels", "a,b", "--model", "{model}"],
        "broken.jpg' is not an image",
    ),
    "repeated label": (
        ["classify", "{pictures}/cat/a.png", "--labels", "a,b,a", "--model", "{model}"],
        "label 'a' stands 2 times",
    ),
    "empty label": (["classify", "{pictures}/cat/a.png", "--labels", "a,,b", "--model", "{model}"], "not empty"),
    "no model": (
        ["classify", "{pictures}/cat/a.png", "--labels", "a", "--model", "nope"],
        "there is no file, folder or pretrained model 'nope'",
    ),
    "preset as model": (
        ["classify", "{pictures}/cat/a.png", "--labels", "a", "--model", "ViT-B-32"],
        "architecture without weights",
    ),
    "template": (
        ["classify", "{pictures}/cat/a.png", "--labels", "a", "--model", "{model}", "--template", "a"],
        "has no {} to put the label in",
    ),
    "missing option": (["classify", "{pictures}/cat/a.png", "--model", "{model}"], "--labels"),
    "unlabelled data": (["evaluate", "zero-shot", "--model", "{model}", "--data", "scenes:train"], "no labels"),
    "no data": (["evaluate", "zero-shot", "--model", "{model}", "--data", "nope"], "no file or folder nope"),
    "task": (["evaluate", "zeroshot", "--model", "{model}", "--data", "nope"], "zero-shot"),
    "config file": (["train", "--config=nope.py", "--workdir=x"], "no config file nope.py"),
    "config key": (
        ["train", "--config={scenes}", "--workdir={fresh}", "--config.optimiser.learning_rate=1"],
        "config has no key 'optimiser'; did you mean 'optimizer'?",
    ),
    "model name": (
        ["train", "--config={scenes}", "--workdir={fresh}", "--config.model.name=ViT-B/32"],
        "unknown model 'ViT-B/32'; did you mean 'ViT-B-32'?",
    ),
    "mesh": (["train", "--config={scenes}", "--workdir={fresh}", "--config.mesh.data=3"], "does not fit"),
    "argument": (["train", "--config={scenes}", "--workdir={fresh}", "--steps=3"], "unknown argument --steps=3"),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_mistakes_get_one_line_and_exit_code_2(capsys, tmp_path, model, pictures, mistake):
    arguments, message = WRONG[mistake]
    scenes = os.path.join(os.path.dirname(__file__), "..", "..", "configs", "scenes.py")
    places = {"{model}": model, "{pictures}": pictures, "{scenes}": scenes, "{fresh}": str(tmp_path / "fresh")}
    for name, place in places.items():
        arguments = [argument.replace(name, place) for argument in arguments]
    code, out, err = run(capsys, *arguments)
    assert code == 2
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("clip-jax: ")
    assert message in err
    assert not (tmp_path / "fresh").exists()
