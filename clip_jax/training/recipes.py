"""The values of the recipes in configs/, kept in the package so that an installed `clip-jax demo` needs no checkout."""

from typing import Any

from ml_collections import ConfigDict

from clip_jax.data.scenes import COMBINATIONS, TEMPLATES, class_name


def scenes() -> ConfigDict:
    """A tiny CLIP on drawn scenes, in minutes on two CPU cores."""
    held_out = {"data": "tar:{workdir}/scenes/held_out", "templates": TEMPLATES}
    everything = held_out | {"labels": tuple(class_name(combination) for combination in COMBINATIONS)}
    return ConfigDict(
        {
            "seed": 0,
            "steps": 1_000,
            "batch_size": 128,
            "model": {"name": "tiny", "dtype": "float32", "layers": "unroll"},
            "data": {
                "source": "tar:{workdir}/scenes/train?captions=captions",
                "draw": {"folder": "{workdir}/scenes"},
            },
            "optimizer": {"learning_rate": 1e-3, "warmup": 0.05, "weight_decay": 0.05, "clip_norm": 1.0},
            "checkpoint": {"every": 0.1},
            "log": {"every": 10},
            "evaluate": {"every": 0.1, "zero_shot": {"held_out": held_out, "all_combinations": everything}},
        }
    )


def from_pairs(name: str, pairs: int, batch_size: int, optimizer: dict[str, Any]) -> ConfigDict:
    """A run over so many pairs in bfloat16, with layers scanned and their activations computed again.

    `data.source` has no default: give it on the command line.
    """
    return ConfigDict(
        {
            "steps": pairs // batch_size,
            "batch_size": batch_size,
            "model": {"name": name, "dtype": "bfloat16", "layers": "scan", "remat": "block"},
            "data": {"source": ""},
            "optimizer": optimizer,
            "checkpoint": {"every": 1_000},
            "log": {"every": 50},
        }
    )


def openai(name: str, learning_rate: float, b2: float, epsilon: float) -> ConfigDict:
    """An OpenAI model by the paper's recipe: 32 epochs of 400 million pairs in batches of 32,768 (appendix F)."""
    optimizer = {"learning_rate": learning_rate, "warmup": 2_000, "weight_decay": 0.2, "b2": b2, "epsilon": epsilon}
    return from_pairs(name, 32 * 400_000_000, 32_768, optimizer)


def openai_vit(name: str, learning_rate: float) -> ConfigDict:
    """An OpenAI ViT by the paper's recipe."""
    return openai(name, learning_rate, b2=0.98, epsilon=1e-6)
