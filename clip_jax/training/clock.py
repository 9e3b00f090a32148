"""How fast a run goes, and how long it waits for its data."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import jax

from clip_jax.data.pipeline import Batch
from clip_jax.training.state import TrainState


class Clock:
    """Images a second and the share of time spent waiting for data, since the last time it was asked."""

    def __init__(self, batch_size: int) -> None:
        self._batch_size = batch_size
        self._since = time.monotonic()
        self._waited = 0.0
        self._step: int | None = None

    def waiting(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The batches, with the time that each takes to come counted."""
        while True:
            start = time.monotonic()
            batch = next(batches, None)
            if batch is None:
                return
            if self._step is None:  # rates begin once the first batch is there
                self._since, self._step = time.monotonic(), batch.step
            else:
                self._waited += time.monotonic() - start
            yield batch

    @contextmanager
    def paused(self, state: TrainState) -> Iterator[None]:
        """Time that does not count: evaluations and checkpoints. Updates under way are waited for first, and count."""
        jax.block_until_ready(state)
        start = time.monotonic()
        yield
        self._since += time.monotonic() - start

    def rates(self, step: int) -> dict[str, float]:
        """images_per_second and data_wait (a share of the time) since the last call, `step` updates being made."""
        now = time.monotonic()
        elapsed = max(now - self._since, 1e-9)
        images = (step - (self._step or 0)) * self._batch_size
        rates = {"images_per_second": images / elapsed, "data_wait": self._waited / elapsed}
        self._since, self._waited, self._step = now, 0.0, step
        return rates
