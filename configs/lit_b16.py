"""LiT: a text tower from scratch beside a locked ViT-B/16, whose gradients are never computed.

    clip-jax train --config=configs/lit_b16.py --workdir=runs/lit --config.data.source='tar:shards/*.tar'\
        --config.model.init=openai/ViT-B-16

Hardware: a v5e:4x4 slice. About 12 hours there: 0.9 billion pairs, 35 GFLOPs forward for the image and 18 both ways for
the text, at an assumed 35 % of the peak. `model.init` names where the image tower comes from, in any layout. As a
measure: LiT-B16B, whose image tower saw ImageNet-21k, reaches 72.1 % ImageNet zero-shot top-1 (big_vision, README_lit).
"""

from ml_collections import ConfigDict

from clip_jax.training.recipes import from_pairs


def get_config() -> ConfigDict:
    """The recipe; `data.source` must be given."""
    # big_vision's wd is 1e-4, which it does not multiply by the learning rate, as AdamW does.
    optimizer = {"learning_rate": 1e-3, "warmup": 5_000, "weight_decay": 0.1, "b2": 0.95, "clip_norm": 1.0}
    optimizer |= {"frozen": "^visual/"}
    config = from_pairs("ViT-B-16-quickgelu", 900_000_000, 16_384, optimizer)
    config.update({"model": {"init": "openai/ViT-B-16", "init_only": "^visual/"}})
    return config
