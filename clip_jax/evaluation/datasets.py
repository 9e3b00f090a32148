"""The datasets of a suite: their names, and where the data of each lie for testing and for training."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from clip_jax.errors import UserError
from clip_jax.evaluation.benchmarks import Benchmark, get_benchmark, list_benchmarks
from clip_jax.schema import nearest

GROUPS = ("paper", "shifts", "limits", "retrieval")
TRAIN, VALIDATION = ("train", "training"), ("validation", "val", "valid")


@dataclass(frozen=True)
class Dataset:
    """Data specs under a name: `data` to test on, the others for probes where they are known.

    `benchmark` is the one that the dataset is, if it is one.
    """

    name: str
    data: str
    train: str | None = None
    validation: str | None = None
    benchmark: Benchmark | None = None

    @property
    def is_retrieval(self) -> bool:
        """Whether the benchmark asks for captions rather than classes."""
        return self.benchmark is not None and self.benchmark.metric == "mean_recall_at_1"


@dataclass(frozen=True)
class Places:
    """Where the user says that the data of datasets are, by their names."""

    data: Mapping[str, str]
    train: Mapping[str, str]
    validation: Mapping[str, str]


def chosen(names: Sequence[str]) -> list[str]:
    """Names of datasets, groups replaced by what is in them. Raises UserError where one is neither."""
    found: dict[str, None] = {}
    known = list_benchmarks()
    for name in names:
        if name not in GROUPS and name not in known:
            raise UserError(f"there is no dataset '{name}'; {nearest(name, [*GROUPS, *known])}")
        found |= dict.fromkeys(list_benchmarks(name) if name in GROUPS else [name])
    return list(found)


def find_data(names: Sequence[str], given: Places, root: Path | None) -> tuple[list[Dataset], list[str]]:
    """The datasets whose data are known, and the names of those whose are not.

    What the user says comes first; where that is a dataset's test data, its other data are what the user says, too.
    The rest is looked for below `root`: in NAME/test or NAME, NAME/train and NAME/validation, or the like, under the
    benchmark's name or that of CLIP_benchmark's repository; and then as prepared by tfds there. Raises UserError for
    training data of a dataset that is not tested on.
    """
    benchmarks = set(list_benchmarks())
    found, missing = [], []
    for name in dict.fromkeys([*given.data, *names]):
        benchmark = get_benchmark(name) if name in benchmarks else None
        # What lies below the root is of a piece: its training images need not go with data from elsewhere.
        there = _below(root, benchmark) if root and benchmark and name not in given.data else {}
        specs = {part: getattr(given, part).get(name) or there.get(part) for part in ("data", "train", "validation")}
        if specs["data"]:
            found.append(Dataset(name, specs["data"], specs["train"], specs["validation"], benchmark))
        else:
            missing.append(name)
    for part in ("train", "validation"):
        if unknown := getattr(given, part).keys() - {*given.data, *names}:
            raise UserError(f"--{part} is given for '{min(unknown)}', which is not among the datasets of the suite")
    return found, missing


def _below(root: Path, benchmark: Benchmark) -> dict[str, str]:
    """The data specs of a benchmark's data below a folder; none where there are none."""
    repository = (benchmark.webdataset or "").rpartition("/")[2]
    for name in filter(None, (benchmark.name, repository, repository.removeprefix("wds_"))):
        home = root / name
        data = _first_folder(home, (benchmark.split, "test", *VALIDATION))
        if data is None and not _first_folder(home, TRAIN):  # no splits: a folder per class, or the tars themselves
            data = _first_folder(root, (name,))
        if data:
            other = [split for split in VALIDATION if home / split != data]
            parts = {"data": data, "train": _first_folder(home, TRAIN), "validation": _first_folder(home, other)}
            return {part: str(folder) for part, folder in parts.items() if folder}
    prepared = root / (benchmark.tfds or "").removeprefix("tfds:").partition("?")[0].partition("/")[0]
    if benchmark.tfds and any(one for depth in ("*", "*/*") for one in prepared.glob(f"{depth}/dataset_info.json")):
        spec = f"{benchmark.tfds}&data_dir={root}"
        splits = {"train": benchmark.train, "validation": benchmark.validation}
        others = {part: re.sub(r"(?<=[?&]split=)[^&]*", split, spec) for part, split in splits.items() if split}
        return {"data": spec, **others}
    return {}


def _first_folder(home: Path, names: Sequence[str]) -> Path | None:
    """The first folder below `home` that holds anything."""
    return next((home / name for name in names if (home / name).is_dir() and any((home / name).iterdir())), None)
