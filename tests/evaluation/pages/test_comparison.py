"""The page of results: what stands on it is what the records hold, and a browser needs nothing else to show it."""

import base64
import math
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from support.html_page import HtmlPage

from clip_jax.errors import UserError
from clip_jax.evaluation.pages.comparison import write_page
from clip_jax.evaluation.record import Record, read_record, write_record

MINUS, ABSENT = "\N{MINUS SIGN}", "\N{EN DASH}"
SVG = "{http://www.w3.org/2000/svg}"
EVIL = '<script>alert("x")</script> & $$ $x^2$ \x1b "quoted" \'single\' 犬'


def zero_shot(model: str, dataset: str, figure: float, **changes) -> Record:
    """A result with all that zero-shot may have; its classes' figures rise from 0 to 1."""
    classes = changes.pop("classes", 4)
    names = [f"kind {i}" for i in range(classes)]
    details = {
        "classes": classes,
        "templates": ["a {}.", "the {}."],
        "per_class": {name: i / (classes - 1) for i, name in enumerate(names)},
        "class_sizes": dict.fromkeys(names, 25),
        "confusions": [["kind 0", "kind 3", 17], ["kind 1", "kind 2", 8]],
        "reliability": [[0.3, 0.2, 40], [0.9, 0.8, 60]],
        "wording": {
            "by_template": {"a {}.": figure - 0.031, "the {}.": figure - 0.052},
            "embedding_ensemble": figure,
            "probability_ensemble": figure - 0.013,
        },
    }
    made = Record(
        task="zero-shot",
        model=model,
        dataset=dataset,
        data=f"tar:{dataset}",
        metric="accuracy",
        figures={"accuracy": figure, "top1": figure, "calibration_error": 0.043},
        images=25 * classes,
        interval=(figure - 0.02, figure + 0.02),
        chance=1 / classes,
        details=details,
    )
    return replace(made, **changes)


def retrieval(model: str, recall: float) -> Record:
    figures = {
        f"{way}_{name}": value
        for way in ("image_to_text", "text_to_image")
        for name, value in (("recall_at_1", recall), ("recall_at_5", 0.8), ("recall_at_10", 0.9), ("median_rank", 2.5))
    }
    return Record(
        "retrieval",
        model,
        "flickr30k",
        "tar:x",
        "mean_recall_at_1",
        {"mean_recall_at_1": recall, **figures},
        1000,
        chance=0.0002,
        details={"captions": 5000, "prefix": "a photo of ", "intervals": {"image_to_text_recall_at_1": [0.456, 0.512]}},
    )


def linear_probe(model: str) -> Record:
    details = {
        "search": [[1e-6, 0.5], [0.316, 0.7], [1.0, 0.6], [1e6, 0.2]],
        "strength": 0.316,
        "train_images": 800,
        "validation_images": 200,
        "zero_shot": None,
    }
    return Record("linear-probe", model, "cifar10", "x", "accuracy", {"accuracy": 0.713}, 500, details=details)


def few_shot(model: str, dataset: str, seeds: int = 3) -> Record:
    mean = [0.2, 0.3, 0.4, 0.5, 0.6]
    details = {
        "shots": [1, 2, 4, 8, 16],
        "mean": mean,
        "error": [0.01] * 5 if seeds > 1 else [math.nan] * 5,
        "seeds": seeds,
        "zero_shot": 0.45,
    }
    return Record("few-shot", model, dataset, "x", "accuracy", {"accuracy": 0.6, "shots_1": 0.2}, 500, details=details)


def robustness(model: str, baselines: int) -> Record:
    shifts = {
        "imagenet_v2": {"figure": 0.561, "interval": [0.55, 0.57], "base": 0.632},
        "imagenet_a": {"figure": 0.316, "interval": [0.3, 0.33], "base": 0.791},
    }
    details = {"shifts": shifts, "baselines": [[0.5, 0.2, "AlexNet"], [0.7, 0.4, "ResNet-50"]][:baselines]}
    figures = {"accuracy": 0.632, "mean_of_shifts": 0.4385} | ({"effective_robustness": 0.0531} if baselines else {})
    return Record("robustness", model, "imagenet", "x", "accuracy", figures, 50000, details=details)


def page(records: list[Record], folder: Path) -> HtmlPage:
    write_page(records, folder / "page.html")
    return HtmlPage((folder / "page.html").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def everything(tmp_path_factory) -> str:
    """Two models, every task, datasets of several groups, some results missing."""
    folder = tmp_path_factory.mktemp("page") / "deeper"
    one, two = "openai/ViT-B-32", "runs/mine"
    published = {"paper": 0.632, "open_clip": 0.6332}
    records = [
        zero_shot(one, "food101", 0.8415, published={"paper": 0.844}),
        zero_shot(two, "food101", 0.2),
        zero_shot(one, "mnist", 0.311),
        zero_shot(two, "mnist", 0.9, left_out=3, bad=(("a.jpg", "it ends early"), ("b.jpg", "it has no label"))),
        zero_shot(one, "imagenet", 0.6412, published=published, classes=60),
        zero_shot(one, "imagenet_r", 0.69),
        zero_shot(two, "my data", 0.5),
        retrieval(one, 0.484),
        linear_probe(one),
        linear_probe(two),
        few_shot(one, "cifar10"),
        few_shot(one, "cifar100", seeds=1),
        robustness(one, 2),
        robustness(two, 0),
    ]
    write_page(records, folder / "page.html")
    assert [file.name for file in folder.iterdir()] == ["page.html"]
    return (folder / "page.html").read_text(encoding="utf-8")


def test_the_page_needs_nothing_else(everything):
    assert everything.startswith("<!DOCTYPE html>")
    for tag, attributes in HtmlPage(everything).elements:
        for name in ("src", "href", "srcset", "data", "action"):
            assert (attributes.get(name) or "data:").startswith("data:"), tag
        assert tag not in ("script", "iframe", "object", "embed")
    outside = re.sub(r"base64,[A-Za-z0-9+/=]+", "", everything)
    assert not re.search(r"https?:|//\w|@import|url\(", outside)


def test_every_task_has_its_section(everything):
    shown = HtmlPage(everything)
    sections = {"figures", "datasets", "zero-shot", "retrieval", "linear-probe", "few-shot", "robustness", "left-out"}
    assert shown.ids() == sections
    assert "2 models on 8 datasets" in shown.words
    assert len(shown.all("details")) == 5


def test_every_plot_is_an_svg_that_is_titled_described_and_explained(everything):
    images = HtmlPage(everything).all("img")
    # Dots of the paper's, of the shifts there is one; differences; five datasets with two each; few-shot and their
    # average, dots of them; the probe; robustness.
    assert len(images) == 1 + 1 + 5 * 2 + 3 + 1 + 1 + 1
    figures = re.findall(r"<figure>(.*?)</figure>", everything, re.DOTALL)
    assert len(figures) == len(images)
    for figure in figures:
        assert re.fullmatch(r"<figcaption>.+</figcaption><img [^>]+><p>.{20,}</p>", figure, re.DOTALL)
    for image in images:
        assert len(image["alt"] or "") > 20
        head, _, content = (image["src"] or "").partition(",")
        assert head == "data:image/svg+xml;base64"
        drawn = ElementTree.fromstring(base64.b64decode(content, validate=True))
        assert drawn.tag == f"{SVG}svg"
        assert len(list(drawn.iter(f"{SVG}text"))) > 4  # ticks, labels of the axes, the legend


def test_main_figures(everything):
    shown = HtmlPage(everything)
    assert shown.row("Food-101") == [
        "Food-101|accuracy, 100 images",
        "84.2|82.2 to 86.2",
        f"84.4|{MINUS}0.2",
        ABSENT,
        "20.0|18.0 to 22.0",
        "25.0",
    ]
    assert shown.row("ImageNet|")[1:] == ["64.1|62.1 to 66.1", "63.2|+0.9", "63.3|+0.8", ABSENT, "1.7"]
    # Of the paper's the second model has Food-101 and MNIST: (84.15 + 31.1) / 2 and (20 + 90) / 2.
    assert shown.row("average")[:2] == ["average|of 2 datasets", "57.6|"]
    assert shown.row("average")[4] == "55.0|"
    assert shown.row("Flickr30k")[-1] == "0.02"
    heads = [row[0] for row in shown.tables[0] if len(row) == 1]
    assert heads == [
        "Zero-shot, the paper's datasets",
        "Zero-shot, shifts of ImageNet",
        "Zero-shot, known limits",
        "Zero-shot, other data",
        "Retrieval",
        "Linear probe",
        "Few-shot probe",
        "Robustness",
    ]


def test_the_best_of_a_row_is_marked(tmp_path):
    pair = [zero_shot("a", "mnist", 0.7), zero_shot("b", "mnist", 0.8), zero_shot("a", "food101", 0.5)]
    best = [cell for cell in page(pair, tmp_path).all("td") if "best" in (cell.get("class") or "")]
    assert len(best) == 2  # MNIST stands among the paper's and among the limits; Food-101 has one result
    same = [zero_shot("a", "food101", 0.70001), zero_shot("b", "food101", 0.70002)]
    best = [cell for cell in page(same, tmp_path).all("td") if "best" in (cell.get("class") or "")]
    assert len(best) == 2  # both are shown as 70.0


def test_details_of_tasks(everything):
    shown = HtmlPage(everything)
    flickr = next(row for table in shown.tables[1:] for row in table if row[0].startswith("Flickr30k"))
    assert flickr[1:5] == ["48.4|45.6 to 51.2", "80.0|", "90.0|", "2.5|"]
    assert "λ = 0.316, chosen on 200 images; 71.3% on the test images after a fit to 1,000" in shown.words
    assert "45.0%, zero-shot, is reached at 8 images of each class" in shown.words
    assert shown.row("ImageNet-A") == [
        "ImageNet-A",
        "31.6|30.0 to 33.0",
        "79.1",
        f"{MINUS}47.5",
        "31.6|30.0 to 33.0",
        "79.1",
        f"{MINUS}47.5",
    ]
    assert shown.row("effective robustness")[1:] == ["+5.3", "", "", ABSENT, "", ""]
    assert "AlexNet and ResNet-50" in shown.words


def test_details_of_a_dataset(tmp_path):
    shown = page([zero_shot("runs/mine", "eurosat", 0.6)], tmp_path)
    assert shown.row("kind 0") == ["kind 0", "25", "0.0"]
    assert shown.row("kind 2") == ["kind 2", "25", "66.7"]
    assert ["kind 0", "kind 3", "17 of 25"] in shown.tables[-1]
    assert shown.row("all, averaged as embeddings")[1] == "60.0"
    assert shown.row("all, averaged as probabilities")[1] == "58.7"
    assert shown.row("the {}.")[1] == "54.8"
    assert "54.8% to 56.9% alone" in shown.words
    assert "Expected calibration error: 4.3%" in shown.words
    bars = [bar["style"] or "" for bar in shown.all("span") if bar.get("class") == "bar"]
    assert [bar.partition(";")[0] for bar in bars] == ["width:100%", "width:67%", "width:33%", "width:0%"]
    assert "open" in shown.all("details")[0]
    assert "Every image could be used." in shown.words


def test_of_many_classes_the_best_and_the_worst(everything):
    shown = HtmlPage(everything)
    assert "The 15 best and the 15 worst of 60 classes" in shown.words
    heads = [row[0] for table in shown.tables for row in table if row[0].startswith("kind") and row[1] == "25"]
    assert [head for head in heads if int(head.split()[1]) > 3] == [
        f"kind {i}" for i in [*range(59, 44, -1), *range(14, 3, -1)]
    ]


def test_images_that_were_left_out_are_told(everything):
    shown = HtmlPage(everything)
    assert "3 images could not be used" in shown.words
    assert "3 of 103 of MNIST (zero-shot, runs/mine)" in shown.words
    assert shown.tables[-1][1:] == [["a.jpg", "it ends early", "MNIST"], ["b.jpg", "it has no label", "MNIST"]]


def test_zero_shot_is_set_against_probes_of_several_datasets(tmp_path):
    records = [
        replace(linear_probe(model), dataset=name, details=linear_probe(model).details | {"zero_shot": figure})
        for model, figures in (("a", (0.613, 0.703)), ("b", (0.513, 0.613)))
        for name, figure in zip(("cifar10", "mnist"), figures, strict=True)
    ]
    shown = page(records, tmp_path)
    # The probes have 71.3 %: 10 and 1 points more, and 20 and 10.
    assert f"In points of percent: a: {MINUS}5.5 on average; b: {MINUS}15.0 on average." in shown.words
    alt = f"CIFAR-10 a: {MINUS}10.0; b: {MINUS}20.0; MNIST a: {MINUS}1.0; b: {MINUS}10.0"
    (drawn,) = [one for one in shown.all("img") if one["alt"] == alt]
    assert {"CIFAR-10", "MNIST", "a", "b"} <= set(svg_texts(drawn["src"] or ""))
    assert "In points of percent" not in page(records[:1], tmp_path).words


def test_where_data_are_others_is_told_once(tmp_path):
    told = ("There are 100 images here; the published test set has 10,000.", "A <note>.")
    shown = page([zero_shot("a", "mnist", 0.5, remarks=told), zero_shot("b", "mnist", 0.5, remarks=told)], tmp_path)
    assert shown.words.count(told[0]) == 1
    assert "A <note>." in shown.words
    assert "remarks" in shown.ids()


def test_names_are_text_not_markup(tmp_path):
    records = []
    for model in (EVIL, "other"):
        for dataset in (EVIL, "mnist"):
            made = zero_shot(model, dataset, 0.5, published={EVIL: 0.4}, left_out=1, bad=((EVIL, EVIL),))
            words = {EVIL: 0.3, "a {}": 0.4}
            changed = {"per_class": {EVIL: 0.5}, "class_sizes": {EVIL: 9}, "confusions": [[EVIL, EVIL, 3]]}
            wording = made.details["wording"] | {"by_template": words}
            records.append(replace(made, details=made.details | changed | {"wording": wording}))
        records += [few_shot(model, EVIL), replace(robustness(model, 2), dataset=EVIL)]
    shown = page(records, tmp_path)
    assert not shown.all("script")
    assert shown.words.count(EVIL) > 20
    for image in shown.all("img"):
        drawn = ElementTree.fromstring(base64.b64decode((image["src"] or "").partition(",")[2]))
        assert not list(drawn.iter(f"{SVG}script"))
    texts = "".join(text for image in shown.all("img") for text in svg_texts(image["src"] or ""))
    assert "$x^2$" in texts  # no formula


def svg_texts(source: str) -> list[str]:
    drawn = ElementTree.fromstring(base64.b64decode(source.partition(",")[2]))
    return ["".join(text.itertext()) for text in drawn.iter(f"{SVG}text")]


def test_records_from_files_look_the_same(tmp_path):
    records = [zero_shot("a", "mnist", 0.5), few_shot("a", "mnist"), robustness("a", 2), linear_probe("a")]
    for number, record in enumerate(records):
        write_record(tmp_path / f"{number}.json", record)
    again = [read_record(tmp_path / f"{number}.json") for number in range(len(records))]
    assert page(again, tmp_path).tables == page(records, tmp_path).tables


def test_results_of_several_labels_and_of_no_details(tmp_path):
    made = zero_shot("a", "voc2007", 0.8, metric="map_11_point", figures={"map_11_point": 0.8}, chance=None)
    details = {name: made.details[name] for name in ("per_class", "class_sizes", "templates")}
    shown = page([replace(made, details=details), zero_shot("a", "mine", 0.5, details={})], tmp_path)
    assert "average precision" in shown.words
    assert "“a {}.”, “the {}.”" in shown.words
    assert shown.row("Pascal VOC 2007") == ["Pascal VOC 2007|11-point mAP, 100 images", "80.0|78.0 to 82.0", ABSENT]


def test_what_cannot_be_shown(tmp_path):
    with pytest.raises(UserError, match="there are no results to show"):
        write_page([], tmp_path / "page.html")
    twice = [zero_shot("a", "mnist", 0.5), zero_shot("a", "mnist", 0.6)]
    with pytest.raises(UserError, match="two results of zero-shot of a on mnist"):
        write_page(twice, tmp_path / "page.html")
    assert not list(tmp_path.iterdir())


def test_a_page_is_written_whole_or_not_at_all(tmp_path):
    (tmp_path / "taken").mkdir()
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "taken", tmp_path / "file" / "page.html"):
        with pytest.raises(UserError, match=r"^cannot write .+: (Is a directory|.+ is not a folder)$"):
            write_page([linear_probe("a")], path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["file", "taken"]


def test_matplotlib_is_imported_only_to_draw():
    code = "import sys, clip_jax.evaluation.pages.comparison; print('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
