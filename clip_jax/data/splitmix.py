"""Random numbers of which any one is found without those before it."""

import numpy as np
from jaxtyping import Int64, UInt64


def splitmix64(seed: int, stream: int, places: Int64[np.ndarray, "*b"]) -> UInt64[np.ndarray, "*b"]:
    """The numbers at `places` of one of the streams of `seed`, uniform in [0, 2^64).

    Source: SplitMix64 of Steele, Lea and Flood 2014.
    """
    base = np.random.SeedSequence(seed, spawn_key=(stream,)).generate_state(1, np.uint64)
    x = base + (places.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
