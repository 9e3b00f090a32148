"""Counting the samples that had to be replaced, and ending a run that has too many of them."""

import warnings

import jax
import numpy as np
from jaxtyping import Int64

from clip_jax.data.pipeline import Batch, Pipeline
from clip_jax.data.reader import CAUSES
from clip_jax.errors import UserError
from clip_jax.training.config import TrainConfig

ENOUGH = 1_000  # samples after which their share is believed


class BadSamples:
    """How many samples of each cause were replaced since this attempt at the run began."""

    def __init__(self, config: TrainConfig, pipeline: Pipeline) -> None:
        self._config, self._pipeline = config, pipeline
        self._counts = np.zeros(len(CAUSES), np.int64)  # of this process's rows
        self._seen = 0
        self._told: set[str] = set()

    def count(self, batch: Batch) -> None:
        """Counts a batch's, and warns of the first of each cause."""
        self._seen += self._config.batch_size
        for cause, number in batch.bad.items():
            self._counts[CAUSES.index(cause)] += number
            if cause not in self._told and cause in self._pipeline.examples:
                self._told.add(cause)
                bad = self._pipeline.examples[cause]
                warnings.warn(
                    f"sample {bad.key}: {bad.reason}; another takes its place, and such samples are counted "
                    f"as bad_samples/{cause.replace(' ', '_')}",
                    stacklevel=2,
                )

    def figures(self) -> dict[str, int]:
        """The counts of all processes by cause, those that are not zero; all processes call this together.

        Raises UserError where more than `config.data.most_bad` of the samples were bad.
        """
        counts = self._counts
        if jax.process_count() > 1:
            from jax.experimental.multihost_utils import process_allgather

            first = self._pipeline.readers[0].rows[0]
            counts = add_up(np.asarray(process_allgather(np.append(first, counts))))
        found = {f"bad_samples/{cause.replace(' ', '_')}": int(n) for cause, n in zip(CAUSES, counts, strict=True) if n}
        share = counts.sum() / max(self._seen, 1)
        if self._seen >= ENOUGH and share > self._config.data.most_bad:
            causes = ", ".join(f"{name.split('/')[1]} {number:,}" for name, number in found.items())
            raise UserError(
                f"{share:.1%} of the samples cannot be used ({causes}), more than config.data.most_bad "
                f"{self._config.data.most_bad:.1%}; `clip-jax data inspect` lists them"
            )
        return found


def add_up(gathered: Int64[np.ndarray, "p columns"]) -> Int64[np.ndarray, " causes"]:
    """The counts of all processes, given of each the first of its rows of a batch and its counts.

    Those that share rows, as where the tensor axis crosses processes, count the same samples.
    """
    _, distinct = np.unique(gathered[:, 0], return_index=True)
    return gathered[distinct, 1:].sum(axis=0)
