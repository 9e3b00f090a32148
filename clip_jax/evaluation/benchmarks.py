"""The paper's evaluation datasets and the shifts of ImageNet: what each asks, in which words, and what is published."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, TypeAlias

from clip_jax.errors import UserError
from clip_jax.evaluation import benchmark_tables
from clip_jax.evaluation.metrics import Metric, chance
from clip_jax.schema import nearest, parse

MainMetric: TypeAlias = Metric | Literal["mean_recall_at_1"]
"""What a benchmark is judged by; for retrieval the mean of both directions' recall at 1."""


@dataclass(frozen=True)
class Benchmark:
    """A dataset with the question that it puts to a model.

    `classes` has the names of each class, which may be several, in OpenAI's order, and `labels` what the data call it
    where that is another name. Data have orders of their own, so `match` finds classes by name. A class's prompts are
    all its names in all `templates`, each with one {}; the captions of retrieval go into the template likewise, and
    there are no classes. `template_sets` are templates by their number, the paper's and others. `imagenet` has the
    ImageNet classes that each class stands for, where they are not ImageNet's own 1,000.

    `samples` is the paper's test size, and `note` says where public data differ. `tfds` is a data spec, `train` and
    `validation` are the splits of it that probes learn from, `webdataset` a repository of tars on the Hugging Face hub,
    None where there is none. `published` are others' figures in percent by metric, by source (`paper`, or `open_clip`
    for what the released weights reach) and by model.

    Source: appendix A of the paper. OpenAI does not say how it used several names of a class.
    """

    name: str
    title: str
    metric: MainMetric
    split: str
    samples: int
    groups: tuple[str, ...]
    source: str
    classes: tuple[tuple[str, ...], ...]
    templates: tuple[str, ...]
    template_sets: dict[str, tuple[str, ...]]
    published: dict[str, dict[str, dict[str, float]]]
    labels: tuple[str, ...] = ()
    imagenet: tuple[tuple[int, ...], ...] = ()
    tfds: str | None = None
    train: str | None = None
    validation: str | None = None
    webdataset: str | None = None
    note: str = ""

    @property
    def chance(self) -> float | None:
        """What guessing reaches, from 0 to 1; None for mAP, where it depends on how frequent the classes are."""
        return chance(self.metric, len(self.classes) or self.samples)

    def figure(self, model: str, source: str = "paper", metric: str | None = None) -> float | None:
        """The published figure, in percent, of a model by its pretrained name; None where there is none."""
        models = self.published.get(metric or self.metric, {}).get(source, {})
        return models.get(model.removesuffix("-quickgelu"))  # another name of the same weights

    def match(self, class_names: Sequence[str]) -> tuple[int | None, ...]:
        """For each class of some data, which of `classes` it is; None for one that is not, as 800 of TFDS's ImageNet-R.

        Names are compared with `classes` and `labels`, without case, spaces and punctuation. Where they are numbers
        and these no names, they are indices, as ImageNet-V2's folders. Raises UserError where a class is missing or
        there twice.
        """
        names = [_bare(name) for name in class_names]
        if names == [_bare(one[0]) for one in self.classes]:  # before all else: two pairs of ImageNet's share a name
            return tuple(range(len(names)))
        known = self._known_names()
        if self.takes_numbers(class_names):
            known = {name: int(name) for name in names if int(name) < len(self.classes)}
        found = tuple(known.get(name) for name in names)
        for place, one in enumerate(self.classes):
            if (times := found.count(place)) != 1:
                other = f" (or '{self.labels[place]}')" if self.labels else ""
                raise UserError(
                    f"the data's class names must have each class of {self.name} once; "
                    f"'{one[0]}'{other} is {f'there {times} times' if times else 'missing'}"
                )
        return found

    def takes_numbers(self, class_names: Sequence[str]) -> bool:
        """Whether some data's class names are numbers, and no names, so that they are taken as places in `classes`."""
        names = [_bare(name) for name in class_names]
        return self._known_names().keys().isdisjoint(names) and all(name.isdecimal() for name in names)

    def _known_names(self) -> dict[str, int]:
        """The class that each bare name means, without names that mean several."""
        meant: dict[str, set[int]] = {}
        for place, names in enumerate(self.classes):
            for name in (*names, *self.labels[place : place + 1]):
                meant.setdefault(_bare(name), set()).add(place)
        return {name: places.pop() for name, places in meant.items() if len(places) == 1}


def list_benchmarks(group: str | None = None) -> list[str]:
    """The names of all benchmarks, or of those in a group, in the order of the paper.

    Groups are `paper`, its 27 datasets; `shifts`, of ImageNet; `limits`, and of these `counting`, `distance`,
    `fine-grained`, `digits`; and `retrieval`. Raises UserError for another one.
    """
    groups = {name: row["groups"].split(",") for name, row in benchmark_tables.datasets().items()}
    found = [name for name, its_groups in groups.items() if group is None or group in its_groups]
    if not found:
        known = {each for its_groups in groups.values() for each in its_groups}
        raise UserError(f"there is no group '{group}' of benchmarks; {nearest(str(group), known)}")
    return found


@lru_cache
def get_benchmark(name: str) -> Benchmark:
    """The benchmark of that name. Raises UserError for an unknown one, naming the nearest."""
    rows = benchmark_tables.datasets()
    if name not in rows:
        raise UserError(f"there is no benchmark '{name}'; {nearest(name, rows)}")
    row = rows[name]
    values = {key: row[key] for key in ("name", "title", "metric", "split", "note")}
    values |= {"samples": int(row["samples"]), "groups": row["groups"].split(",")}
    values |= {key: row[key] or None for key in ("tfds", "train", "validation", "webdataset")}
    values |= benchmark_tables.prompts(name) | {"published": benchmark_tables.published(name)}
    return parse(Benchmark, values, f"the benchmark {name}")


def _bare(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.casefold())
