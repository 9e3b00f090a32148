"""The JSON of an evaluation, in which a record's fields, its figures and its details are on one level."""

import json
from dataclasses import fields

import pytest

from clip_jax.cli.main import main
from clip_jax.clip import create, save
from clip_jax.evaluation.record import Record

SEEN, PROBE = "scenes:held_out?images=48", "scenes:probe?images=96"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model, and what it makes of the images, which the tasks share."""
    folder = tmp_path_factory.mktemp("evaluations")
    save(create("tiny"), folder / "model")
    return folder


@pytest.mark.parametrize(
    ("task", "arguments"),
    [
        ("zero-shot", ["--data", SEEN, "--per-class", "--per-template"]),
        ("retrieval", ["--data", "scenes:train?images=12"]),
        ("linear-probe", ["--train", PROBE, "--data", SEEN]),
        ("few-shot", ["--train", PROBE, "--data", SEEN, "--shots", "1,2", "--seeds", "2"]),
        ("robustness", ["--data", SEEN, "--shift", f"same={SEEN}"]),
    ],
)
def test_no_name_stands_for_two_things(folder, task, arguments):
    written = folder / "result.json"
    fixed = ["--model", str(folder / "model"), "--cache", str(folder / "cache"), "--json", str(written)]
    main(["evaluate", task, *fixed, *arguments])
    result = json.loads(written.read_text())
    names = [field.name for field in fields(Record)] + [*result["figures"], *result["details"]]
    assert sorted(result) == sorted(names)
