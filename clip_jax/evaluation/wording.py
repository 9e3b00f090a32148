"""How much the wording of a prompt matters: every template by itself, and two ways to ensemble them.

Source: section 3.1.4 of the paper, which averages embeddings rather than probabilities, as that costs no more than one
prompt once the average is made.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Float64, Int

from clip_jax.clip import Clip
from clip_jax.evaluation.features import Features, embed_texts
from clip_jax.evaluation.metrics import Metric
from clip_jax.evaluation.zero_shot import ZeroShotResult, score
from clip_jax.inputs.prompts import check_classes, check_templates, prompts_of


@dataclass(frozen=True)
class Wording:
    """The figure that each template reaches alone, and that of their ensembles in embedding and probability space.

    `answer` is what the ensemble in embedding space answers: the zero-shot result with all templates.
    """

    by_template: dict[str, float]
    embedding_ensemble: float
    probability_ensemble: float
    answer: ZeroShotResult


def compare_wording(
    clip: Clip,
    features: Features,
    classes: Sequence[str | Sequence[str]],
    class_of: Int[np.ndarray, " labels"],
    templates: Sequence[str],
    metric: Metric = "accuracy",
    cache: Path | None = None,
) -> Wording:
    """The figures of `templates` on a table that is embedded already; classes and `class_of` are as in `score`.

    Every prompt is embedded once: a template's classifier averages its prompts, the ensemble's those of all templates,
    as `Clip.class_embeddings` does.
    """
    names, templates = check_classes(classes), check_templates(templates)
    distinct = list(dict.fromkeys(templates))
    prompts = [prompt for _, prompt in prompts_of(classes, distinct)]
    embeddings = embed_texts(clip, prompts, cache=cache).reshape(-1, len(distinct), clip.config.embed_dim)
    begins = np.cumsum([0, *map(len, names[:-1])])
    first_names = [several[0] for several in names]
    by_template, all_sums, probabilities = {}, np.float64(0), np.float64(0)
    for place, template in enumerate(distinct):
        sums = np.add.reduceat(embeddings[:, place], begins, axis=0, dtype=np.float64)
        weight = templates.count(template)  # one that is given twice counts twice in both ensembles
        all_sums = all_sums + weight * sums
        result = score(clip, features, _normalised(sums), first_names, class_of)
        by_template[template] = result.figure(metric)
        probabilities = probabilities + weight * _probabilities(result)
    together = score(clip, features, _normalised(np.asarray(all_sums)), first_names, class_of)
    averaged = replace(together, scores=np.asarray(probabilities / len(templates), np.float32))
    return Wording(by_template, together.figure(metric), averaged.figure(metric), together)


def _normalised(sums: Float64[np.ndarray, "c k"]) -> Float32[np.ndarray, "c k"]:
    return (sums / np.linalg.norm(sums, axis=-1, keepdims=True)).astype(np.float32)


def _probabilities(result: ZeroShotResult) -> np.ndarray:
    logits = result.logit_scale * result.scores + result.logit_bias
    if result.is_sigmoid:
        return 1 / (1 + np.exp(-logits))
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return odds / odds.sum(axis=1, keepdims=True)
