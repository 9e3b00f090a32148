"""Looking through data before a pod waits on it: what it holds, what of it is bad, and what captions lose."""

import hashlib
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from tqdm import tqdm

from clip_jax.data.encoded import encoded
from clip_jax.data.table import BadSample, Cause, Sample, Table
from clip_jax.inputs.base_tokenizer import Tokenizer

BLOCK = 64  # adjacent samples that are read at once
THREADS = 8
PERCENTILES = (0, 5, 50, 95, 100)

Spread = dict[str, float]
"""Percentiles by name: least, 5 %, median, 95 %, most."""


@dataclass(frozen=True)
class Inspection:
    """What was found among `looked_at` of the `samples`; of figures that spread, their percentiles.

    `cut` is the share of captions that are longer than the tokenizer's context, `repeated_images` and
    `repeated_captions` the shares that equal one seen before, to the byte. `seconds` are those it took.
    """

    samples: int
    parts: int
    looked_at: int
    labelled: int
    bad: tuple[BadSample, ...]
    spreads: dict[str, Spread]
    captions: int
    cut: float
    repeated_images: float
    repeated_captions: float
    seconds: float

    @property
    def causes(self) -> dict[Cause, int]:
        """How many samples are bad for each cause, the most frequent first."""
        counts: Counter[Cause] = Counter(sample.cause for sample in self.bad)
        return dict(counts.most_common())

    def to_dict(self) -> dict[str, Any]:
        """Everything that was found, for JSON."""
        bad = [{"key": sample.key, "cause": sample.cause, "reason": sample.reason} for sample in self.bad]
        return self.__dict__ | {"bad": bad, "causes": self.causes}


@dataclass(frozen=True)
class _Seen:
    """One good sample: height and width, bytes and a digest of them; of each caption a digest and its tokens."""

    size: tuple[int, int]
    bytes: int
    digest: int
    captions: tuple[int, ...]
    tokens: tuple[int, ...]
    is_labelled: bool


def inspect(table: Table, tokenizer: Tokenizer, limit: int | None = None, seed: int = 0) -> Inspection:
    """Reads all samples, or some `limit` of them in blocks at random, and decodes every image whole.

    Shows progress where it takes long. Raises UserError where the table cannot be read.
    """
    started = time.monotonic()
    blocks = np.arange(-(-len(table) // BLOCK))
    if limit is not None and limit < len(table):
        blocks = np.sort(np.random.default_rng(seed).choice(blocks, -(-limit // BLOCK), replace=False))

    special = int((tokenizer(["a"]) != tokenizer.pad_id).sum()) - len(tokenizer.encode("a"))

    def look(block: int) -> list[_Seen | BadSample]:
        samples = table.read(range(block * BLOCK, min((block + 1) * BLOCK, len(table))))
        return [_look(sample, tokenizer, special) for sample in samples]

    found: list[_Seen | BadSample] = []
    with (
        ThreadPoolExecutor(THREADS) as pool,
        tqdm(desc="inspecting", total=len(blocks) * BLOCK, unit="sample", delay=2) as progress,
    ):
        for several in pool.map(look, blocks.tolist()):
            found += several
            progress.update(len(several))
    good = [one for one in found if isinstance(one, _Seen)]
    captions = [caption for one in good for caption in one.captions]
    tokens = np.array([number for one in good for number in one.tokens], float)
    sizes = np.array([one.size for one in good], float).reshape(-1, 2)
    return Inspection(
        samples=len(table),
        parts=len(table.parts),
        looked_at=len(found),
        labelled=sum(one.is_labelled for one in good),
        bad=tuple(one for one in found if isinstance(one, BadSample)),
        spreads={
            "width": _spread(sizes[:, 1]),
            "height": _spread(sizes[:, 0]),
            "aspect ratio": _spread(sizes[:, 1] / sizes[:, 0]),
            "image kB": _spread(np.array([one.bytes / 1e3 for one in good], float)),
            "captions a sample": _spread(np.array([len(one.captions) for one in good], float)),
            "tokens a caption": _spread(tokens),
        },
        captions=len(captions),
        cut=float(np.mean(tokens > tokenizer.context_length)) if captions else 0.0,
        repeated_images=_repeated([one.digest for one in good]),
        repeated_captions=_repeated(captions),
        seconds=time.monotonic() - started,
    )


def _look(sample: Sample | BadSample, tokenizer: Tokenizer, special: int) -> _Seen | BadSample:
    """What there is to tell of a sample, whose captions take so many `special` tokens each beside their own."""
    if isinstance(sample, BadSample):
        return sample
    image = encoded(sample, False)
    if isinstance(image, BadSample):
        return image
    is_labelled = sample.label is not None or sample.labels is not None
    if not sample.captions and not is_labelled:
        return BadSample(sample.key, "no caption", "it has neither a caption nor a label")
    return _Seen(
        size=image.size,
        bytes=len(sample.image),
        digest=_digest(sample.image),
        captions=tuple(_digest(caption.encode(errors="surrogatepass")) for caption in sample.captions),
        tokens=tuple(len(tokenizer.encode(caption)) + special for caption in sample.captions),
        is_labelled=is_labelled,
    )


def _digest(data: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest())


def _spread(values: Float[np.ndarray, " b"]) -> Spread:
    if not len(values):
        return {}
    return {f"{p} %": float(value) for p, value in zip(PERCENTILES, np.percentile(values, PERCENTILES), strict=True)}


def _repeated(values: Sequence[int]) -> float:
    return 1 - len(set(values)) / len(values) if values else 0.0
