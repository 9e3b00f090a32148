"""Writes clip_jax/assets/clip_bpe_merges.txt.gz: the merges that CLIP uses, out of OpenAI's vocabulary file.

    python experiments/make_bpe_merges.py [bpe_simple_vocab_16e6.txt.gz] [--check]

Without a path, the vocabulary of the installed open_clip_torch is read. `--check` writes nothing and fails unless
the vendored merges equal the ones it would write; it compares the text, as zlib versions compress differently.
"""

import argparse
import gzip
import hashlib
import importlib.util
import sys
from pathlib import Path

ASSET = Path(__file__).parents[1] / "clip_jax" / "assets" / "clip_bpe_merges.txt.gz"
MERGES = 49408 - 2 * 256 - 2  # the vocabulary less bytes (inside and at the end of a word) and special tokens


def installed_vocabulary() -> Path:
    """The vocabulary in the open_clip_torch wheel, found without importing it (and torch)."""
    spec = importlib.util.find_spec("open_clip")
    if spec is None or spec.origin is None:
        sys.exit("open_clip_torch is not installed; give the path of bpe_simple_vocab_16e6.txt.gz")
    return Path(spec.origin).with_name("bpe_simple_vocab_16e6.txt.gz")


def used_merges(vocabulary: bytes) -> bytes:
    """The lines in use, one merge each: the first is a version, and those past the vocabulary size are ignored."""
    lines = gzip.decompress(vocabulary).decode().split("\n")
    return "".join(f"{line}\n" for line in lines[1 : MERGES + 1]).encode()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("vocabulary", nargs="?", type=Path, help="bpe_simple_vocab_16e6.txt.gz")
    parser.add_argument("--check", action="store_true", help="compare with the vendored file, write nothing")
    arguments = parser.parse_args()

    source = (arguments.vocabulary or installed_vocabulary()).read_bytes()
    merges = used_merges(source)
    print(f"source           sha256 {hashlib.sha256(source).hexdigest()}")
    if arguments.check:
        if gzip.decompress(ASSET.read_bytes()) != merges:
            sys.exit(f"{ASSET.name} differs from its source; run this script without --check")
    else:
        ASSET.write_bytes(gzip.compress(merges, mtime=0))
    print(f"merges, unpacked sha256 {hashlib.sha256(merges).hexdigest()}")
    print(f"{ASSET.name} sha256 {hashlib.sha256(ASSET.read_bytes()).hexdigest()}, {ASSET.stat().st_size} bytes")


if __name__ == "__main__":
    main()
