"""Zero-shot classification: class names in words are the classifier.

Source: section 3.1 of the paper; prompts are ensembled in embedding space (3.1.4).
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float32, Int
from tqdm import tqdm

from clip_jax.clip import PROGRESS_AFTER_SECONDS, Clip, check_labels
from clip_jax.data.table import BadSample, Sample, Table
from clip_jax.errors import UserError
from clip_jax.inputs.images import open_image


@dataclass(frozen=True)
class Embedded:
    """A table's normalised image embeddings, and the class of each among the table's own; `bad` are left out."""

    embeddings: Float32[np.ndarray, "b k"]
    truth: Int[np.ndarray, " b"]
    bad: tuple[BadSample, ...] = ()


@dataclass(frozen=True)
class ZeroShotResult:
    """What a model answered: for each sample, its true class and the classes from most to least likely.

    `bad` are those that it could not be asked about, and that no figure counts.
    """

    class_names: tuple[str, ...]
    truth: Int[np.ndarray, " b"]
    ranking: Int[np.ndarray, "b top"]
    bad: tuple[BadSample, ...] = ()

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
    it does not, and as `embed_table` does.
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
    classifier = clip.class_embeddings(labels, templates)
    result = classify_embeddings(embedded.embeddings, class_of[embedded.truth], classifier, labels)
    return replace(result, bad=embedded.bad)


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
    """Normalised image embeddings and labels of a whole labelled table, read and encoded in batches.

    Bad images, and those without a label, are left out, which a warning tells. Raises UserError where none is left.
    """
    if batch_size < 1:
        raise UserError(f"batch_size is {batch_size}; it must be at least 1")
    embeddings, truth = [], []
    bad: list[BadSample] = []
    with tqdm(total=len(table), unit=" images", delay=PROGRESS_AFTER_SECONDS, leave=False) as progress:
        for start in range(0, len(table), batch_size):
            found = table.read(range(start, min(start + batch_size, len(table))))
            progress.update(len(found))
            found = [_labelled(one) for one in found]
            try:
                embeddings.append(_encoded(clip, found, batch_size))
            except UserError:
                found = [_with_image(one) for one in found]
                embeddings.append(_encoded(clip, found, batch_size))
            truth += [one.label for one in found if isinstance(one, Sample)]
            bad += [one for one in found if isinstance(one, BadSample)]
    if bad:
        told = f"of {len(table):,} images {len(bad):,} cannot be used, the first is {bad[0].key}: {bad[0].reason}"
        if not truth:
            raise UserError(told)
        warnings.warn(f"{told}; they are left out of the evaluation", stacklevel=2)
    return Embedded(np.concatenate(embeddings), np.array(truth), tuple(bad))


def _encoded(clip: Clip, found: Sequence[Sample | BadSample], batch_size: int) -> Float32[np.ndarray, "b k"]:
    images = [one.image for one in found if isinstance(one, Sample)]
    return clip.encode_image(images, normalize=True, batch_size=batch_size)


def _labelled(one: Sample | BadSample) -> Sample | BadSample:
    if isinstance(one, BadSample) or one.label is not None:
        return one
    return BadSample(one.key, "bad label", "it has no label, and zero-shot classification needs one for every image")


def _with_image(one: Sample | BadSample) -> Sample | BadSample:
    """The sample, if its image can be decoded."""
    try:
        if isinstance(one, Sample):
            open_image(one.image)
    except UserError as error:
        return BadSample(one.key, "bad image", str(error))
    return one
