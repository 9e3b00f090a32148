"""What words alone reach on combinations never trained on, against guessing and against labelled images."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clip_jax.evaluation.pages.curves import few_shot_curves
from clip_jax.evaluation.pages.figures import plot
from clip_jax.evaluation.pages.looks import looks
from clip_jax.evaluation.pages.story.measured import Measured, chart, percent, story_section
from clip_jax.evaluation.pages.words import counted, shown
from clip_jax.evaluation.probes.few_shot import FewShotResult

PAPER = (
    "On average over 20 datasets, zero-shot CLIP does as well as a linear classifier on the same features that is "
    "fitted to 4 images of each class; on ImageNet it takes 16 (section 3.1.5, figure 6). Fitted to whole training "
    "sets, the linear classifier is 10 to 25 points of percent ahead on most datasets (figure 8)."
)
HELD_OUT = "held-out images"


@dataclass(frozen=True)
class Labels:
    """Held-out images among the held-out names, by words and by labels; among all names, and seen images among all.

    `few_shot` and `linear_probe` are fitted to other images of the held-out classes, `probe_images` in all.
    """

    class_names: Sequence[str]
    zero_shot: Measured
    all_names: Measured
    seen: Measured
    linear_probe: Measured
    probe_images: int
    few_shot: FewShotResult

    def figures(self) -> dict[str, float]:
        """Accuracies by name, as demo.json has them."""
        shots = zip(self.few_shot.shots, self.few_shot.mean.tolist(), strict=True)
        return {
            "colour_alone": self.colour_alone,
            "seen_among_all_combinations_top1": self.seen.figure,
            **{f"few_shot_{count}_top1": mean for count, mean in shots},
        }

    @property
    def colour_alone(self) -> float:
        """What one would reach who saw the colour and guessed among the names that have it."""
        colours = [name.split()[0] for name in self.class_names]
        return float(np.mean([1 / colours.count(colour) for colour in colours]))


def labels_section(found: Labels) -> str:
    """The section as HTML."""
    names, everything = len(found.class_names), round(1 / found.all_names.chance)
    rows = {
        f"words, {names} names": {HELD_OUT: found.zero_shot},
        f"linear probe, {names} classes": {HELD_OUT: found.linear_probe},
        f"words, all {everything} names": {HELD_OUT: found.all_names, "images of seen combinations": found.seen},
    }
    return story_section(
        "labels",
        "Words against labels",
        "How good are names alone, beside classifiers that are fitted to labelled images of the very classes? The "
        "grey marks are what guessing reaches.",
        f"{_against_chance(found)} {_against_labels(found)} {_among_all(found)}",
        [chart("Held-out combinations", rows), _few_shot_plot(found)],
        PAPER,
    )


def _few_shot_plot(found: Labels) -> str:
    shots, means = found.few_shot.shots, found.few_shot.mean.tolist()
    details = {
        "shots": shots,
        "mean": means,
        "error": found.few_shot.standard_error.tolist(),
        "zero_shot": found.zero_shot.figure,
    }
    told = [f"{count}: {percent(mean)}" for count, mean in zip(shots, means, strict=True)]
    level = percent(found.zero_shot.figure)
    alt = f"Accuracy against labelled images of each class, {', '.join(told)}; zero-shot {level}"
    sentence = f"The mean over {counted(len(found.few_shot.seeds), 'draw')} of the images, with its standard error."
    svg = few_shot_curves({"classifier": details}, looks(["classifier"]), "top-1")
    return plot("A few labelled images", svg, alt, sentence)


def _against_chance(found: Labels) -> str:
    colour = percent(found.colour_alone)
    text = f"By words alone it names {found.zero_shot.told} of the images."
    if found.zero_shot.interval[0] > found.colour_alone:
        return f"{text} Seeing the colour alone and guessing the shape would reach {colour}: it sees both."
    return f"{text} Seeing the colour alone and guessing the shape would reach {colour}: no less."


def _against_labels(found: Labels) -> str:
    shots, level = found.few_shot.shots, found.zero_shot.figure
    enough = [count for count, mean in zip(shots, found.few_shot.mean, strict=True) if mean >= level]
    classifier = "A linear classifier on the same features"
    if not enough:
        text = f"{classifier} stays below that with {shots[-1]} labelled images of each class."
    elif enough[0] == shots[0]:
        text = f"{classifier} needs no more than {counted(shots[0], 'labelled image')} of each class for that."
    else:
        below = shots[shots.index(enough[0]) - 1]
        text = f"{classifier} needs between {below} and {enough[0]} labelled images of each class for that."
    gap = found.linear_probe.figure - level
    told = f"{shown(abs(gap))} points {'more' if gap > 0 else 'less'} than words"
    return f"{text} Fitted to all {found.probe_images:,} it reaches {percent(found.linear_probe.figure)}, {told}."


def _among_all(found: Labels) -> str:
    held_out, seen = found.all_names, found.seen
    text = (
        f"Among all {round(1 / held_out.chance)} names it is right for {percent(held_out.figure)} of the held-out "
        f"images and for {percent(seen.figure)} of those whose combination training had"
    )
    if held_out.interval[1] < seen.interval[0]:
        return f"{text}: it leans to what it was trained on."
    if held_out.interval[0] > seen.interval[1]:
        return f"{text}: the held-out ones are no harder."
    return f"{text}: the two differ by no more than chance would make them."
