"""The values of the recipes in configs/, kept in the package so that an installed `clip-jax demo` needs no checkout."""

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


def openai_vit(name: str, learning_rate: float) -> ConfigDict:
    """An OpenAI ViT by the paper's recipe: 32 epochs of 400 million pairs in batches of 32,768 (appendix F).

    `data.source` has no default: give it on the command line.
    """
    batch_size = 32_768
    return ConfigDict(
        {
            "steps": 32 * 400_000_000 // batch_size,
            "batch_size": batch_size,
            "model": {"name": name, "dtype": "bfloat16", "layers": "scan", "remat": "block"},
            "data": {"source": ""},
            "optimizer": {"learning_rate": learning_rate, "warmup": 2_000, "weight_decay": 0.2, "b2": 0.98},
            "checkpoint": {"every": 1_000},
            "log": {"every": 50},
        }
    )
