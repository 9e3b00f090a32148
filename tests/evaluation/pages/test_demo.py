import base64
import io
import re
import subprocess
import sys
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from support.html_page import HtmlPage
from support.made_up_story import story

from clip_jax.data.scenes import ScenesTable
from clip_jax.data.table import Sample, usable
from clip_jax.evaluation.pages.demo import DemoResults, write_report
from clip_jax.evaluation.zero_shot import ZeroShotResult

STORY_PLOTS = 6
EVIL = '<script>alert("x")</script> & $$ "quoted" \'single\''


def results(images: int = 48, wrong: int = 20) -> DemoResults:
    """Made-up results in which the first `wrong` held-out images are answered with the next class, ever less surely."""
    table = ScenesTable("held_out", images, image_size=32)
    samples, names = usable(table.read(range(images))), table.class_names
    truth = np.array([sample.label for sample in samples])
    answers = np.where(np.arange(images) < wrong, (truth + 1) % len(names), truth)
    sure = np.where(np.arange(images) < wrong, 0.9 - 0.01 * np.arange(images), 0.9)
    probabilities = np.repeat((1 - sure[:, None]) / (len(names) - 1), len(names), axis=1)
    probabilities[np.arange(images), answers] = sure
    held_out = ZeroShotResult(names, truth, probabilities.astype(np.float32))
    shown = list(range(0, 16, 2))
    metrics = [
        {"step": 10 * i, "loss": 4.0 / i, "logit_scale": 14.0 + i, "images_per_second": 100.0 * i, "batch_digest": "f0"}
        for i in range(1, 6)
    ]
    metrics[1]["eval/held_out/top1"], metrics[4]["eval/held_out/top1"] = 0.25, 0.5
    return DemoResults(
        metrics=metrics,
        train_samples=usable(ScenesTable("train", 12, image_size=32).read(range(12))),
        held_out=held_out,
        all_combinations=replace(held_out, class_names=(*names, *(f"other {i}" for i in range(40)))),
        held_out_samples=samples,
        probabilities=probabilities.astype(np.float32),
        similarity=np.eye(8, dtype=np.float32) * 0.5 - 0.125,
        similarity_samples=[samples[i] for i in shown],
        similarity_captions=[samples[i].captions[0] for i in shown],
        linear_probe_top1=0.875,
        story=story(),
        seconds=125.0,
        workdir="/tmp/my demo",
    )


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("report")
    write_report(results(), folder / "report.html")
    assert [file.name for file in folder.iterdir()] == ["report.html"]
    return (folder / "report.html").read_text(encoding="utf-8")


def test_the_page_needs_nothing_else(text):
    page = HtmlPage(text)
    assert text.startswith("<!DOCTYPE html>")
    for tag, attributes in page.elements:
        for name in ("src", "href", "srcset", "data", "action"):
            assert (attributes.get(name) or "data:").startswith("data:"), tag
        assert tag not in ("script", "iframe", "object", "embed")
    outside = re.sub(r"base64,[A-Za-z0-9+/=]+", "", text)
    assert not re.search(r"https?:|//\w|@import|url\(", outside)


def test_the_page_has_what_it_should(text):
    page = HtmlPage(text)
    assert {"figures", "samples", "curves", "similarity", "confusion", "mistakes", "next"} <= page.ids()
    assert {"story", "labels", "wording", "grain", "traits", "styles"} <= page.ids()
    # 28 of 48 are right; the median of 100 to 500 images/s.
    for words in ("58.3%", "87.5%", "4.2%", "2 min 5 s", "300", "50", "24 of the 64", "8 of 8 are", "20 of 48 images"):
        assert words in page.words
    for sample in results().train_samples:
        assert max(sample.captions, key=len) in page.words
    assert "--model '/tmp/my demo'" in page.words
    cells = [attributes for attributes in page.all("td") if "title" in attributes]
    assert len(cells) == 8 * 8 + 24 * 24 + 8 * 8  # similarities, combinations, shapes
    assert sum(attributes.get("class") == "own" for attributes in cells) == 8 + 24 + 8
    assert page.words.count("0.38") == 8  # 0.375, the diagonal
    assert len(page.all("figure")) == 3 + STORY_PLOTS


def test_every_image_decodes_and_is_described(text):
    images = HtmlPage(text).all("img")
    assert len(images) == 12 + 3 + 8 + 24 + 16 + STORY_PLOTS + 1 + 15
    assert all("alt" in image for image in images)
    assert sum(not image["alt"] for image in images) == 24  # beside the name of a class
    for image in images:
        head, _, content = (image["src"] or "").partition(",")
        raw = base64.b64decode(content, validate=True)
        if head == "data:image/svg+xml;base64":
            assert ElementTree.fromstring(raw).tag == "{http://www.w3.org/2000/svg}svg"
        else:
            with Image.open(io.BytesIO(raw)) as decoded:
                decoded.load()
                assert head == f"data:{decoded.get_format_mimetype()};base64"


def test_the_surest_mistakes_come_first(tmp_path):
    made = results(wrong=20)
    order = np.random.default_rng(0).permutation(48)
    shuffled = replace(
        made,
        held_out=ZeroShotResult(made.held_out.class_names, made.held_out.truth[order], made.held_out.scores[order]),
        held_out_samples=[made.held_out_samples[i] for i in order],
        probabilities=made.probabilities[order],
    )
    write_report(shuffled, tmp_path / "report.html")
    words = HtmlPage((tmp_path / "report.html").read_text(encoding="utf-8")).words
    sure = re.findall(r"answered ([a-z ]+), ([\d.]+)% sure", words)
    names = made.held_out.class_names
    assert sure == [(names[i + 1], f"{90 - i}.0") for i in range(16)]


def test_no_mistakes_and_no_evaluations(tmp_path):
    made = results(wrong=0)
    lines = [{k: v for k, v in line.items() if not k.startswith("eval/")} for line in made.metrics]
    write_report(replace(made, metrics=lines), tmp_path / "report.html")
    page = HtmlPage((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "all 48 held-out images are named correctly" in page.words
    assert len(page.all("figure")) == 2 + STORY_PLOTS
    write_report(replace(made, metrics=[]), tmp_path / "report.html")
    page = HtmlPage((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "curves" not in page.ids()
    assert len(page.all("figure")) == STORY_PLOTS


def test_captions_are_text_not_markup(tmp_path):
    made = results()
    image = io.BytesIO()
    Image.new("RGBA", (5, 9), "red").save(image, "PNG")
    evil = Sample("evil", image.getvalue(), (EVIL,))
    names = (EVIL, *made.held_out.class_names[1:])
    write_report(
        replace(
            made,
            train_samples=[evil],
            held_out=replace(made.held_out, class_names=names),
            similarity_captions=[EVIL, *made.similarity_captions[1:]],
            workdir=f"/tmp/{EVIL}",
        ),
        tmp_path / "report.html",
    )
    page = HtmlPage((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert not page.all("script")
    assert page.words.count(EVIL) >= 4  # the sample, the similarity's row, the confusion's row and column
    assert EVIL in [image["alt"] for image in page.all("img")]
    assert "data:image/png" in {(image["src"] or "").partition(";")[0] for image in page.all("img")}


def test_matplotlib_is_imported_only_to_draw():
    code = "import sys, clip_jax.evaluation.pages.demo; print('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
