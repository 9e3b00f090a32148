"""What of a caption it has learnt: number, size, texture, place, relation, and what belongs to what."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from clip_jax.data.table import Sample
from clip_jax.evaluation.pages.figures import image_tag
from clip_jax.evaluation.pages.story.measured import Measured, chart, percent, story_section
from clip_jax.evaluation.pages.words import joined

PAPER = (
    "CLIP struggles with abstract and systematic tasks such as counting the objects in an image (section 6). Its "
    "ViT-L/14 at 336 pixels is right for 24.8% of CLEVR's counts, where guessing among 8 reaches 12.5%, and for "
    "21.9% of KITTI's distances to the nearest car, where guessing among 4 reaches 25% (table 11). That models "
    "such as CLIP take captions with two things exchanged for equal was found later (Winoground, 2022)."
)


@dataclass(frozen=True)
class Example:
    """A drawn image and its choices with their probabilities, of which `right` is the right one."""

    sample: Sample
    choices: Sequence[str]
    probabilities: Sequence[float]
    right: int


@dataclass(frozen=True)
class Traits:
    """Of each trait, by its name in demo.json, what the model makes of it, with an example."""

    measured: Mapping[str, Measured]
    examples: Mapping[str, Example]

    def figures(self) -> dict[str, float]:
        """Accuracies and what guessing reaches by name, as demo.json has them."""
        figures = {f"{name}_top1": one.figure for name, one in self.measured.items()}
        return figures | {f"{name}_chance": one.chance for name, one in self.measured.items()}


NAMES = {
    "number": "number",
    "size": "size",
    "texture": "texture",
    "place": "place",
    "relation": "relation",
    "order": "which is where",
    "binding": "which has which colour",
}
"""The traits in words."""


def traits_section(found: Traits) -> str:
    """The section as HTML."""
    rows = {NAMES[name]: {"top-1": one} for name, one in found.measured.items()}
    cards = "".join(_card(name, example) for name, example in found.examples.items())
    return story_section(
        "traits",
        "Counting, position, and what belongs to what",
        "Each image is shown with captions that differ in one thing alone, and the model picks one: “two” or "
        "“three red stars”; a ring “on the left” or “at the top”; “a star above a ring” or “a ring above a star”; "
        "“a red star and a blue ring” or “a blue star and a red ring”. Training had captions of all these kinds, "
        "and all these combinations of colour and shape.",
        _finding(found.measured),
        [chart("One word, or two things, exchanged", rows), f'<ul class="cards">{cards}</ul>'],
        PAPER,
    )


def _finding(measured: Mapping[str, Measured]) -> str:
    above = sorted(
        (name for name in measured if measured[name].is_above_chance), key=lambda name: -_gain(measured[name])
    )
    rest = [name for name in measured if name not in above]
    sentences = []
    if above:
        told = joined([f"{NAMES[name]} for {_told(measured[name])}" for name in above])
        sentences.append(f"Better than guessing, it gets right: {told} of the images.")
    if rest:
        told = joined([f"{NAMES[name]} for {_told(measured[name])}" for name in rest])
        sentences.append(f"No better than guessing: {told}.")
    if "number" in above:
        sentences.append(
            "Counting is easy here: captions told the number, and there are four objects at most, all alike."
        )
    if "relation" in above and "order" in rest:
        sentences.append("It sees that two things lie beside or above each other, but not which of them is where.")
    if "binding" in rest:
        sentences.append("Of a caption with two things it keeps the words, not which colour goes with which shape.")
    return " ".join(sentences)


def _told(one: Measured) -> str:
    return f"{percent(one.figure)} (guessing: {percent(one.chance)})"


def _gain(one: Measured) -> float:
    """How much of the way from guessing to always right."""
    return (one.figure - one.chance) / (1 - one.chance)


def _card(name: str, example: Example) -> str:
    answer = max(range(len(example.choices)), key=example.probabilities.__getitem__)
    lines = []
    for place, (choice, probability) in enumerate(zip(example.choices, example.probabilities, strict=True)):
        kind = "right" if place == example.right else "wrong" if place == answer else ""
        mark = "✓ " if place == example.right else "✗ " if place == answer else ""
        bar = f'<span class="track"><span class="bar" style="width:{100 * probability:.0f}%"></span></span>'
        lines.append(
            f"<li{f' class={kind}' if kind else ''}><span>{mark}{escape(choice)}</span>{bar}"
            f"<span>{percent(probability)}</span></li>"
        )
    picture = image_tag(example.sample.image, example.choices[example.right])
    return f"<li>{picture}<div><b>{NAMES[name]}</b><ul>{''.join(lines)}</ul></div></li>"
