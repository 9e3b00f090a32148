"""Zero-shot classifiers a second, by clip_jax and open_clip from the same weights, and the time to evaluate with one.

    python experiments/benchmarks/zero_shot.py [--model ViT-B-32] [--classes 40] [--rounds 3] [--json FILE]

Needs open_clip_torch. Both sides make classifiers of ImageNet's classes and 80 templates in float32, a share of the
1,000 classes each, in turns; compilation and a first round are left out. Their class embeddings are compared. The
second part is what a zero-shot evaluation has left to do where features are kept: 50,000 of them against 1,000 classes,
every figure and the bootstrap interval included.
"""

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["TQDM_DISABLE"] = "1"

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
from support.open_clip_shim import import_open_clip  # pyright: ignore[reportMissingImports]
from support.torch_clip import params_from_open_clip  # pyright: ignore[reportMissingImports]

from clip_jax.clip import Clip
from clip_jax.evaluation.benchmarks import get_benchmark
from clip_jax.evaluation.features import Features
from clip_jax.evaluation.zero_shot import score
from clip_jax.presets import get_config


def text_side(name: str, classes: int, rounds: int) -> dict[str, Any]:
    """Prompts a second of both sides, and how far their classifiers are apart."""
    open_clip = import_open_clip()
    imagenet = get_benchmark("imagenet")
    step = len(imagenet.classes) // classes
    names = [several[0] for several in imagenet.classes[::step]][:classes]  # short and long ones
    templates = imagenet.template_sets["80"]
    torch.manual_seed(0)
    model = open_clip.create_model(name).eval()
    tokenizer = open_clip.get_tokenizer(name)
    functions = [lambda label, template=template: template.replace("{}", label) for template in templates]
    config = get_config(name)
    clip = Clip(config, params_from_open_clip(model.state_dict()))

    def theirs() -> np.ndarray:
        with torch.inference_mode():
            return open_clip.build_zero_shot_classifier(model, tokenizer, names, functions, device="cpu").numpy().T

    sides = {"open_clip": theirs, "clip_jax": lambda: clip.class_embeddings(names, templates)}
    made = {side: make() for side, make in sides.items()}  # compiles
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(rounds):
        for side, make in sides.items():
            start = time.perf_counter()
            make()
            seconds[side].append(time.perf_counter() - start)
    medians = {side: statistics.median(found) for side, found in seconds.items()}
    difference = float(np.abs(made["clip_jax"] - made["open_clip"]).max())
    prompts = len(names) * len(templates)
    print(f"{name}: {len(names)} classes in {len(templates)} templates, {prompts:,} prompts, float32\n")
    print(f"{'side':<10} {'s':>8} {'prompts/s':>10} {'ratio':>6}   rounds")
    for side, median in medians.items():
        shown = ", ".join(f"{one:.1f}" for one in seconds[side])
        print(f"{side:<10} {median:>8.1f} {prompts / median:>10.0f} {medians['open_clip'] / median:>6.2f}   {shown}")
    print(f"largest difference of class embeddings: {difference:.1e}\n")
    return {"seconds": seconds, "prompts": prompts, "difference": difference}


def evaluation(images: int, classes: int = 1000, width: int = 512) -> float:
    """Seconds from kept features to every figure."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, images)
    classifier = rng.standard_normal((classes, width), np.float32)
    classifier /= np.linalg.norm(classifier, axis=1, keepdims=True)
    embeddings = classifier[labels] + 0.2 * rng.standard_normal((images, width), np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    names = [f"class {number}" for number in range(classes)]
    keys = ("",) * images
    rows, nothing = np.arange(images), embeddings[:, :1]
    features = Features(tuple(names), rows, keys, embeddings, nothing, labels, None, captions=((),) * images)
    clip = Clip(get_config("tiny"), {"logit_scale": np.float32(np.log(100))})
    start = time.perf_counter()
    result = score(clip, features, classifier, names, np.arange(classes))
    figures, interval = result.metrics(), result.interval("accuracy")
    seconds = time.perf_counter() - start
    print(f"{images:,} features of {width} against {classes:,} classes: {seconds:.2f} s")
    print(f"top-1 {figures['top1']:.2%} (95 %: {interval[0]:.2%} to {interval[1]:.2%}), top-5 {figures['top5']:.2%}")
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="ViT-B-32")
    parser.add_argument("--classes", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    result = {"evaluation": evaluation(options.images)} | text_side(options.model, options.classes, options.rounds)
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
