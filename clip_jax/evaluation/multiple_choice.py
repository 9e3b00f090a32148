"""Multiple choice: each image with a few captions of its own, of which one says what it shows.

It asks for what a set of classes cannot: a caption in which one word is exchanged, or two things have changed places.
Source: the tests of Winoground (Thrush et al. 2022, arXiv 2204.03162) and ARO (Yuksekgonul et al. 2022, 2210.01936).
"""

import re
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from clip_jax.clip import Clip
from clip_jax.evaluation.features import Features, embed_texts
from clip_jax.evaluation.zero_shot import ZeroShotResult


def choose(
    clip: Clip,
    features: Features,
    choices: Sequence[Sequence[str]],
    names: Sequence[str],
    truth: Int[np.ndarray, " b"],
) -> ZeroShotResult:
    """What a model answers when image i is to be given one of `choices[i]`, of which `truth[i]` is right.

    All images have equally many choices; `names` say what the first, second, ... of any image has in common.
    """
    if not len(features) == len(choices) == len(truth) or {len(own) for own in choices} != {len(names)}:
        raise ValueError("every image needs its choices, one for each name, and its truth")
    texts = list(dict.fromkeys(text for own in choices for text in own))
    place = {text: index for index, text in enumerate(texts)}
    embeddings = embed_texts(clip, texts)[[[place[text] for text in own] for own in choices]]
    scores = np.einsum("bk,bck->bc", features.embeddings, embeddings)
    return ZeroShotResult(
        tuple(names), truth, scores, float(clip.logit_scale), float(clip.logit_bias), clip.config.is_sigmoid
    )


def with_each_class(features: Features) -> list[list[str]]:
    """Of each image the first of its captions that names its class, with the name of each class in its place.

    Raises ValueError where no caption names the class.
    """
    choices = []
    for key, label, captions in zip(features.keys, features.labels, features.captions, strict=True):
        own = re.compile(rf"\b{re.escape(features.class_names[label])}\b")
        caption = next((caption for caption in captions if own.search(caption)), None)
        if caption is None:
            raise ValueError(f"no caption of {key} names its class, '{features.class_names[label]}'")
        choices.append([own.sub(lambda _, name=name: name, caption, count=1) for name in features.class_names])
    return choices
