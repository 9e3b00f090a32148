"""Tables of samples in memory."""

from collections.abc import Sequence

from clip_jax.data.table import BadSample, Indices, Sample


class ListTable:
    """`samples` as a table; `asked` notes which were read together."""

    def __init__(self, samples: Sequence[Sample | BadSample], is_remote: bool = False, parts: int = 1) -> None:
        self.samples = list(samples)
        self.is_remote = is_remote
        self.parts = {f"{part}.tar": len(self.samples[part::parts]) for part in range(parts)}
        self.class_names: tuple[str, ...] = ()
        self.asked: list[list[int]] = []

    def __len__(self) -> int:
        return len(self.samples)

    def keys(self, indices: Indices) -> list[str]:
        return [self.samples[int(i)].key for i in indices]

    def read(self, indices: Indices) -> list[Sample | BadSample]:
        self.asked.append([int(i) for i in indices])
        return [self.samples[int(i)] for i in indices]
