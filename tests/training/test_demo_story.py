"""What the demo measures besides its headline, on an untrained model: what is asked, and that it is asked rightly."""

import re

import numpy as np
import pytest

from clip_jax.clip import create
from clip_jax.data.drawing import Sprite
from clip_jax.data.scenes import COMBINATIONS, ScenesTable, class_name
from clip_jax.evaluation.features import embed_table
from clip_jax.evaluation.metrics import top
from clip_jax.evaluation.probes.logistic_regression import fit
from clip_jax.evaluation.probes.records import labelled
from clip_jax.training.demo import DemoFigures
from clip_jax.training.demo_story import FAMILIAR_TEMPLATES, UNFAMILIAR_TEMPLATES, Images, measure_story
from clip_jax.training.demo_traits import exchanged_colours, exchanged_places

NAMES = "|".join(class_name(combination) for combination in COMBINATIONS)


def sprite(colour: str, shape: str) -> Sprite:
    return Sprite(shape, colour, "", x=0.5, y=0.5, radius=0.2, angle=0.0, tint=(0.0, 0.0, 0.0))


@pytest.fixture(scope="module")
def measured():
    clip = create("tiny")
    size = clip.config.vision.image_size
    held_out, examples = (embed_table(clip, ScenesTable(split, 48, 1, size)) for split in ("held_out", "probe"))
    probe = fit(labelled(examples, held_out.class_names), 1.0)
    images = Images(trait=20, held_out=24, seen=40)
    return clip, held_out, probe, measure_story(clip, held_out, examples, probe, 1, images)


def test_templates_are_those_of_the_captions_or_never_seen():
    table = ScenesTable("train", 3000, seed=2021)
    captions = {caption for index in range(len(table)) for caption in table.scene(index).captions}
    for templates, expected in ((FAMILIAR_TEMPLATES, True), (UNFAMILIAR_TEMPLATES, False)):
        for template in templates:
            said = re.compile(f"({NAMES})".join(map(re.escape, template.split("{}"))))
            assert any(said.fullmatch(caption) for caption in captions) == expected, template


def test_captions_with_two_things_exchanged():
    star, ring = sprite("red", "star"), sprite("orange", "ring")
    assert exchanged_places((star, ring), "above") == (
        "a red star above an orange ring.",
        "an orange ring above a red star.",
    )
    assert exchanged_colours((star, ring)) == (
        "a red star and an orange ring.",
        "an orange star and a red ring.",
    )


def test_exchanged_captions_are_right_first_as_training_says_them():
    table = ScenesTable("relations", 40, seed=5)
    for index in range(40):
        scene = table.scene(index)
        relation = table.class_names[index % 4]
        assert exchanged_places(scene.sprites, relation)[0] in scene.captions
        assert exchanged_colours(scene.sprites)[0] in scene.captions
        assert exchanged_places(scene.sprites, relation)[1] not in scene.captions


def test_figures_against_numpy(measured):
    clip, held_out, probe, story = measured
    figures = story.figures()
    names = [class_name(combination) for combination in COMBINATIONS]
    prompts = clip.encode_text([f"this is a {name}." for name in names], normalize=True).astype(np.float64)
    answers = (held_out.embeddings.astype(np.float64) @ prompts.T).argmax(axis=1)
    truth = np.array([names.index(held_out.class_names[label]) for label in held_out.labels])
    assert story.wordings.unfamiliar.by_template["this is a {}."] == pytest.approx(np.mean(answers == truth))

    relations = embed_table(clip, ScenesTable("relations", 20, 1, clip.config.vision.image_size))
    right = []
    for image, label, captions in zip(relations.embeddings, relations.labels, relations.captions, strict=True):
        first, second = captions[3].removesuffix(".").split(f" {relations.class_names[label]} ")
        other = f"{second} {relations.class_names[label]} {first}."
        scores = clip.encode_text([captions[3], other], normalize=True).astype(np.float64) @ image
        right.append(scores[0] > scores[1])
    assert figures["order_top1"] == pytest.approx(np.mean(right))
    assert figures["plain_linear_probe_top1"] == top(probe.scores(held_out.pre_projection), held_out.labels)
    assert (figures["order_chance"], figures["place_chance"], figures["relation_chance"]) == (0.5, 0.2, 0.25)
    assert figures["colour_alone"] == pytest.approx(1 / 3)


def test_the_same_scenes_are_shown_in_each_style(measured):
    _, held_out, _, story = measured
    truths = {style: [one.truth for one in several] for style, several in story.styles.shown.items()}
    assert len(truths) == 5
    assert len({tuple(truth) for truth in truths.values()}) == 1
    for style, several in story.styles.shown.items():
        assert {one.answer for one in several} <= {*held_out.class_names}, style
        assert all(one.truth in one.sample.captions[0] for one in several)


def test_the_figures_of_the_story_stand_beside_those_of_the_headline(measured):
    story = measured[-1].figures()
    flat = DemoFigures(0.9, 0.6, 1 / 24, 0.95, 60.0, "report.html", story).flat()
    assert flat.keys() - story.keys() == {
        "held_out_top1",
        "all_combinations_top1",
        "chance",
        "linear_probe_top1",
        "seconds",
        "report",
    }
    assert all(isinstance(figure, float) for name, figure in flat.items() if name != "report")
