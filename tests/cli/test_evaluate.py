"""`clip-jax evaluate` on data that is not all well."""

import json

import numpy as np
import pytest
from PIL import Image

from clip_jax.cli.main import main
from clip_jax.clip import create, save


@pytest.mark.filterwarnings("default")  # the command line prints it
def test_images_that_were_left_out_are_told(tmp_path, capsys):
    save(create("tiny"), tmp_path / "model")
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        folder = tmp_path / "data" / name
        folder.mkdir(parents=True)
        Image.fromarray(rng.integers(0, 256, (60, 50, 3), dtype=np.uint8)).save(folder / "a.png")
    (tmp_path / "data/dog/b.png").write_bytes((tmp_path / "data/dog/a.png").read_bytes()[:500])
    written = tmp_path / "result.json"
    arguments = ["--model", str(tmp_path / "model"), "--data", str(tmp_path / "data"), "--json", str(written)]
    main(["evaluate", "zero-shot", *arguments])
    result = json.loads(written.read_text())
    assert (result["images"], result["left_out"]) == (2, 1)
    shown = capsys.readouterr()
    assert "2 images, 2 classes" in shown.out
    assert "left out: 1 that cannot be used, the first is dog/b.png" in shown.out
    assert "warning: of 3 images 1 cannot be used, the first is dog/b.png: image bytes is corrupt" in shown.err


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny"
    save(create("tiny"), folder)
    return folder


@pytest.fixture
def evaluate(model, tmp_path):
    """Runs a task on the tiny model, and gives what it wrote as JSON."""

    def run(task: str, *arguments: str) -> dict:
        written = tmp_path / "result.json"
        fixed = ["--model", str(model), "--cache", str(tmp_path / "cache"), "--json", str(written)]
        main(["evaluate", task, *fixed, *arguments])
        return json.loads(written.read_text())

    return run


SEEN, PROBE, TRAIN = "scenes:held_out?images=48", "scenes:probe?images=96", "scenes:train?images=12"


def test_zero_shot_with_everything(evaluate, tmp_path, capsys):
    (tmp_path / "templates.txt").write_text("a {c}.\nthe {}.\n")
    page = tmp_path / "page.html"
    result = evaluate(
        "zero-shot",
        "--data",
        SEEN,
        "--templates",
        str(tmp_path / "templates.txt"),
        "--template",
        "one {}.",
        "--per-class",
        "--per-template",
        "--html",
        str(page),
    )
    assert result["templates"] == ["one {}.", "a {}.", "the {}."]
    assert set(result["wording"]["by_template"]) == {"one {}.", "a {}.", "the {}."}
    assert result["images"] == sum(result["class_sizes"].values()) == 48
    low, high = result["interval"]
    assert low <= result["accuracy"] == result["top1"] <= high
    shown = capsys.readouterr().out
    for words in ("48 images, 24 classes, chance 4.2%", "all of them, averaged as embeddings", f"page: {page}"):
        assert words in shown
    assert page.stat().st_size > 1000


def test_retrieval(evaluate, capsys):
    result = evaluate("retrieval", "--data", TRAIN)
    assert result["images"] == 12
    assert result["captions"] > 12
    assert 0 <= result["image_to_text_recall_at_1"] <= result["image_to_text_recall_at_10"] <= 1
    assert "text_to_image_median_rank" in capsys.readouterr().out


def test_probes(evaluate, capsys):
    result = evaluate("linear-probe", "--train", PROBE, "--data", SEEN)
    assert result["strength"] in [one[0] for one in result["search"]]
    assert result["accuracy"] > 2 / 24  # even random features tell colours
    assert "scikit-learn's C" in capsys.readouterr().out
    result = evaluate("few-shot", "--train", PROBE, "--data", SEEN, "--shots", "1,2", "--seeds", "2")
    assert (result["shots"], result["seeds"], len(result["mean"])) == ([1, 2], 2, 2)
    assert result["zero_shot"] == evaluate("zero-shot", "--data", SEEN)["accuracy"]


def test_robustness(evaluate):
    shifts = ["--shift", "same=scenes:held_out?images=24", "--shift", f"all={SEEN}"]
    result = evaluate("robustness", "--data", SEEN, *shifts)
    assert result["shifts"]["all"]["figure"] == result["shifts"]["all"]["base"] == result["accuracy"]
    assert result["mean_of_shifts"] == pytest.approx((result["shift_same"] + result["shift_all"]) / 2)


def test_a_suite_goes_on_where_it_was(model, tmp_path, capsys):
    other = tmp_path / "other"
    save(create("tiny", seed=1), other)
    arguments = ["evaluate", "suite", "--model", str(model), "--out", str(tmp_path / "out"), "--no-cache"]
    main([*arguments, "--data", f"seen={SEEN}"])
    assert "[1/1]" in capsys.readouterr().out
    arguments += ["--model", str(other), "--data", f"seen={SEEN}", "--data", "more=scenes:held_out?images=24"]
    main(arguments)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("[")]
    assert [("kept" in line) for line in lines] == [True, False, False, False]
    results = json.loads((tmp_path / "out/results.json").read_text())["results"]
    assert [(one["model"], one["dataset"]) for one in results] == [
        (str(name), data) for name in (model, other) for data in ("seen", "more")
    ]
    assert (tmp_path / "out/report.html").is_file()
    save(create("tiny", seed=2), other)  # another model under the same name
    main(arguments)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("[")]
    assert [("kept" in line) for line in lines] == [True, True, False, False]


def test_a_suite_names_what_failed_and_goes_on(model, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    arguments = ["--data", f"bad=folder:{tmp_path}/empty", "--data", f"seen={SEEN}", "--no-cache"]
    with pytest.raises(SystemExit) as ended:
        main(["evaluate", "suite", "--model", str(model), "--out", str(tmp_path / "out"), *arguments])
    assert ended.value.code == 2
    shown = capsys.readouterr()
    assert "1 of 2 evaluations failed, the first is zero-shot of bad: " in shown.err
    assert len(json.loads((tmp_path / "out/results.json").read_text())["results"]) == 1


def test_a_suite_finds_its_data(model, tmp_path, capsys):
    rng = np.random.default_rng(0)
    names = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    for number, name in enumerate(names):
        folder = tmp_path / "data/cifar10/test" / name
        folder.mkdir(parents=True)
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    arguments = ["--datasets", "cifar10,cifar100", "--root", str(tmp_path / "data"), "--out", str(tmp_path / "out")]
    main(["evaluate", "suite", "--model", str(model), "--no-cache", *arguments])
    shown = capsys.readouterr().out
    assert "no data found, left out: cifar100" in shown
    assert "zero-shot of cifar10: " in shown
    (record,) = json.loads((tmp_path / "out/results.json").read_text())["results"]
    assert (record["metric"], record["images"], record["chance"]) == ("accuracy", 10, 0.1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["zero-shots"], "did you mean 'zero-shot'"),
        (["zero-shot", "--data", TRAIN], "this data has no labels"),
        (["zero-shot", "--data", SEEN, "--dataset", "food10"], "did you mean 'food101'"),
        (["zero-shot", "--data", SEEN, "--dataset", "cifar10"], "must have each class of cifar10 once"),
        (["zero-shot", "--data", SEEN, "--template", "a star"], "has no {}"),
        (["zero-shot", "--data", SEEN, "--metric", "acc"], "there is no metric 'acc'"),
        (["zero-shot", "--data", SEEN, "--metric", "roc_auc"], "ROC AUC is of two classes"),
        (["zero-shot", "--data", SEEN, "--batch-size", "0"], "batch_size is 0"),
        (["retrieval", "--data", TRAIN, "--dataset", "cifar10"], "cifar10 is for classification"),
        (
            ["linear-probe", "--train", PROBE, "--data", SEEN, "--metric", "map_11_point"],
            "does not fit images with one",
        ),
        (["linear-probe", "--train", PROBE, "--data", SEEN, "--seed", "-1"], "--seed is -1"),
        (["robustness", "--data", SEEN, "--shift", f"x={SEEN}", "--metric", "roc_auc"], "--metric"),
        (["linear-probe", "--train", TRAIN, "--data", SEEN], "this data has no labels"),
        (["few-shot", "--train", PROBE, "--data", SEEN, "--shots", "0"], "are not numbers of images"),
        (["robustness", "--data", SEEN, "--shift", "x"], "is not NAME=SPEC"),
        (["robustness", "--data", SEEN, "--shift", "x=a", "--shift", "x=b"], "--shift is given twice for 'x'"),
        (["suite", "--data", "x=a", "--data", "x=b", "--out", "x"], "--data is given twice for 'x'"),
        (["suite", "--data", f"x={SEEN}", "--tasks", "few-shots", "--out", "x"], "did you mean 'few-shot'"),
        (["suite", "--data", f"x={SEEN}", "--tasks", "few-shot", "--out", "x"], "no training data found"),
        (["suite", "--data", f"x={SEEN}", "--out", "/proc/none"], "cannot write to /proc/none"),
        (["suite", "--datasets", "papers", "--out", "x"], "there is no dataset 'papers'; did you mean 'paper'"),
        (["suite", "--datasets", "food101", "--out", "x"], "no data of food101 found; --root FOLDER"),
    ],
)
def test_mistakes_are_one_line(model, tmp_path, capsys, arguments, message):
    task, *rest = arguments
    with pytest.raises(SystemExit) as ended:
        main(["evaluate", task, "--model", str(model), "--cache", str(tmp_path), *rest])
    assert ended.value.code == 2
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert told.startswith("clip-jax: ")
    assert message in told


@pytest.mark.filterwarnings("default")  # the command line prints it
def test_what_is_left_out_of_a_probe_is_told(evaluate, tmp_path, capsys):
    rng = np.random.default_rng(0)
    for split, rows in (("train", ["cat"] * 4 + ["dog"] * 4 + [""]), ("test", ["cat", "dog", "", "dog"])):
        lines = ["image,label"]
        for number, label in enumerate(rows):
            Image.fromarray(rng.integers(0, 256, (30, 30, 3), dtype=np.uint8)).save(tmp_path / f"{split}{number}.png")
            lines.append(f"{split}{number}.png,{label}")
        (tmp_path / f"{split}.csv").write_text("\n".join(lines))
    (tmp_path / "train0.png").write_bytes(b"nothing")
    result = evaluate("linear-probe", "--train", f"{tmp_path}/train.csv", "--data", f"{tmp_path}/test.csv")
    assert (result["images"], result["left_out"]) == (3, 3)
    assert [key for key, _ in result["bad"]] == ["train: train0.png#1", "train: train8.png#9", "test: test2.png#3"]
    assert "left out: 3 that cannot be used, the first is train: train0.png#1" in capsys.readouterr().out
