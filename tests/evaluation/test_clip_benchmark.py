"""The same model and data through CLIP_benchmark's own evaluation and through this one: the same figures.

The model is open_clip's, randomly initialised, and read here from its files; images are decoded and preprocessed by
either side's own code.
"""

import importlib
import io
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.checkpoints import write_open_clip
from support.open_clip_shim import import_open_clip
from support.tars import write_tar

import clip_jax
from clip_jax.data.spec import open_table
from clip_jax.evaluation.features import embed_table
from clip_jax.evaluation.question import ask
from clip_jax.evaluation.retrieval import retrieve_features

COLOURS = ("red", "green", "blue", "white", "black", "yellow", "grey")
TEMPLATES = ["a photo of something {c}.", "{c}", "a {c} picture"]


@pytest.fixture(scope="module")
def sides(tmp_path_factory):
    """Both sides' model, and open_clip's preprocessing and tokenizer."""
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    write_open_clip(folder, "ViT-B-32-quickgelu")
    open_clip = import_open_clip()
    theirs, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    return clip_jax.load(folder), theirs.eval(), preprocess, tokenizer


@pytest.fixture(scope="module")
def pictures() -> list[bytes]:
    """Ninety noisy pictures of a colour and a size each, as lossless WebP."""
    rng = np.random.default_rng(0)
    made = []
    for i in range(90):
        height, width = rng.integers(20, 60, 2)
        pixels = rng.integers(0, 256, (height, width, 3)) // 2 + np.array([(i * 40) % 128, (i * 90) % 128, i])
        content = io.BytesIO()
        Image.fromarray(pixels.astype(np.uint8)).save(content, "webp", lossless=True)
        made.append(content.getvalue())
    return made


def write(folder: Path, pictures: list[bytes], extension: str, said: list[bytes], kind: str | None = None) -> str:
    """CLIP_benchmark's layout of tars, and the data spec of it."""
    members = [((f"{i:03d}.webp", image), (f"{i:03d}.{extension}", said[i])) for i, image in enumerate(pictures)]
    flat = [member for pair in members for member in pair]
    for shard in range(3):
        write_tar(folder / f"test/{shard}.tar", flat[60 * shard : 60 * (shard + 1)])
    (folder / "test/nshards.txt").write_text("3")
    (folder / "classnames.txt").write_text("\n".join(COLOURS))
    (folder / "zeroshot_classification_templates.txt").write_text("\n".join(TEMPLATES))
    if kind:
        (folder / "dataset_type.txt").write_text(kind)
    return f"tar:{folder}/test"


def loader(pictures: list[bytes], preprocess: Callable[..., Any], targets: list[Any]) -> Any:
    """What CLIP_benchmark takes for a data loader: batches of 32, images with targets, and the names of the classes."""
    images = [preprocess(Image.open(io.BytesIO(content))) for content in pictures]

    class Loader:
        dataset = SimpleNamespace(classes=COLOURS)

        def __iter__(self):
            for start in range(0, len(images), 32):
                batch = targets[start : start + 32]
                whole = batch if isinstance(batch[0], list) else torch.tensor(np.array(batch))
                yield torch.stack(images[start : start + 32]), whole

        def __len__(self):
            return -(-len(images) // 32)

    return Loader()


def theirs(module: str, sides: Any, pictures: list[bytes], targets: list[Any], **arguments: Any) -> dict[str, float]:
    _, model, preprocess, tokenizer = sides
    metrics: Any = importlib.import_module(f"clip_benchmark.metrics.{module}")
    # It converts arrays of one number, which NumPy 2.4 no longer does.
    metrics.float = lambda value: float(getattr(value, "item", lambda: value)())
    return metrics.evaluate(
        model, loader(pictures, preprocess, targets), tokenizer, device="cpu", amp=False, **arguments
    )


def test_one_label(sides, pictures, tmp_path):
    labels = np.random.default_rng(1).choice(7, 90, p=np.arange(1, 8) / 28)
    table = open_table(write(tmp_path, pictures, "cls", [str(label).encode() for label in labels]))
    question, features = ask(table), embed_table(sides[0], table)
    found = question.answer(sides[0], features)
    words = {"classnames": list(COLOURS), "templates": TEMPLATES}
    expected = theirs("zeroshot_classification", sides, pictures, list(labels), **words)
    assert found.top(1) == expected["acc1"]
    assert found.top(5) == expected["acc5"]
    assert found.mean_per_class == pytest.approx(expected["mean_per_class_recall"], abs=1e-12)
    assert 0 < found.top(1) < found.top(5) < 1


def test_several_labels(sides, pictures, tmp_path):
    marks = np.random.default_rng(2).random((90, 7)) < 0.3

    def saved(row: np.ndarray) -> bytes:
        content = io.BytesIO()
        np.save(content, row.astype(np.int64))
        return content.getvalue()

    table = open_table(write(tmp_path, pictures, "npy", list(map(saved, marks)), "multilabel"))
    found = ask(table).answer(sides[0], embed_table(sides[0], table))
    words = {"classnames": list(COLOURS), "templates": TEMPLATES}
    expected = theirs("zeroshot_classification", sides, pictures, list(marks.astype(np.int64)), **words)
    assert found.metrics()["mean_average_precision"] == pytest.approx(expected["mean_average_precision"], abs=1e-6)


def test_several_captions(sides, pictures, tmp_path):
    rng = np.random.default_rng(3)
    captions = [
        [" ".join(rng.choice(COLOURS, 4)) + f" {i} {j}" for j in range(rng.integers(1, 6))]
        for i in range(len(pictures))
    ]
    said = ["\n".join(several).encode() for several in captions]
    table = open_table(write(tmp_path, pictures, "txt", said, "retrieval"))
    found = retrieve_features(sides[0], embed_table(sides[0], table)).metrics()
    expected = theirs("zeroshot_retrieval", sides, pictures, captions, recall_k_list=[1, 5, 10])
    for k in (1, 5, 10):
        assert found[f"text_to_image_recall_at_{k}"] == pytest.approx(expected[f"image_retrieval_recall@{k}"], abs=1e-7)
        assert found[f"image_to_text_recall_at_{k}"] == pytest.approx(expected[f"text_retrieval_recall@{k}"], abs=1e-7)
    assert 0 < found["image_to_text_recall_at_10"] < 1
