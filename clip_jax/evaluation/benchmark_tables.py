"""The files of assets/benchmarks as plain values; assets/README.md tells where they are from.

datasets.tsv has a line a benchmark. prompts/NAME.json has its words: `classes`, a list of names each, `templates` with
one {}, and where there are any `template_sets`, `labels` and `imagenet`. Subsets and variants of ImageNet have
`prompts_of` in their place. published.tsv has a line a published figure.
"""

import csv
import json
from functools import lru_cache
from importlib import resources
from typing import Any

ASSETS = resources.files("clip_jax") / "assets" / "benchmarks"


@lru_cache
def datasets() -> dict[str, dict[str, str]]:
    """The lines of datasets.tsv by name, in their order."""
    return {row["name"]: row for row in _lines("datasets.tsv")}


def prompts(name: str) -> dict[str, Any]:
    """The content of prompts/NAME.json, `prompts_of` and `template_sets` filled in."""
    record = json.loads((ASSETS / "prompts" / f"{name}.json").read_text(encoding="utf-8"))
    if original := record.pop("prompts_of", None):
        theirs = prompts(original)
        if "imagenet" in record:
            for words in ("classes", "labels"):
                theirs[words] = [theirs[words][index] for (index,) in record["imagenet"]]
        record = theirs | record
    templates = record["templates"]
    record["template_sets"] = {str(len(templates)): templates} | record.get("template_sets", {})
    return record


def published(name: str) -> dict[str, dict[str, dict[str, float]]]:
    """The figures of published.tsv for a benchmark, by metric, source and model."""
    figures: dict[str, dict[str, dict[str, float]]] = {}
    for row in _published_rows():
        if row["dataset"] == name:
            by_source = figures.setdefault(row["metric"], {})
            by_source.setdefault(row["source"], {})[row["model"]] = float(row["percent"])
    return figures


@lru_cache
def _published_rows() -> list[dict[str, str]]:
    return _lines("published.tsv")


def _lines(file: str) -> list[dict[str, str]]:
    text = (ASSETS / file).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE, restval=""))
