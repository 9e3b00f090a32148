"""The notebooks run from top to bottom: their own assertions hold, and their figures are those of other computations.

CLIP_JAX_DEMO may name a demo that is trained already, which saves minutes.
"""

import fcntl
import os
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from support.notebooks import execute, pictures, unexpected_lines
from support.open_clip_shim import import_open_clip

import clip_jax
from clip_jax.data.spec import open_table
from clip_jax.data.table import usable

pytestmark = pytest.mark.slow

DEMO = "import sys; from clip_jax.cli.main import main; main(['demo', '--workdir', sys.argv[1]])"


@pytest.fixture(scope="session")
def demo(tmp_path_factory) -> Path:
    """The demo's workdir, trained once however many workers ask for it, with one device as a reader has."""
    if given := os.environ.get("CLIP_JAX_DEMO"):
        return Path(given).absolute()
    folder = tmp_path_factory.getbasetemp()
    folder = (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "notebooks-demo"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "demo" / "demo.json").is_file():
            environment = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}
            subprocess.run([sys.executable, "-c", DEMO, folder / "demo"], env=environment, check=True)
    return folder / "demo"


@pytest.fixture
def folder(demo, tmp_path) -> Path:
    """A folder to run a notebook in, where the demo is in its usual place."""
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "demo").symlink_to(demo)
    return tmp_path


@pytest.fixture
def clip(demo) -> clip_jax.Clip:
    return clip_jax.load(demo)


def images_of(spec: str) -> list[Image.Image]:
    table = open_table(spec)
    return [Image.open(BytesIO(sample.image)) for sample in usable(table.read(range(len(table))))]


def unit(array) -> np.ndarray:
    array = np.asarray(array, np.float64)
    return array / np.linalg.norm(array, axis=-1, keepdims=True)


def classifier(clip: clip_jax.Clip, names, templates) -> np.ndarray:
    """The textbook's: mean of the normalised prompts of each class, normalised."""
    return unit([unit(clip.encode_text([one.format(name) for one in templates])).mean(axis=0) for name in names])


def test_zero_shot(folder, clip):
    found, notebook = execute(
        "zero_shot",
        folder,
        {
            "accuracy": "accuracy",
            "interval": "[low, high]",
            "confusion": "confusion.tolist()",
            "among_all": "among_all.top(1)",
            "templates": "TEMPLATES",
            "every_label": "every_label",
            "half_right": "half_right",
        },
    )
    classes = sorted(path.name for path in (folder / "scenes_by_class").iterdir())
    paths = [sorted((folder / "scenes_by_class" / name).iterdir()) for name in classes]
    truth = np.repeat(np.arange(len(classes)), [len(several) for several in paths])
    features = unit(clip.encode_image([path for several in paths for path in several]))
    answers = (features @ classifier(clip, classes, found["templates"]).T).argmax(axis=1)
    confusion = [[int(((truth == a) & (answers == b)).sum()) for b in range(len(classes))] for a in range(len(classes))]
    everything = (features @ classifier(clip, found["every_label"], found["templates"]).T).argmax(axis=1)
    named_right = [
        found["every_label"][answer] == classes[label] for answer, label in zip(everything, truth, strict=True)
    ]

    assert len(truth) == 480
    assert found["accuracy"] == pytest.approx((answers == truth).mean())
    assert found["accuracy"] > 0.8
    assert found["confusion"] == confusion
    half_right = [
        bool({*classes[answer].split()} & {*classes[label].split()})
        for answer, label in zip(answers, truth, strict=True)
        if answer != label
    ]
    assert found["half_right"] == pytest.approx(np.mean(half_right))
    assert found["among_all"] == pytest.approx(np.mean(named_right), abs=1 / 480)
    # The normal approximation of a binomial share is the bootstrap's within a few images.
    half = 1.96 * np.sqrt(found["accuracy"] * (1 - found["accuracy"]) / 480)
    assert found["interval"] == pytest.approx([found["accuracy"] - half, found["accuracy"] + half], abs=0.01)
    assert pictures(notebook) == 4
    assert not unexpected_lines(notebook)


def test_interacting(folder, clip):
    found, notebook = execute(
        "interacting",
        folder,
        {
            "captions": "captions",
            "cosines": "cosines.tolist()",
            "scales": "scales",
            "softmax": "softmax.tolist()",
            "found": "found",
            "asked": "[name for _, name in asked]",
            "probabilities": "probabilities",
            "photo": "results[0]",
        },
    )
    table = open_table("scenes:seen?images=40")
    samples = usable(table.read(range(40)))
    by_caption = {sample.captions[1]: Image.open(BytesIO(sample.image)) for sample in samples}
    image = unit(clip.encode_image([by_caption[caption] for caption in found["captions"]]))
    cosines = image @ unit(clip.encode_text(found["captions"])).T
    powers = np.exp(np.array(found["scales"])[:, None] * cosines[0])
    by_name = {table.class_names[sample.label or 0]: Image.open(BytesIO(sample.image)) for sample in samples}
    pair = unit(clip.encode_text(["a star.", "a ring."]))
    logits = clip.logit_scale * unit(clip.encode_image([by_name[name] for name in found["asked"]])) @ pair.T
    shapes = ["circle", "square", "triangle", "star", "cross", "ring", "heart", "arrow"]
    photo = np.exp(clip.logit_scale * image[0] @ unit(clip.encode_text([f"a photo of a {one}." for one in shapes])).T)

    assert len(found["captions"]) == 8
    np.testing.assert_allclose(found["cosines"], cosines, atol=1e-5)
    assert found["found"] == (cosines.argmax(axis=1) == np.arange(8)).sum()
    np.testing.assert_allclose(found["softmax"], powers / powers.sum(axis=1, keepdims=True), atol=1e-3)
    star = 1 / (1 + np.exp(logits[:, 1] - logits[:, 0]))
    np.testing.assert_allclose([one["star"] for one in found["probabilities"]], star, atol=1e-4)
    assert list(found["photo"]) == shapes
    # The scene goes through a PNG, of which no pixel differs.
    np.testing.assert_allclose(list(found["photo"].values()), photo / photo.sum(), atol=1e-3)
    assert pictures(notebook) == 5
    assert not unexpected_lines(notebook)


def test_prompt_engineering(folder, clip):
    found, notebook = execute(
        "prompt_engineering",
        folder,
        {
            "by_template": "wording.by_template",
            "ensemble": "wording.embedding_ensemble",
            "of_probabilities": "wording.probability_ensemble",
            "by_naming": "by_naming",
            "names": "names",
            "other": "other",
            "half": "half.tolist()",
            "choice": "[best, chosen_on, judged_on]",
        },
    )
    names, templates = found["names"], list(found["by_template"])
    table = open_table("scenes:held_out?images=480")
    truth = np.array([names.index(table.class_names[sample.label or 0]) for sample in usable(table.read(range(480)))])
    features = unit(clip.encode_image(images_of("scenes:held_out?images=480")))

    def hits(words: list[str], templates: list[str]) -> np.ndarray:
        return (features @ classifier(clip, words, templates).T).argmax(axis=1) == truth

    def accuracy(words: list[str], templates: list[str]) -> float:
        return float(hits(words, templates).mean())

    half = np.array(found["half"])
    alone = {one: hits(names, [one]) for one in templates}
    best, chosen_on, judged_on = found["choice"]
    logits = [clip.logit_scale * features @ classifier(clip, names, [one]).T for one in templates]
    of_probabilities = np.sum([softmax(one, axis=1) for one in logits], axis=0).argmax(axis=1) == truth
    both = unit(sum(classifier(clip, words, ["a {}."]) for words in (names, found["other"])))

    assert found["by_template"] == pytest.approx({one: accuracy(names, [one]) for one in templates}, abs=1.5 / 480)
    assert found["ensemble"] == pytest.approx(accuracy(names, templates), abs=1.5 / 480)
    assert found["of_probabilities"] == pytest.approx(of_probabilities.mean(), abs=1.5 / 480)
    assert half.sum() == 240
    assert {*truth[half]} == {*truth[~half]} == {*truth}
    assert alone[best][half].mean() >= max(one[half].mean() for one in alone.values()) - 1.5 / 240
    assert [chosen_on, judged_on] == pytest.approx([alone[best][part].mean() for part in (half, ~half)], abs=1.5 / 240)
    named = found["by_naming"]
    assert named["colour and shape"] > 5 / 64
    assert named["synonyms: 'crimson pentagram'"] == pytest.approx(accuracy(found["other"], ["a {}."]), abs=1.5 / 480)
    with_both = ((features @ both.T).argmax(axis=1) == truth).mean()
    assert named["both names of each class"] == pytest.approx(with_both, abs=1.5 / 480)
    numbers = [f"class {number}" for number in range(64)]
    assert named["numbers: 'class 7'"] == pytest.approx(accuracy(numbers, ["a {}."]), abs=1.5 / 480)
    assert pictures(notebook) == 2
    assert not unexpected_lines(notebook)


def test_converting(folder, clip):
    asked = {"different": "different", "difference": "float(difference.max())", "logits": "in_torch.tolist()"}
    found, notebook = execute("converting", folder, asked)
    import torch

    samples = usable(open_table("scenes:held_out?images=8").read(range(8)))
    pixels = clip.preprocess([Image.open(BytesIO(sample.image)) for sample in samples])
    tokens = clip.tokenize([sample.captions[0] for sample in samples])
    model = import_open_clip().create_model(f"local-dir:{folder / 'out/open_clip'}", precision="fp32").eval()
    with torch.no_grad():
        image, text, scale = model(
            torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy()), torch.from_numpy(tokens).long()
        )
    open_clip, hf = (
        load_file(folder / "out" / name) for name in ("open_clip/open_clip_model.safetensors", "hf/model.safetensors")
    )

    assert found["different"] == {"hf": 0, "open_clip": 0, "clip_jax": 0, "openai": 0}
    np.testing.assert_allclose(found["logits"], (scale * image @ text.T).numpy(), atol=1e-4)
    np.testing.assert_array_equal(open_clip["token_embedding.weight"], clip.params["text"]["token_embedding"])
    np.testing.assert_array_equal(hf["visual_projection.weight"].T, clip.params["visual"]["projection"])
    assert float(hf["logit_scale"]) == pytest.approx(float(open_clip["logit_scale"]) + 0.5)
    assert pictures(notebook) == 1
    assert not unexpected_lines(notebook)


def test_training(folder):
    found, notebook = execute(
        "training",
        folder,
        {
            "before": "before",
            "after": "after",
            "templates": "TEMPLATES",
            "steps": "steps.tolist()",
            "first_time": "first_time.tolist()",
            "second_time": "second_time.tolist()",
        },
    )
    clip = clip_jax.load(folder / "runs" / "training")
    table = open_table("scenes:held_out?images=480")
    names = classifier(clip, table.class_names, found["templates"])
    features = unit(clip.encode_image(images_of("scenes:held_out?images=480")))
    accuracy = ((features @ names.T).argmax(axis=1) == np.arange(480) % len(table.class_names)).mean()

    assert found["after"] == pytest.approx(accuracy, abs=1.5 / 480)
    assert found["after"] > 0.35
    assert found["before"] < 0.125
    assert found["steps"] == list(range(5, 241, 5))
    assert len(found["first_time"]) == 12
    assert found["first_time"] == found["second_time"]
    assert pictures(notebook) == 3
    assert not unexpected_lines(notebook)


def test_features_in_jax(folder, clip):
    found, notebook = execute(
        "features_in_jax",
        folder,
        {
            "probe": "probe_accuracy",
            "zero_shot": "zero_shot_accuracy",
            "by_depth": "by_depth",
            "phrases": "phrases",
            "sums": "maps.sum(axis=(2, 3)).tolist()",
            "on_named": "on_named",
            "found": "found",
        },
    )
    train, test = (clip.preprocess(images_of(f"scenes:{split}?images=480")) for split in ("probe", "held_out"))
    (_, x_train), (_, x_test) = clip.image_features(train), clip.image_features(test)
    centre, spread, truth = x_train.mean(axis=0), x_train.std(axis=0), np.arange(480) % 24
    # The notebook's mean cross-entropy and 1e-3 of the squared weights, as scikit-learn weighs them.
    probe = LogisticRegression(C=1 / (2 * 1e-3 * 480), max_iter=2000).fit((x_train - centre) / spread, truth)
    names = classifier(clip, open_table("scenes:held_out").class_names, ["a {}.", "a drawing of a {}."])
    zero_shot = ((unit(clip.encode_image(test)) @ names.T).argmax(axis=1) == truth).mean()
    images = clip.preprocess(images_of("scenes:relations?images=8"))
    plain = np.broadcast_to(np.median(images, axis=(1, 2), keepdims=True), images.shape)
    image, background = (unit(clip.encode_image(pixels)) for pixels in (images, np.ascontiguousarray(plain)))
    sentences = np.stack([unit(clip.encode_text(pair)) for pair in found["phrases"]])
    changes = np.einsum("bk,bsk->bs", image - background, sentences)

    assert found["probe"] == pytest.approx(probe.score((x_test - centre) / spread, truth), abs=0.02)
    assert found["zero_shot"] == pytest.approx(zero_shot, abs=1.5 / 480)
    assert found["by_depth"]["layer 1"] < found["by_depth"]["pre_projection"]
    np.testing.assert_allclose(found["sums"], changes, atol=0.01)
    assert np.abs(changes).max() > 0.1
    assert found["on_named"] > 0.75
    assert found["found"] > 0.75
    assert pictures(notebook) == 4
    assert not unexpected_lines(notebook)
