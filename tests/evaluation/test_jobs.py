"""What a suite does: which data it finds, which jobs follow from them, and that its records are those of the tasks."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clip_jax.clip import create
from clip_jax.data.spec import open_table
from clip_jax.errors import UserError
from clip_jax.evaluation.benchmarks import get_benchmark, list_benchmarks
from clip_jax.evaluation.datasets import Dataset, Places, find_data
from clip_jax.evaluation.features import embed_table
from clip_jax.evaluation.jobs import TASKS, Job, Settings, jobs_of
from clip_jax.evaluation.probes.records import few_shot_record, linear_probe_record
from clip_jax.evaluation.question import ask
from clip_jax.evaluation.robustness import Baseline
from clip_jax.evaluation.suite import run_suite, slug
from clip_jax.evaluation.tasks import Subject

SEEN, PROBE = "scenes:held_out?images=48", "scenes:probe?images=96"
NOTHING = Places({}, {}, {})
SETTINGS = Settings(shots=(1, 2), seeds=2)


def put(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name / "cat").mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(folder / name / "cat/1.png")


def test_data_lie_below_the_root(tmp_path):
    put(tmp_path, "food101/test", "food101/train", "wds_vtab-dtd/test", "wds_vtab-dtd/train", "wds_vtab-dtd/val")
    put(tmp_path, "imagenet/val", "imagenet/train", "cars")
    (tmp_path / "oxford_flowers102/2.1.1").mkdir(parents=True)
    (tmp_path / "oxford_flowers102/2.1.1/dataset_info.json").write_text("{}")
    names = ["food101", "dtd", "imagenet", "cars", "flowers102", "pets"]
    found, missing = find_data(names, NOTHING, tmp_path)
    below = {
        one.name: [spec and spec.removeprefix(f"{tmp_path}/") for spec in (one.data, one.train, one.validation)]
        for one in found
    }
    assert below == {
        "food101": ["food101/test", "food101/train", None],
        "dtd": ["wds_vtab-dtd/test", "wds_vtab-dtd/train", "wds_vtab-dtd/val"],
        "imagenet": ["imagenet/val", "imagenet/train", None],  # what is tested on is no validation data
        "cars": ["cars", None, None],
        "flowers102": [
            f"tfds:oxford_flowers102?split={split}&data_dir={tmp_path}" for split in ("test", "train", "validation")
        ],
    }
    assert missing == ["pets"]


def test_training_images_are_not_taken_for_test_images(tmp_path):
    put(tmp_path, "food101/train")
    assert find_data(["food101"], NOTHING, tmp_path) == ([], ["food101"])


def test_what_the_user_says_comes_first(tmp_path):
    put(tmp_path, "food101/test", "food101/train")
    places = Places({"mine": "folder:a"}, {"mine": "folder:b", "food101": "folder:c"}, {})
    mine, food = find_data(["food101"], places, tmp_path)[0]
    assert (mine.data, mine.train, mine.benchmark) == ("folder:a", "folder:b", None)
    assert (food.data, food.train) == (f"{tmp_path}/food101/test", "folder:c")
    with pytest.raises(UserError, match="--train is given for 'other', which is not among the datasets"):
        find_data([], Places({"mine": "folder:a"}, {"other": "folder:b"}, {}), None)


@pytest.mark.parametrize("name", [name for name in list_benchmarks() if get_benchmark(name).train])
def test_probes_are_not_fitted_to_what_they_are_tested_on(name):
    benchmark = get_benchmark(name)
    tested = (benchmark.tfds or "").partition("split=")[2].partition("&")[0]
    assert tested
    assert {benchmark.train, benchmark.validation}.isdisjoint({tested, "test"})


def dataset(name: str, train: str | None = None) -> Dataset:
    return Dataset(name, f"folder:{name}", train, None, get_benchmark(name) if name in list_benchmarks() else None)


def test_the_jobs_of_datasets():
    several = [dataset("mine", "folder:t"), dataset("imagenet"), dataset("imagenet_a"), dataset("coco")]
    jobs, left_out = jobs_of(several)
    found = [(job.task, job.dataset.name) for job in jobs]
    assert found == [
        ("zero-shot", "mine"),
        ("zero-shot", "imagenet"),
        ("zero-shot", "imagenet_a"),
        ("retrieval", "coco"),
    ]
    assert left_out == []
    jobs, left_out = jobs_of(several, ["few-shot", "robustness"])
    assert [(job.task, job.dataset.name) for job in jobs] == [("few-shot", "mine"), ("robustness", "imagenet")]
    assert [shift.name for shift in jobs[1].shifts] == ["imagenet_a"]
    assert left_out == [f"few-shot of {name}: no training data found" for name in ("imagenet", "imagenet_a")]
    assert jobs_of(several, ["zero-shot"])[1] == ["coco: none of the tasks is for it"]
    needs = "robustness: needs imagenet and a shift of it"
    assert jobs_of(several[:1], ["robustness"]) == ([], [needs, "mine: none of the tasks is for it"])
    with pytest.raises(UserError, match="there is no task 'linear_probe'; did you mean 'linear-probe'"):
        jobs_of(several, ["linear_probe"])


@pytest.mark.slow  # compiles them all
def test_a_suite_does_every_task_and_keeps_it(tmp_path):
    clip = create("tiny")
    data = Dataset("seen", SEEN, PROBE)
    captioned = Dataset("captioned", "scenes:train?images=20")
    jobs = [Job(task, captioned if task == "retrieval" else data) for task in TASKS[:4]]
    jobs.append(Job("robustness", data, (Dataset("other", "scenes:held_out?images=30&seed=3"),)))

    def run(settings: Settings) -> dict:
        outcomes = run_suite(["m"], lambda _: clip, jobs, tmp_path / "out", settings, 48, tmp_path / "cache")
        return {outcome.job.task: outcome for outcome in outcomes}

    done = run(SETTINGS)
    assert [outcome.problem for outcome in done.values()] == [""] * 5
    assert json.loads((tmp_path / "out/m/few-shot/seen.json").read_text())["details"]["shots"] == [1, 2]

    # The same by hand.
    test, train = (embed_table(clip, open_table(spec), 48) for spec in (SEEN, PROBE))
    question, subject = ask(open_table(SEEN)), Subject(clip, "m", "seen", SEEN)
    probe = linear_probe_record(subject, question, train, None, test)
    assert done["linear-probe"].record.figures == probe.figures
    assert done["linear-probe"].record.details["search"] == probe.details["search"]
    assert done["linear-probe"].record.interval[0] < probe.figure < done["linear-probe"].record.interval[1]
    details = done["linear-probe"].record.details
    assert (details["train_images"], details["validation_images"]) == (72, 24)  # one of the four images of each class
    few = few_shot_record(subject, question, train, test, (1, 2), (0, 1))
    assert done["few-shot"].record.figures == few.figures
    zero = question.answer(clip, test)
    assert done["zero-shot"].record.figures["top1"] == zero.top(1) == probe.details["zero_shot"]
    truth = np.array([test.class_names.index(name) for name in np.array(zero.class_names)[zero.truth]])
    assert done["zero-shot"].record.figures["top1"] == np.mean(zero.ranking[:, 0] == truth)
    assert done["robustness"].record.figures["accuracy"] == zero.top(1)

    again = run(SETTINGS)
    assert all(outcome.seconds is None for outcome in again.values())
    assert [outcome.record for outcome in again.values()] == [outcome.record for outcome in done.values()]
    other = run(Settings(seed=1, shots=(1, 2), seeds=3, baselines=(Baseline("a", 0.5, 0.4),)))
    assert {task for task, outcome in other.items() if outcome.seconds is None} == {"zero-shot", "retrieval"}


def test_every_name_has_a_folder_of_its_own():
    names = ["openai/ViT-B-32", "openai_ViT-B-32", "/openai/ViT-B-32", "..", ".", "runs/a", "runs/b", "mine", "犬"]
    slugs = [slug(name) for name in names]
    assert len({*slugs}) == len(names)
    assert not any("/" in one or one in (".", "..") for one in slugs)
    assert slug("mine") == "mine"
