"""What the demo measures besides its headline: labels, wording, grain, traits and styles, on its own trained model.

Scenes are drawn in memory by the demo's seed; those in another style are the held-out ones that are on disk.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from clip_jax.clip import Clip
from clip_jax.data.composition import article, class_name
from clip_jax.data.drawing import COLOURS, SHAPES, Style
from clip_jax.data.scenes import COMBINATIONS, TEMPLATES, ScenesTable
from clip_jax.data.table import usable
from clip_jax.evaluation.bootstrap import interval
from clip_jax.evaluation.features import Features, embed_table
from clip_jax.evaluation.metrics import top
from clip_jax.evaluation.pages.story.grain import Grain
from clip_jax.evaluation.pages.story.labels import Labels
from clip_jax.evaluation.pages.story.measured import Measured
from clip_jax.evaluation.pages.story.story import Story
from clip_jax.evaluation.pages.story.styles import Shown, Styles
from clip_jax.evaluation.pages.story.wordings import Wordings
from clip_jax.evaluation.probes.few_shot import few_shot
from clip_jax.evaluation.probes.logistic_regression import Probe
from clip_jax.evaluation.probes.records import labelled
from clip_jax.evaluation.wording import compare_wording
from clip_jax.evaluation.zero_shot import ZeroShotResult, classify_features, match_labels, score
from clip_jax.training.demo_traits import measure_traits

EVERY_NAME = tuple(class_name(combination) for combination in COMBINATIONS)
FAMILIAR_TEMPLATES = (
    "a {}.",
    "a picture of a {}.",
    "a drawing of a {}.",
    "a large {}.",
    "a {} on the left.",
    "a {} on a white background.",
)
UNFAMILIAR_TEMPLATES = (
    "{}",
    "a photo of a {}.",
    "this is a {}.",
    "itap of my {}.",
    "look, somebody has painted the {}!",
    "i like {}s!",
)
SHOWN_SCENES = (0, 3, 15)


@dataclass(frozen=True)
class Images:
    """How many are drawn: of each trait, and in each style of held-out and of seen combinations."""

    trait: int = 300
    held_out: int = 360
    seen: int = 320


def measure_story(clip: Clip, held_out: Features, examples: Features, probe: Probe, seed: int, images: Images) -> Story:
    """All that the report's story tells; `probe` is fitted to `examples`, images of the held-out classes."""
    seen = embed_table(clip, _table(clip, "seen", images.seen, seed, "plain"))
    return Story(
        labels=_labels(clip, held_out, examples, probe, seen),
        wordings=_wordings(clip, held_out),
        grain=_grain(clip, held_out),
        traits=measure_traits(clip, images.trait, seed),
        styles=_styles(clip, held_out, seen, probe, seed, images),
    )


def _table(clip: Clip, split: Literal["seen", "held_out"], images: int, seed: int, style: Style) -> ScenesTable:
    return ScenesTable(split, images, seed, clip.config.vision.image_size, style)


def _labels(clip: Clip, held_out: Features, examples: Features, probe: Probe, seen: Features) -> Labels:
    train, test = (labelled(part, held_out.class_names) for part in (examples, held_out))
    return Labels(
        class_names=held_out.class_names,
        zero_shot=Measured.of(classify_features(clip, held_out, templates=TEMPLATES)),
        all_names=Measured.of(classify_features(clip, held_out, EVERY_NAME, TEMPLATES)),
        seen=Measured.of(classify_features(clip, seen, EVERY_NAME, TEMPLATES)),
        linear_probe=_probed(probe, held_out),
        probe_images=len(examples),
        few_shot=few_shot(train, test, top),
    )


def _wordings(clip: Clip, held_out: Features) -> Wordings:
    names, class_of = match_labels(held_out.class_names, EVERY_NAME)
    familiar, unfamiliar = (
        compare_wording(clip, held_out, names, class_of, templates)
        for templates in (FAMILIAR_TEMPLATES, UNFAMILIAR_TEMPLATES)
    )
    return Wordings(familiar, unfamiliar, 1 / len(names))


def _grain(clip: Clip, held_out: Features) -> Grain:
    colours, shapes = zip(*(name.split() for name in held_out.class_names), strict=True)

    def ask(words: Sequence[str], own: Sequence[str], templates: list[str]) -> ZeroShotResult:
        class_of = np.array([words.index(word) for word in own])
        return score(clip, held_out, clip.class_embeddings(words, templates), words, class_of)

    return Grain(
        colour=ask(tuple(COLOURS), colours, [f"a {{}} {shape}." for shape in SHAPES]),
        shape=ask(SHAPES, shapes, [f"{article(colour)} {{}}." for colour in COLOURS]),
        both=classify_features(clip, held_out, EVERY_NAME, TEMPLATES),
    )


def _styles(clip: Clip, held_out: Features, seen: Features, probe: Probe, seed: int, images: Images) -> Styles:
    zero_shot, probed, on_seen, shown = {}, {}, {}, {}
    for style in get_args(Style):
        table = _table(clip, "held_out", images.held_out, seed, style)
        ours = held_out if style == "plain" else embed_table(clip, table)
        result = classify_features(clip, ours, templates=TEMPLATES)
        zero_shot[style], probed[style] = Measured.of(result), _probed(probe, ours)
        theirs = seen if style == "plain" else embed_table(clip, _table(clip, "seen", images.seen, seed, style))
        on_seen[style] = Measured.of(classify_features(clip, theirs, templates=TEMPLATES))
        shown[style] = [
            Shown(sample, table.class_names[result.truth[row]], table.class_names[result.ranking[row, 0]])
            for row, sample in zip(SHOWN_SCENES, usable(table.read(SHOWN_SCENES)), strict=True)
        ]
    return Styles(zero_shot, probed, on_seen, shown)


def _probed(probe: Probe, features: Features) -> Measured:
    """What a linear probe of these classes makes of these images."""
    own = labelled(features, features.class_names)
    scores = probe.scores(own.features)
    return Measured(top(scores, own.labels), interval("accuracy", scores, own.labels), 1 / own.classes)
