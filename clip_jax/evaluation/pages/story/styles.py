"""Styles never trained on: the same scenes drawn otherwise, named by words and by the linear probe."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from clip_jax.data.drawing import Style
from clip_jax.data.table import Sample
from clip_jax.evaluation.pages.figures import image_tag
from clip_jax.evaluation.pages.story.measured import Measured, chart, percent, story_section
from clip_jax.evaluation.pages.words import points

PAPER = (
    "On seven shifts of ImageNet, among them sketches and renditions, zero-shot CLIP closes up to 75% of the gap "
    "between accuracy on ImageNet and under the shift, and a classifier fitted to ImageNet gains 9.2 points there "
    "but loses under several shifts (section 3.3, figures 13 and 14). CLIP was trained on 400 million images in "
    "all manner of styles, this model on one style. Of handwritten digits, which those 400 million hardly showed, "
    "it names 88%, and the paper grants that varied data goes around the brittleness of deep learning rather than "
    "curing it (section 6)."
)
ALIKE = 0.03  # mean gaps that differ by less may do so by chance
NAMES: dict[Style, str] = {
    "plain": "as trained",
    "outline": "in outline",
    "turned": "turned by 45°",
    "dark": "on dark ground",
    "noisy": "in noise",
}


@dataclass(frozen=True)
class Shown:
    """A scene in some style, what it shows and what the model answers."""

    sample: Sample
    truth: str
    answer: str


@dataclass(frozen=True)
class Styles:
    """By style, the plain one first: zero-shot on held-out and on seen combinations, each among its own names, and the
    linear probe that was fitted to plain images; and `shown`, the same scenes in each."""

    zero_shot: Mapping[Style, Measured]
    linear_probe: Mapping[Style, Measured]
    seen: Mapping[Style, Measured]
    shown: Mapping[Style, Sequence[Shown]]

    def figures(self) -> dict[str, float]:
        """Accuracies by name, as demo.json has them."""
        series = {"": self.zero_shot, "linear_probe_": self.linear_probe, "seen_": self.seen}
        return {f"{style}_{name}top1": one.figure for name, several in series.items() for style, one in several.items()}


def styles_section(found: Styles) -> str:
    """The section as HTML."""
    rows = {
        NAMES[style]: {
            "held out, by words": found.zero_shot[style],
            "held out, linear probe": found.linear_probe[style],
            "seen combinations, by words": found.seen[style],
        }
        for style in found.zero_shot
    }
    return story_section(
        "styles",
        "A style never trained on",
        "The same scenes, drawn as no training image was. A person would name them all.",
        _finding(found),
        [chart("Accuracy by style", rows), _pictures(found)],
        PAPER,
    )


def _finding(found: Styles) -> str:
    plain = found.zero_shot["plain"]
    others: list[Style] = [style for style in found.zero_shot if style != "plain"]
    gaps = {style: found.zero_shot[style].figure - plain.figure for style in others}
    worst, best = min(others, key=gaps.__getitem__), max(others, key=gaps.__getitem__)
    text = (
        f"{percent(plain.figure)} as trained becomes {found.zero_shot[worst].told} {NAMES[worst]}, "
        f"{points(gaps[worst])} points; it loses least {NAMES[best]}, {points(gaps[best])}."
    )
    gap = float(np.mean(list(gaps.values())))
    probe = float(np.mean([found.linear_probe[s].figure - found.linear_probe["plain"].figure for s in others]))
    seen = float(np.mean([found.seen[style].figure - found.seen["plain"].figure for style in others]))
    text += (
        f" Over the {len(others)} styles that is {points(gap)} points on average by words, {points(probe)} by the "
        f"linear probe, and {points(seen)} by words on combinations that training had"
    )
    if abs(gap - probe) < ALIKE:
        return f"{text}: words are no more robust than labels here."
    return f"{text}: {'words' if gap > probe else 'labels'} lose less here."


def _pictures(found: Styles) -> str:
    columns = []
    for style, several in found.shown.items():
        items = []
        for one in several:
            right = one.answer == one.truth
            mark = "✓" if right else "✗"
            picture = image_tag(one.sample.image, f"{one.truth}, {NAMES[style]}")
            items.append(
                f"<div>{picture}<small{'' if right else ' class=wrong'}>{mark} {escape(one.answer)}</small></div>"
            )
        columns.append(f"<li><b>{NAMES[style]}</b>{''.join(items)}</li>")
    return f'<ul class="styles">{"".join(columns)}</ul>'
