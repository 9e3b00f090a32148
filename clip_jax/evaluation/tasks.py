"""The tasks as records: an embedded table in, what is to be printed, kept and shown out."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clip_jax.clip import Clip
from clip_jax.errors import UserError
from clip_jax.evaluation.benchmarks import Benchmark
from clip_jax.evaluation.features import Features
from clip_jax.evaluation.metrics import chance
from clip_jax.evaluation.question import Question
from clip_jax.evaluation.record import Record, shown_bad
from clip_jax.evaluation.retrieval import retrieve_features
from clip_jax.evaluation.wording import compare_wording

LIKELY = 12  # confusions that are told


@dataclass(frozen=True)
class Subject:
    """What is evaluated on what: a model and its name, a dataset's name and data spec, the benchmark that it is."""

    clip: Clip
    model: str
    dataset: str
    data: str
    benchmark: Benchmark | None = None
    cache: Path | None = None

    def published(self, metric: str) -> dict[str, float]:
        """Others' figures of this model in this metric, from 0 to 1, by source."""
        if self.benchmark is None:
            return {}
        found = {source: self.benchmark.figure(self.model, source, metric) for source in ("open_clip", "paper")}
        return {source: percent / 100 for source, percent in found.items() if percent is not None}

    def remarks(self, images: int) -> tuple[str, ...]:
        """Where the benchmark's data differ from those of published figures, `images` being all that there are."""
        if self.benchmark is None:
            return ()
        told = [self.benchmark.note] if self.benchmark.note else []
        if images != self.benchmark.samples:
            told.append(f"There are {images:,} images here; the published test set has {self.benchmark.samples:,}.")
        return tuple(told)


def zero_shot_record(subject: Subject, features: Features, question: Question, wording: bool = False) -> Record:
    """Zero-shot classification; with `wording`, also what each template reaches alone."""
    metric, compared = question.metric_of(features), None
    if wording:
        compared = compare_wording(
            subject.clip, features, question.classes, question.class_of, question.templates, metric, subject.cache
        )
    result = compared.answer if compared else question.answer(subject.clip, features, subject.cache)
    details: dict[str, Any] = {
        "classes": len(question.classes),
        "templates": list(question.templates),
        "per_class": result.per_class(),
        "class_sizes": _sizes(result.truth, result.class_names),
    }
    if features.several is None:
        details |= {"confusions": _confusions(result.truth, result.ranking[:, 0], result.class_names)}
        details |= {"reliability": _reliability(result.confidence, result.ranking[:, 0] == result.truth)}
    if compared:
        details["wording"] = {
            "by_template": compared.by_template,
            "embedding_ensemble": compared.embedding_ensemble,
            "probability_ensemble": compared.probability_ensemble,
        }
    return Record(
        task="zero-shot",
        model=subject.model,
        dataset=subject.dataset,
        data=subject.data,
        metric=metric,
        figures={metric: result.figure(metric)} | result.metrics(),
        images=len(result),
        interval=result.interval(metric),
        chance=chance(metric, len(question.classes)),
        published=subject.published(metric),
        remarks=subject.remarks(len(result) + len(result.bad)),
        left_out=len(result.bad),
        bad=shown_bad(result.bad),
        details=details,
    )


def retrieval_record(subject: Subject, features: Features, prefix: str | None = None) -> Record:
    """Retrieval in both directions; the main figure is the mean of both recalls at 1.

    Without a `prefix` the benchmark's is taken, or none. Raises UserError for a benchmark that is not for retrieval.
    """
    benchmark = subject.benchmark
    if benchmark is not None and benchmark.metric != "mean_recall_at_1":
        raise UserError(f"{benchmark.name} is for classification, not for retrieval; evaluate zero-shot takes it")
    if prefix is None:
        prefix = benchmark.templates[0].removesuffix("{}") if benchmark else ""
    result = retrieve_features(subject.clip, features, prefix, subject.cache)
    figures = result.metrics()
    names = ("image_to_text_recall_at_1", "text_to_image_recall_at_1")
    metric = "mean_recall_at_1"
    return Record(
        task="retrieval",
        model=subject.model,
        dataset=subject.dataset,
        data=subject.data,
        metric=metric,
        figures={metric: float(np.mean([figures[name] for name in names]))} | figures,
        images=len(result.image_to_text),
        chance=1 / len(result.image_to_text),
        published=subject.published(metric),
        remarks=subject.remarks(len(result.image_to_text) + len(result.bad)),
        left_out=len(result.bad),
        bad=shown_bad(result.bad),
        details={
            "captions": len(result.text_to_image),
            "prefix": prefix,
            "intervals": {name: list(result.interval(name)) for name in names},
        },
    )


def _sizes(truth: np.ndarray, names: tuple[str, ...]) -> dict[str, int]:
    counts = truth.sum(axis=0) if truth.ndim == 2 else np.bincount(truth, minlength=len(names))
    return {name: int(count) for name, count in zip(names, counts, strict=True) if count}


def _confusions(truth: np.ndarray, answers: np.ndarray, names: tuple[str, ...]) -> list[list[Any]]:
    """The most frequent mistakes as [true class, answer, number of images]."""
    wrong = truth != answers
    pairs, counts = np.unique(np.stack([truth[wrong], answers[wrong]]), axis=1, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:LIKELY]
    return [[names[pairs[0, i]], names[pairs[1, i]], int(counts[i])] for i in order]


def _reliability(confidence: np.ndarray, right: np.ndarray, bins: int = 15) -> list[list[float]]:
    """Of each bin of confidence that has images, [mean confidence, share of right answers, number of images]."""
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    return [
        [float(confidence[place == one].mean()), float(right[place == one].mean()), float((place == one).sum())]
        for one in np.unique(place)
    ]
