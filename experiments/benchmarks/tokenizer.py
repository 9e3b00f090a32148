"""Captions per second of ClipTokenizer and of open_clip's tokenizer, side by side on one machine.

    python experiments/benchmarks/tokenizer.py [--captions 5000] [--json FILE]

Needs open_clip_torch. Captions are drawn from the vocabulary's own words with the frequencies of language (Zipf),
so that both sides' word caches see what they would see in a data set. Cold is a first pass on a new tokenizer, warm
the best of five later ones; the sides take turns. Every caption's ids are compared as well.
"""

import argparse
import json
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
from support.open_clip_shim import import_open_clip  # pyright: ignore[reportMissingImports]

from clip_jax.inputs.clip_tokenizer import ClipTokenizer

WARM_PASSES = 5
Tokenizer = Callable[[list[str]], np.ndarray]


def draw_captions(count: int, seed: int) -> dict[str, list[str]]:
    """Plain captions, and what becomes of them in kinds of text that take the slower road."""
    rng = random.Random(seed)
    tokenizer = ClipTokenizer(77)
    words = [word for id in range(512, 49406) if (word := tokenizer.decode([id])).isalpha()]
    ascii_words = [word for word in words if word.isascii()]
    other_words = [word for word in words if not word.isascii()] + ["größe", "café", "мир", "世界", "こんにちは", "😀"]

    def caption(vocabulary: list[str]) -> str:
        ranks = np.minimum(np.random.default_rng(rng.randrange(2**32)).zipf(1.3, rng.randrange(6, 14)), len(vocabulary))
        return " ".join(vocabulary[rank - 1] for rank in ranks).capitalize() + rng.choice(
            [".", "!", ", 2019", "'s", ""]
        )

    plain = [caption(ascii_words) for _ in range(count)]
    return {
        "plain ASCII": plain,
        "with entities": [text.replace(" ", " &amp; ", 1) for text in plain],
        "with curly quotes": [f"\u201c{text}\u201d" for text in plain],
        "with emoji": [text.replace(" ", " 😀 👩‍🚀 ", 1) for text in plain],
        "not English": [caption(other_words) for _ in range(count)],
        "wrongly decoded": [(text + " café größe").encode().decode("cp1252", "replace") for text in plain],
        "over-long": [" ".join(plain[i : i + 12]) for i in range(0, count, 6)],
    }


def seconds(tokenize: Tokenizer, texts: list[str]) -> float:
    start = time.perf_counter()
    tokenize(texts)
    return time.perf_counter() - start


def compare(texts: list[str], make_sides: dict[str, Callable[[], Tokenizer]]) -> dict[str, float]:
    """Captions per second, cold and warm, by side."""
    sides = {name: make() for name, make in make_sides.items()}
    rates = {f"{name} cold": len(texts) / seconds(side, texts) for name, side in sides.items()}
    passes = [{name: seconds(side, texts) for name, side in sides.items()} for _ in range(WARM_PASSES)]
    rates |= {f"{name} warm": len(texts) / min(times[name] for times in passes) for name in sides}
    ours, theirs = (side(texts) for side in sides.values())
    return rates | {"mismatches": int((ours != theirs).any(axis=1).sum())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--captions", type=int, default=5000, help="of each kind")
    parser.add_argument("--json", type=Path, help="where to write the results")
    arguments = parser.parse_args()

    open_clip = import_open_clip()

    def make_open_clip() -> Tokenizer:
        tokenizer = open_clip.SimpleTokenizer(context_length=77)
        return lambda texts: tokenizer(texts).numpy()

    sides = {"clip_jax": lambda: ClipTokenizer(77), "open_clip": make_open_clip}
    results = {kind: compare(texts, sides) for kind, texts in draw_captions(arguments.captions, seed=0).items()}
    heads = f"{'clip_jax':>10}{'open_clip':>11}{'ratio':>7}"
    print(f"{'captions/s, warm':18}{heads}  cold{heads}{'differ':>8}")
    for kind, row in results.items():
        columns = ""
        for state, width in (("warm", 10), ("cold", 16)):
            ours, theirs = row[f"clip_jax {state}"], row[f"open_clip {state}"]
            columns += f"{ours:{width},.0f}{theirs:11,.0f}{ours / theirs:7.2f}"
        print(f"{kind:18}{columns}{row['mismatches']:8}")
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
