"""A CC12M-sized run: RN50 for 32 epochs of 10.5 million pairs in batches of 1,024.

    clip-jax train --config=configs/cc12m_rn50.py --workdir=runs/cc12m --config.data.source='tar:shards/*.tar'

Hardware: a v5e:2x2 host, or one large GPU. About 35 hours on the former: 1.8e19 FLOPs at an assumed 18 % of the peak;
reading JPEGs may be what limits it. As a measure: open_clip's RN50 reaches 36.5 % ImageNet zero-shot top-1 on CC12M.
"""

from ml_collections import ConfigDict

from clip_jax.training.recipes import from_pairs


def get_config() -> ConfigDict:
    """The recipe; `data.source` must be given."""
    optimizer = {"learning_rate": 1e-3, "warmup": 2_000, "weight_decay": 0.1, "b2": 0.999, "epsilon": 1e-8}
    return from_pairs("RN50", 32 * 10_500_000, 1_024, optimizer)
