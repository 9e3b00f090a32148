"""How much the wording of a prompt matters: every template by itself, and two ways to ensemble them.

Source: section 3.1.4 of the paper, which averages embeddings rather than probabilities, as that costs no more than one
prompt once the average is made.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Int

from clip_jax.clip import Clip
from clip_jax.evaluation.features import Features, embed_classes
from clip_jax.evaluation.metrics import Metric
from clip_jax.evaluation.zero_shot import ZeroShotResult, score
from clip_jax.inputs.prompts import check_templates


@dataclass(frozen=True)
class Wording:
    """The figure that each template reaches alone, and that of their ensembles in embedding and probability space."""

    by_template: dict[str, float]
    embedding_ensemble: float
    probability_ensemble: float

    @property
    def spread(self) -> float:
        """How far the best template alone lies above the worst."""
        return max(self.by_template.values()) - min(self.by_template.values())


def compare_wording(
    clip: Clip,
    features: Features,
    classes: Sequence[str | Sequence[str]],
    class_of: Int[np.ndarray, " labels"],
    templates: Sequence[str],
    metric: Metric = "accuracy",
    cache: Path | None = None,
) -> Wording:
    """The figures of `templates` on a table that is embedded already; classes and `class_of` are as in `score`."""
    names = [one if isinstance(one, str) else one[0] for one in classes]
    by_template, probabilities, result = {}, np.float64(0), None
    for template in dict.fromkeys(check_templates(templates)):
        classifier = embed_classes(clip, classes, template, cache)
        result = score(clip, features, classifier, names, class_of)
        by_template[template] = result.figure(metric)
        probabilities = probabilities + _probabilities(result)
    together = score(clip, features, embed_classes(clip, classes, templates, cache), names, class_of)
    averaged = replace(together, scores=np.asarray(probabilities / len(by_template), np.float32))
    return Wording(by_template, together.figure(metric), averaged.figure(metric))


def _probabilities(result: ZeroShotResult) -> np.ndarray:
    logits = result.logit_scale * result.scores + result.logit_bias
    if result.is_sigmoid:
        return 1 / (1 + np.exp(-logits))
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return odds / odds.sum(axis=1, keepdims=True)
