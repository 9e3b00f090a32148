"""Figures that tell how contrastive training goes, from the global batch, so that they are the same on any mesh."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

SAMPLE = 128  # the first pairs of the batch: enough for quantiles, and nothing beside a step


def health(
    image: Float[Array, "b k"],
    text: Float[Array, "b k"],
    tokens: Int[Array, "b n"],
    scale: Float[Array, ""],
    bias: Float[Array, ""] | None,
) -> dict[str, Float[Array, ""]]:
    """Logits of pairs that match and of pairs that do not, accuracy and repeated captions among the first 128 pairs.

    `health/positive_*` and `health/negative_*` are the 5th, 50th and 95th percentile of the logits; `image_top1` is how
    often an image's own text scores best among those of the sample, `text_top1` the same the other way.
    `repeated_captions` is the share of the whole batch's captions that another pair has too, which are false negatives.
    """
    image, text = (x[:SAMPLE].astype(jnp.float32) for x in (image, text))
    logits = scale * image @ text.T + (0.0 if bias is None else bias)
    count = len(logits)
    own = jnp.eye(count, dtype=bool)
    figures = {}
    percentiles = jnp.array([5.0, 50.0, 95.0])
    positive = jnp.percentile(jnp.diagonal(logits), percentiles)
    negative = jnp.nanpercentile(jnp.where(own, jnp.nan, logits), percentiles)
    for name, values in (("positive", positive), ("negative", negative)):
        figures |= {f"health/{name}_p{p}": values[i] for i, p in enumerate((5, 50, 95))}
    places = jnp.arange(count)
    return figures | {
        "health/image_top1": (logits.argmax(axis=1) == places).mean(),
        "health/text_top1": (logits.argmax(axis=0) == places).mean(),
        "health/repeated_captions": repeated(tokens),
    }


def repeated(tokens: Int[Array, "b n"]) -> Float[Array, ""]:
    """The share of rows that occur more than once.

    By two hashes of 32 bits a row, sums of tokens times odd numbers drawn for each place, so that nothing but these is
    gathered and sorted. Two rows that differ have both in common once in 10^19.
    """
    places = jax.random.bits(jax.random.key(0), (2, 1, tokens.shape[1]), jnp.uint32) | 1
    first, second = jax.lax.sort(list((tokens.astype(jnp.uint32)[None] * places).sum(axis=-1)), num_keys=2)
    same = (first[1:] == first[:-1]) & (second[1:] == second[:-1])
    none = jnp.zeros(1, bool)
    return (jnp.concatenate([same, none]) | jnp.concatenate([none, same])).mean()
