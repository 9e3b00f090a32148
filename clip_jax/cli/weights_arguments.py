"""The options of commands that read weights which come without a config."""

import argparse
from pathlib import Path
from typing import get_args

from clip_jax.config import Activation


def add_weights_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what shapes do not tell about bare weights, and where downloads come from and go to."""
    parser.add_argument("--model", metavar="NAME", help="the architecture of weights without a config, as ViT-B-32")
    parser.add_argument("--activation", choices=get_args(Activation), help="their activation, where no name fits")
    parser.add_argument("--vision-heads", type=int, metavar="N", help="their vision tower's attention heads")
    parser.add_argument("--text-heads", type=int, metavar="N", help="their text tower's attention heads")
    parser.add_argument("--revision", help="branch, tag or commit on the Hugging Face hub")
    parser.add_argument("--cache-dir", type=Path, metavar="DIR", help="where downloads are kept (default: HF_HOME's)")
