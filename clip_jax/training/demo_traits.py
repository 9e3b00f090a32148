"""What the demo's model makes of the traits of a scene: captions that differ in one thing, one of which is right."""

from collections.abc import Sequence

import numpy as np

from clip_jax.clip import Clip
from clip_jax.data.composition import article
from clip_jax.data.drawing import Sprite
from clip_jax.data.scenes import ScenesTable, Split
from clip_jax.data.table import usable
from clip_jax.evaluation.features import Features, embed_table
from clip_jax.evaluation.multiple_choice import choose, with_each_class
from clip_jax.evaluation.pages.story.measured import Measured
from clip_jax.evaluation.pages.story.traits import Example, Traits
from clip_jax.evaluation.zero_shot import ZeroShotResult

SPLITS: dict[str, Split] = {"number": "counts", "size": "sizes", "texture": "textures", "place": "positions"}
EXAMPLES = ("number", "place", "order", "binding")
EXAMPLE = 4  # that image always, whatever is answered


def measure_traits(clip: Clip, images: int, seed: int) -> Traits:
    """Each trait on so many scenes of its own split, of combinations that training has."""
    results: dict[str, ZeroShotResult] = {}
    examples: dict[str, Example] = {}

    def ask(name: str, table: ScenesTable, features: Features, choices: Sequence[Sequence[str]], names, truth) -> None:
        results[name] = choose(clip, features, choices, names, truth)
        if name in EXAMPLES:
            examples[name] = _example(table, features, choices, results[name])

    for name, split in SPLITS.items():
        table = ScenesTable(split, images, seed, clip.config.vision.image_size)
        features = embed_table(clip, table)
        ask(name, table, features, with_each_class(features), features.class_names, features.labels)

    table = ScenesTable("relations", images, seed, clip.config.vision.image_size)
    features = embed_table(clip, table)
    ask("relation", table, features, with_each_class(features), features.class_names, features.labels)
    scenes = [table.scene(row) for row in features.rows.tolist()]
    relations = [features.class_names[label] for label in features.labels]
    pairs = [exchanged_places(scene.sprites, relation) for scene, relation in zip(scenes, relations, strict=True)]
    ask("order", table, features, *_in_turn(pairs))
    differ = np.array([_differ(scene.sprites) for scene in scenes])
    pairs = [exchanged_colours(scene.sprites) for scene, used in zip(scenes, differ, strict=True) if used]
    ask("binding", table, features.take(differ), *_in_turn(pairs))
    return Traits({name: Measured.of(result) for name, result in results.items()}, examples)


def exchanged_places(sprites: Sequence[Sprite], relation: str) -> tuple[str, str]:
    """'a red star above a blue ring.' and 'a blue ring above a red star.'."""
    first, second = (article(f"{sprite.colour} {sprite.shape}") for sprite in sprites)
    return f"{first} {relation} {second}.", f"{second} {relation} {first}."


def exchanged_colours(sprites: Sequence[Sprite]) -> tuple[str, str]:
    """'a red star and a blue ring.' and 'a blue star and a red ring.'."""
    first, second = sprites
    own = (f"{article(first.colour)} {first.shape}", f"{article(second.colour)} {second.shape}")
    other = (f"{article(second.colour)} {first.shape}", f"{article(first.colour)} {second.shape}")
    return f"{' and '.join(own)}.", f"{' and '.join(other)}."


def _differ(sprites: Sequence[Sprite]) -> bool:
    """Whether exchanged colours make another scene."""
    first, second = sprites
    return first.colour != second.colour and first.shape != second.shape


def _in_turn(pairs: Sequence[tuple[str, str]]) -> tuple[list[tuple[str, str]], tuple[str, str], np.ndarray]:
    """Choices, names and truth, the right one of each pair being first and second in turn, lest ties look right."""
    truth = np.arange(len(pairs)) % 2
    choices = [(wrong, right) if place else (right, wrong) for (right, wrong), place in zip(pairs, truth, strict=True)]
    return choices, ("first", "second"), truth


def _example(
    table: ScenesTable, features: Features, choices: Sequence[Sequence[str]], result: ZeroShotResult
) -> Example:
    logits = result.logit_scale * result.scores[EXAMPLE].astype(np.float64)
    odds = np.exp(logits - logits.max())
    (sample,) = usable(table.read(features.rows[[EXAMPLE]]))
    return Example(sample, choices[EXAMPLE], (odds / odds.sum()).tolist(), int(result.truth[EXAMPLE]))
