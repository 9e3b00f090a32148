"""OpenAI's ViT-B/16 from scratch, by the paper's recipe: 32 epochs of 400 million pairs in batches of 32,768.

    clip-jax train --config=configs/openai_vit_b16.py --workdir=runs/b16 --config.data.source='tar:shards/*.tar'

Hardware: a v5e:16x16 slice. About 22 hours there: 1.6e21 FLOPs at an assumed 40 % of
the peak. For comparison, open_clip spent about 10,700 GPU hours on 32 epochs of LAION-400M. Aims at the 68.6 % ImageNet
zero-shot top-1 that the paper reports for its own data (table 11).
"""

from ml_collections import ConfigDict

from clip_jax.training.recipes import openai_vit


def get_config() -> ConfigDict:
    """The recipe; `data.source` must be given."""
    return openai_vit("ViT-B-16-quickgelu", learning_rate=5e-4)
