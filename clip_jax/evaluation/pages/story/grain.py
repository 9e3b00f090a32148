"""Fine-grained against coarse: the same images asked for their colour, their shape, both, and one of two shapes."""

from dataclasses import dataclass
from html import escape
from itertools import combinations

import numpy as np

from clip_jax.evaluation.bootstrap import interval_of_ratio
from clip_jax.evaluation.pages.figures import cell, table
from clip_jax.evaluation.pages.story.measured import Measured, chart, percent, story_section
from clip_jax.evaluation.zero_shot import ZeroShotResult

PAPER = (
    "CLIP is weak on several kinds of fine-grained classification, as of models of cars, species of flowers and "
    "variants of aircraft (section 6): ViT-L/14 at 336 pixels reaches 37.2% on the 100 variants of FGVC Aircraft, "
    "but 95.7% on CIFAR10, whose ten classes are as different as ship and frog (table 11)."
)


@dataclass(frozen=True)
class Grain:
    """Answers to three questions about the same images."""

    colour: ZeroShotResult
    shape: ZeroShotResult
    both: ZeroShotResult

    def figures(self) -> dict[str, float]:
        """Accuracies by name, as demo.json has them."""
        return {"colour_top1": self.colour.top(1), "shape_top1": self.shape.top(1)}


def grain_section(found: Grain) -> str:
    """The section as HTML."""
    measured = {
        f"{name}, of {len(result.class_names)}": Measured.of(result)
        for name, result in (("colour", found.colour), ("shape", found.shape), ("both", found.both))
    }
    pairs = of_two(found.shape)
    hardest, easiest = (pick(pairs, key=lambda pair: pairs[pair].figure) for pick in (min, max))
    rows = {**measured, _question(hardest): pairs[hardest], _question(easiest): pairs[easiest]}
    return story_section(
        "grain",
        "Fine and coarse",
        "The held-out images again, asked for one thing at a time: their colour among all colours, their shape "
        "among all shapes, both; and of two shapes, the pair that it tells apart worst and the one that it tells "
        "apart best. In the table, each row is a shape as drawn, each column an answer, in percent of the row.",
        _finding(found, hardest, easiest, pairs),
        [chart("Questions about the same images", {row: {"top-1": m} for row, m in rows.items()}), _table(found.shape)],
        PAPER,
    )


def of_two(result: ZeroShotResult) -> dict[tuple[str, str], Measured]:
    """Of each two classes how often the right one of both scores higher on their images."""
    pairs = {}
    for i, j in combinations(np.unique(result.truth).tolist(), 2):
        used = np.isin(result.truth, (i, j))
        right = (result.scores[used, j] > result.scores[used, i]) == (result.truth[used] == j)
        interval = interval_of_ratio(right, np.ones(len(right)))
        pairs[result.class_names[i], result.class_names[j]] = Measured(float(right.mean()), interval, 0.5)
    return pairs


def _question(pair: tuple[str, str]) -> str:
    return f"{pair[0]} or {pair[1]}"


def _finding(
    found: Grain, hardest: tuple[str, str], easiest: tuple[str, str], pairs: dict[tuple[str, str], Measured]
) -> str:
    colour, shape = Measured.of(found.colour), Measured.of(found.shape)
    text = f"The colour it names right for {colour.told} of the images, the shape for {shape.told}"
    if colour.interval[0] > shape.interval[1]:
        text += ": colour is the coarse question, shape the fine one."
    elif shape.interval[0] > colour.interval[1]:
        text += ": here colours are the finer question."
    else:
        text += ": neither is harder."
    return (
        f"{text} Of two shapes it tells {escape(' and '.join(hardest))} apart in {pairs[hardest].told}, "
        f"{escape(' and '.join(easiest))} in {pairs[easiest].told}."
    )


def _table(result: ZeroShotResult) -> str:
    names, present = result.class_names, np.unique(result.truth).tolist()
    counts = np.zeros((len(names), len(names)), int)
    np.add.at(counts, (result.truth, result.ranking[:, 0]), 1)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    heads = [f"<span>{escape(name)}</span>" for name in names]
    rows = [
        (
            escape(names[c]),
            [
                cell(
                    share,
                    f"{100 * share:.0f}" if share >= 0.005 else "",
                    a == c,
                    f"{names[c]}: {percent(share)} answered {names[a]}",
                )
                for a, share in enumerate(shares[c].tolist())
            ],
        )
        for c in present
    ]
    return f"<div>{table('shapes', 'Shapes as drawn and as answered', heads, rows)}</div>"
