"""OpenAI's RN50 from scratch, by the paper's recipe: 32 epochs of 400 million pairs in batches of 32,768.

    clip-jax train --config=configs/openai_rn50.py --workdir=runs/rn50 --config.data.source='tar:shards/*.tar'

Hardware: a v5e:16x16 slice. About 15 hours there: 6.8e20 FLOPs at an assumed 25 % of the peak, as convolutions fill the
matrix units less. Aims at the 59.6 % ImageNet zero-shot top-1 that the paper reports for its own data (table 11).
"""

from ml_collections import ConfigDict

from clip_jax.training.recipes import openai


def get_config() -> ConfigDict:
    """The recipe; `data.source` must be given."""
    return openai("RN50-quickgelu", learning_rate=5e-4, b2=0.999, epsilon=1e-8)
