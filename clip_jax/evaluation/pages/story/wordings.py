"""What the wording of the prompt does: templates from the captions' own to ones never seen, alone and together."""

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape

import numpy as np

from clip_jax.evaluation.pages.figures import plot, table
from clip_jax.evaluation.pages.looks import looks
from clip_jax.evaluation.pages.plots import strip
from clip_jax.evaluation.pages.story.measured import percent, story_section
from clip_jax.evaluation.pages.words import points, shown
from clip_jax.evaluation.wording import Wording

LITTLE = 0.01  # a difference of a point of percent
FAMILIAR, UNFAMILIAR = "worded as the captions", "worded as never seen"
PAPER = (
    "On ImageNet, “a photo of a {}.” is 1.3 points better than the bare name, and an ensemble of 80 templates "
    "another 3.5 (section 3.1.4); over 36 datasets, both together gain almost 5 points on average (figure 4). "
    "There a template must tell crane the bird from crane the machine; here no name has two meanings."
)


@dataclass(frozen=True)
class Wordings:
    """Templates that training captions have, and templates that none has, on the same images and names."""

    familiar: Wording
    unfamiliar: Wording
    chance: float

    def figures(self) -> dict[str, float]:
        """Accuracies by name, as demo.json has them."""
        alone = [*self.familiar.by_template.values(), *self.unfamiliar.by_template.values()]
        return {
            "wording_best_top1": max(alone),
            "wording_worst_top1": min(alone),
            "wording_familiar_median_top1": _median(self.familiar),
            "wording_familiar_ensemble_top1": self.familiar.embedding_ensemble,
            "wording_unfamiliar_median_top1": _median(self.unfamiliar),
            "wording_unfamiliar_ensemble_top1": self.unfamiliar.embedding_ensemble,
        }


def wordings_section(found: Wordings) -> str:
    """The section as HTML."""
    by_kind = {FAMILIAR: found.familiar, UNFAMILIAR: found.unfamiliar}
    return story_section(
        "wording",
        "How it is asked",
        f"The same images, each time among all {round(1 / found.chance)} names, put into different words. The "
        "captions never say “photo”, “this” or “itap”, of which the model has learnt nothing; and the plural they "
        "use for several objects alone.",
        _finding(found),
        [_strip_plot(by_kind), _table(by_kind)],
        PAPER,
    )


def _strip_plot(by_kind: Mapping[str, Wording]) -> str:
    details = {
        kind: {
            "by_template": wording.by_template,
            "embedding_ensemble": wording.embedding_ensemble,
            "probability_ensemble": wording.probability_ensemble,
        }
        for kind, wording in by_kind.items()
    }
    told = [
        f"{kind}: {percent(min(one.by_template.values()))} to {percent(max(one.by_template.values()))} alone, "
        f"{percent(one.embedding_ensemble)} together"
        for kind, one in by_kind.items()
    ]
    sentence = (
        "The paper averages the templates' embeddings; averaging the probabilities of their answers is the other way."
    )
    svg = strip(details, looks(list(by_kind)), "top-1")
    return plot("Templates alone and together", svg, f"Accuracy of each template. {'; '.join(told)}.", sentence)


def _table(by_kind: Mapping[str, Wording]) -> str:
    rows = []
    for kind, wording in by_kind.items():
        best_first = sorted(wording.by_template.items(), key=lambda item: -item[1])
        rows += [(f"<b>{kind}</b>", ["<td></td>"])]
        rows += [(escape(template), [f"<td>{shown(figure)}</td>"]) for template, figure in best_first]
        rows += [("all of these together", [f"<td><b>{shown(wording.embedding_ensemble)}</b></td>"])]
    return f"<div>{table('plain', 'Templates', ['top-1, %'], rows, 'template')}</div>"


def _finding(found: Wordings) -> str:
    alone = {**found.familiar.by_template, **found.unfamiliar.by_template}
    best, worst = (pick(alone, key=alone.__getitem__) for pick in (max, min))
    text = (
        f"The best wording, “{escape(best)}”, reaches {percent(alone[best])}, the worst, “{escape(worst)}”, "
        f"{percent(alone[worst])}."
    )
    medians = [_median(one) for one in (found.familiar, found.unfamiliar)]
    difference = medians[1] - medians[0]
    told = f"In the median, words never seen reach {percent(medians[1])} and the captions' own {percent(medians[0])}"
    if abs(difference) < LITTLE:
        text += f" {told}: they cost next to nothing."
    else:
        text += f" {told}: they {'cost' if difference < 0 else 'gain'} {shown(abs(difference))} points."
    gains = [one.embedding_ensemble - _median(one) for one in (found.familiar, found.unfamiliar)]
    if max(map(abs, gains)) < LITTLE:
        return f"{text} Averaging all templates of a kind changes next to nothing."
    return (
        f"{text} Averaging all templates makes {points(gains[1])} points against the median for words never seen, "
        f"{points(gains[0])} for the captions' own."
    )


def _median(wording: Wording) -> float:
    return float(np.median(list(wording.by_template.values())))
