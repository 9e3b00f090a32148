"""SigLIP ViT-B/16 at 224 pixels from scratch: sigmoid loss, 40 billion pairs in batches of 32,768.

    clip-jax train --config=configs/siglip_b16.py --workdir=runs/siglip --config.data.source='tar:shards/*.tar'

Hardware: a v5e:16x16 slice. About 77 hours there: 5.6e21 FLOPs at an assumed 40 % of the peak. The tokenizer comes from
the Hugging Face hub. Aims at the 76.0 % ImageNet zero-shot top-1 that open_clip measures of the released weights, which
saw Google's WebLI. The ring keeps the loss's memory small; the sigmoid needs no bound on the temperature.
"""

from ml_collections import ConfigDict

from clip_jax.training.recipes import from_pairs


def get_config() -> ConfigDict:
    """The recipe; `data.source` must be given."""
    # big_vision's wd is 1e-4, which it does not multiply by the learning rate, as AdamW does.
    optimizer = {"learning_rate": 1e-3, "warmup": 20_000, "weight_decay": 0.1, "b2": 0.95, "clip_norm": 1.0}
    optimizer |= {"max_logit_scale": None, "moment_dtype": "bfloat16"}
    config = from_pairs("ViT-B-16-SigLIP", 40_000_000_000, 32_768, optimizer)
    config.loss = {"kind": "sigmoid", "method": "ring"}
    return config
