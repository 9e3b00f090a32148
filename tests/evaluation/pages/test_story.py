"""The report's story: every section is there, and its sentences say what the figures show, whatever these are."""

from dataclasses import replace

import numpy as np
import pytest
from support.html_page import HtmlPage
from support.made_up_story import answers, measured, story, wording

from clip_jax.data.drawing import SHAPES
from clip_jax.evaluation.pages.story.grain import grain_section, of_two
from clip_jax.evaluation.pages.story.labels import labels_section
from clip_jax.evaluation.pages.story.measured import Measured
from clip_jax.evaluation.pages.story.story import story_sections
from clip_jax.evaluation.pages.story.styles import styles_section
from clip_jax.evaluation.pages.story.traits import Traits, traits_section
from clip_jax.evaluation.pages.story.wordings import wordings_section
from clip_jax.evaluation.zero_shot import ZeroShotResult


def words(section: str) -> str:
    return " ".join(HtmlPage(section).words.split())


def test_every_section_has_plots_a_finding_and_the_paper_beside():
    page = HtmlPage(story_sections(story()))
    assert page.ids() == {"labels", "wording", "grain", "traits", "styles"}
    kinds = [attributes.get("class") for _, attributes in page.elements]
    assert kinds.count("finding") == kinds.count("paper") == 5
    assert len(page.all("figure")) == 6
    assert all(image["alt"] for image in page.all("img"))
    assert len(page.all("img")) == 6 + 1 + 5 * 3
    assert not page.all("script")
    assert "one <b>{}</b>." in page.words
    assert "✓ three <stars>" in page.words
    assert "✗ two <stars>" in page.words
    assert page.words.count("✓ red star") == 15


def test_figures_are_flat_shares():
    figures = story().figures()
    assert all(isinstance(figure, float) and 0 <= figure <= 1 for figure in figures.values())
    expected = {
        "few_shot_1_top1": 0.45,
        "colour_alone": 1 / 3,
        "colour_top1": 0.95,
        "shape_top1": 0.5,
        "number_top1": 0.9,
        "number_chance": 1 / 3,
        "outline_top1": 0.1,
        "wording_best_top1": 0.7,
        "wording_worst_top1": 0.4,
        "wording_familiar_median_top1": 0.65,
    }
    assert {name: figures[name] for name in expected} == pytest.approx(expected)


def test_labels_as_they_are():
    told = words(labels_section(story().labels))
    assert "names 80.0% (guessing: 4.2%) of the images" in told
    assert "would reach 33.3%: it sees both" in told
    assert "needs between 4 and 16 labelled images" in told
    assert "Fitted to all 1,200 it reaches 96.0%, 16.0 points more than words" in told
    assert "60.0% of the held-out images and for 75.0%" in told
    assert "leans to what it was trained on" in told


def test_labels_otherwise():
    base = story().labels
    few = replace(base.few_shot, figures=np.full((3, 2), 0.2))
    poor = replace(
        base, zero_shot=measured(0.05, 1 / 24), seen=measured(0.61, 1 / 64), linear_probe=measured(0.04, 1 / 24)
    )
    told = words(labels_section(poor))
    assert "names 5.0%, no better than guessing (4.2%) of the images" in told
    assert "it sees both" not in told
    assert "needs no more than 1 labelled image of each class" in told
    assert "1.0 points less than words" in told
    assert "differ by no more than chance" in told
    assert "stays below that with 16" in words(labels_section(replace(base, few_shot=few)))
    assert "held-out ones are no harder" in words(labels_section(replace(base, seen=measured(0.5, 1 / 64))))


def test_wordings():
    found = story().wordings
    told = words(wordings_section(found))
    assert "best wording, “one <b>{}</b>.”, reaches 70.0%, the worst, “itap of my {}.”, 40.0%" in told
    assert "never seen reach 45.0% and the captions' own 65.0%: they cost 20.0 points" in told
    assert "makes \N{MINUS SIGN}10.0 points against the median for words never seen, +5.0 for the captions' own" in told
    same = wording({"{}": 0.655, "this {}": 0.645}, 0.651)
    told = words(wordings_section(replace(found, familiar=same, unfamiliar=same)))
    assert "they cost next to nothing" in told
    assert "Averaging all templates of a kind changes next to nothing" in told
    told = words(wordings_section(replace(found, unfamiliar=wording({"{}": 0.9}, 0.9))))
    assert "they gain 25.0 points" in told


def test_of_two_classes_by_hand():
    scores = np.array([[0.9, 0.1, 1], [0.2, 0.3, 0], [0.5, 0.6, 0.7], [0, 0, 0.1]], np.float32)
    pairs = of_two(ZeroShotResult(("a", "b", "c"), np.array([0, 0, 1, 2]), scores))
    figures = {pair: one.figure for pair, one in pairs.items()}
    assert figures == pytest.approx({("a", "b"): 2 / 3, ("a", "c"): 2 / 3, ("b", "c"): 1 / 2})
    assert all(one.chance == 0.5 for one in pairs.values())


def test_grain():
    found = story().grain
    told = words(grain_section(found))
    assert "colour it names right for 95.0% (guessing: 12.5%) of the images, the shape for 50.0%" in told
    assert "colour is the coarse question, shape the fine one" in told
    turned = words(grain_section(replace(found, colour=found.shape, shape=answers(SHAPES, 80))))
    assert "here colours are the finer question" in turned
    assert "neither is harder" in words(grain_section(replace(found, colour=found.shape)))


def test_traits_at_chance_are_said_to_be():
    found = story().traits
    told = words(traits_section(found))
    assert "gets right: number for 90.0% (guessing: 33.3%), place for 60.0%" in told
    assert "No better than guessing: which is where for 51.0% (guessing: 50.0%) and which has which colour" in told
    assert "Counting is easy here" in told
    assert "but not which of them is where" in told
    assert "not which colour goes with which shape" in told


def test_traits_otherwise():
    found = story().traits
    changed = {
        **found.measured,
        "number": measured(0.34, 1 / 3),
        "order": measured(0.9, 0.5),
        "binding": measured(0.8, 0.5),
    }
    told = words(traits_section(Traits(changed, found.examples)))
    assert "No better than guessing: number for 34.0% (guessing: 33.3%)." in told
    assert "Counting is easy" not in told
    assert "but not which of them" not in told
    assert "not which colour goes" not in told
    nothing = {name: measured(one.chance, one.chance) for name, one in found.measured.items()}
    assert "gets right" not in words(traits_section(Traits(nothing, found.examples)))
    everything = {name: measured(0.95, one.chance) for name, one in found.measured.items()}
    assert "No better than guessing" not in words(traits_section(Traits(everything, found.examples)))


def test_styles():
    found = story().styles
    told = words(styles_section(found))
    assert "80.0% as trained becomes 5.0%, no better than guessing (4.2%) on dark ground" in told
    assert "it loses least in noise, \N{MINUS SIGN}10.0" in told
    assert "words are no more robust than labels here" in told  # both lose 46.25 points
    steady = {style: Measured(0.7, (0.68, 0.72), one.chance) for style, one in found.linear_probe.items()}
    assert "labels lose less here" in words(styles_section(replace(found, linear_probe=steady)))
    assert "words lose less here" in words(styles_section(replace(found, zero_shot=steady)))
