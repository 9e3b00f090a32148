"""Zero-shot classification: class names in words are the classifier.

Source: section 3.1 of the paper; prompts are ensembled in embedding space (3.1.4).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from jaxtyping import Float32, Int
from tqdm import tqdm

from clip_jax.clip import PROGRESS_AFTER_SECONDS, Clip, check_labels
from clip_jax.data.table import Sample, Table, usable
from clip_jax.errors import UserError

Embedded: TypeAlias = tuple[Float32[np.ndarray, "b k"], Int[np.ndarray, " b"]]
"""A table's normalised image embeddings, and the class of each image among the table's own."""


@dataclass(frozen=True)
class ZeroShotResult:
    """What a model answered: for each sample, its true class and the classes from most to least likely."""

    class_names: tuple[str, ...]
    truth: Int[np.ndarray, " b"]
    ranking: Int[np.ndarray, "b top"]

    def top(self, k: int) -> float:
        """The share of samples whose true class is among the k most likely."""
        return float((self.ranking[:, :k] == self.truth[:, None]).any(axis=1).mean())

    @property
    def chance(self) -> float:
        """The top-1 that guessing reaches."""
        return 1 / len(self.class_names)

    def per_class(self) -> dict[str, float]:
        """The top-1 of each class that has samples."""
        correct = self.ranking[:, 0] == self.truth
        present = np.unique(self.truth)
        return {self.class_names[c]: float(correct[self.truth == c].mean()) for c in present}

    @property
    def mean_per_class(self) -> float:
        """The mean of the classes' top-1, whatever their sizes."""
        return float(np.mean(list(self.per_class().values())))

    def metrics(self) -> dict[str, float]:
        """The figures by name: top1, top5 where there are more than five classes, mean_per_class."""
        figures = {"top1": self.top(1), "mean_per_class": self.mean_per_class}
        return figures | ({"top5": self.top(5)} if len(self.class_names) > 5 else {})


def zero_shot(
    clip: Clip,
    table: Table,
    labels: Sequence[str] = (),
    templates: str | Sequence[str] | None = None,
    batch_size: int = 64,
) -> ZeroShotResult:
    """Classifies every sample of a labelled table among `labels`, by default the table's own class names.

    `labels` may name further classes, in any order, but must hold every class of the table. Raises UserError where
    it does not, or where the table has no labels.
    """
    match_labels(table, labels)  # before the long work
    return classify_table(clip, table, embed_table(clip, table, batch_size), labels, templates)


def classify_table(
    clip: Clip,
    table: Table,
    embedded: Embedded,
    labels: Sequence[str] = (),
    templates: str | Sequence[str] | None = None,
) -> ZeroShotResult:
    """As `zero_shot`, for a table that is embedded already: one embedding serves many choices of labels and prompts."""
    labels, class_of = match_labels(table, labels)
    embeddings, truth = embedded
    return classify_embeddings(embeddings, class_of[truth], clip.class_embeddings(labels, templates), labels)


def classify_embeddings(
    embeddings: Float32[np.ndarray, "b k"],
    truth: Int[np.ndarray, " b"],
    classifier: Float32[np.ndarray, "c k"],
    labels: Sequence[str],
) -> ZeroShotResult:
    """The result of normalised image embeddings against a classifier's class embeddings."""
    scores = embeddings @ classifier.T
    return ZeroShotResult(tuple(labels), truth, np.argsort(-scores, axis=1, kind="stable")[:, :5])


def match_labels(table: Table, labels: Sequence[str] = ()) -> tuple[list[str], Int[np.ndarray, " c"]]:
    """The labels to choose from, and for each class of the table its place among them. Raises UserError."""
    if not table.class_names:
        raise UserError("this data has no labels; a folder per class has, and tars with .cls and classnames.txt")
    labels = check_labels(labels or table.class_names)
    place = {label: index for index, label in enumerate(labels)}
    missing = [name for name in table.class_names if name not in place]
    if missing:
        raise UserError(f"the labels lack '{missing[0]}', a class of the data; add it ({len(missing)} are missing)")
    return labels, np.array([place[name] for name in table.class_names])


def embed_table(clip: Clip, table: Table, batch_size: int = 64) -> Embedded:
    """Normalised image embeddings and labels of a whole labelled table, read and encoded in batches."""
    if batch_size < 1:
        raise UserError(f"batch_size is {batch_size}; it must be at least 1")
    embeddings, truth = [], []
    with tqdm(total=len(table), unit=" images", delay=PROGRESS_AFTER_SECONDS, leave=False) as progress:
        for samples in _batches(table, batch_size):
            embeddings.append(clip.encode_image([s.image for s in samples], normalize=True, batch_size=batch_size))
            truth += [_label(sample) for sample in samples]
            progress.update(len(samples))
    return np.concatenate(embeddings), np.array(truth)


def _batches(table: Table, batch_size: int) -> Iterator[list[Sample]]:
    for start in range(0, len(table), batch_size):
        yield usable(table.read(range(start, min(start + batch_size, len(table)))))


def _label(sample: Sample) -> int:
    if sample.label is None:
        raise UserError(f"sample {sample.key} has no label; zero-shot classification needs one for every image")
    return sample.label
