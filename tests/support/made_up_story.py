"""A made-up story of the demo's report, whose sentences are known beforehand."""

from typing import get_args

import numpy as np

from clip_jax.data.drawing import COLOURS, SHAPES, Style
from clip_jax.data.scenes import HELD_OUT, ScenesTable, class_name
from clip_jax.data.table import usable
from clip_jax.evaluation.pages.story.grain import Grain
from clip_jax.evaluation.pages.story.labels import Labels
from clip_jax.evaluation.pages.story.measured import Measured
from clip_jax.evaluation.pages.story.story import Story
from clip_jax.evaluation.pages.story.styles import Shown, Styles
from clip_jax.evaluation.pages.story.traits import Example, Traits
from clip_jax.evaluation.pages.story.wordings import Wordings
from clip_jax.evaluation.probes.few_shot import FewShotResult
from clip_jax.evaluation.wording import Wording
from clip_jax.evaluation.zero_shot import ZeroShotResult


def measured(figure: float, chance: float, margin: float = 0.02) -> Measured:
    return Measured(figure, (figure - margin, figure + margin), chance)


def answers(names: tuple[str, ...], right: int, images: int = 80) -> ZeroShotResult:
    """Of the images of each class in turn the first `right` are named right, the others as the next class."""
    truth = np.arange(images) % len(names)
    given = np.where(np.arange(images) < right, truth, (truth + 1) % len(names))
    return ZeroShotResult(names, truth, np.eye(len(names), dtype=np.float32)[given])


def wording(alone: dict[str, float], together: float) -> Wording:
    return Wording(alone, together, together, answers(("a", "b"), 40))


def story() -> Story:
    table = ScenesTable("held_out", 3, image_size=32)
    samples = usable(table.read(range(3)))
    few = FewShotResult((1, 4, 16), (0, 1), np.array([[0.4, 0.5], [0.7, 0.7], [0.9, 0.95]]), (0, 0, 0))
    styles: tuple[Style, ...] = get_args(Style)
    figures = (0.8, 0.1, 0.5, 0.05, 0.7)
    return Story(
        labels=Labels(
            class_names=tuple(map(class_name, HELD_OUT)),
            zero_shot=measured(0.8, 1 / 24),
            all_names=measured(0.6, 1 / 64),
            seen=measured(0.75, 1 / 64),
            linear_probe=measured(0.96, 1 / 24),
            probe_images=1200,
            few_shot=few,
        ),
        wordings=Wordings(
            wording({"a {}.": 0.6, "one <b>{}</b>.": 0.7, "x {}": 0.65}, 0.7),
            wording({"{}": 0.5, "itap of my {}.": 0.4}, 0.35),
            1 / 64,
        ),
        grain=Grain(answers(tuple(COLOURS), 76), answers(SHAPES, 40), answers(("a", "b"), 60)),
        traits=Traits(
            {
                "number": measured(0.9, 1 / 3),
                "place": measured(0.6, 0.2),
                "relation": measured(0.49, 0.25),
                "order": measured(0.51, 0.5),
                "binding": measured(0.49, 0.5),
            },
            {"number": Example(samples[0], ("two <stars>", "three <stars>"), (0.75, 0.25), 1)},
        ),
        styles=Styles(
            {style: measured(figure, 1 / 24) for style, figure in zip(styles, figures, strict=True)},
            {style: measured(figure + 0.02, 1 / 24) for style, figure in zip(styles, figures, strict=True)},
            {style: measured(figure + 0.01, 1 / 40) for style, figure in zip(styles, figures, strict=True)},
            {style: [Shown(sample, "red star", "red star") for sample in samples] for style in styles},
        ),
    )
