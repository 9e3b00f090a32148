"""`clip-jax search`: what it finds, what it shows, and what it refuses."""

import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.html_page import HtmlPage

from clip_jax.cli.main import main
from clip_jax.clip import Clip, create, load, save
from clip_jax.data.scenes import ScenesTable
from clip_jax.data.table import usable
from clip_jax.search import embed as embed_module


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A model, pictures in a folder with captions, and sets of both."""
    folder = tmp_path_factory.mktemp("search")
    save(create("tiny"), folder / "model")
    (folder / "pets").mkdir()
    for number, one in enumerate(usable(ScenesTable("train", 30).read(range(30)))):
        (folder / f"pets/{number:02d}.jpg").write_bytes(one.image)
        (folder / f"pets/{number:02d}.txt").write_text(f"<{one.captions[0]}> & {number}")
    main(["embed", str(folder / "pets"), "--model", str(folder / "model"), "--out", str(folder / "images.npy")])
    (folder / "texts.txt").write_text("a red star\na blue ring\n\na green square\n")
    lines = ["--texts", "--model", str(folder / "model"), "--out", str(folder / "lines.npy")]
    main(["embed", str(folder / "texts.txt"), *lines])
    return folder


@pytest.fixture(scope="module")
def clip(place) -> Clip:
    return load(place / "model")


def search(place: Path, *arguments: str) -> list[dict]:
    main(["search", *arguments, "--json", str(place / "found.json")])
    return json.loads((place / "found.json").read_text())["queries"]


def test_texts_and_images_find_what_numpy_finds(place, clip, capsys):
    (place / "queries.txt").write_text("a large blue ring\n\nan orange heart\n")
    image = str(place / "pets/07.jpg")
    found = search(
        place, str(place / "images.npy"), "--text", "a red star", "--queries", str(place / "queries.txt"), "--image",
        image, "-k", "5",
    )  # fmt: skip
    texts = ["a red star", "a large blue ring", "an orange heart"]
    assert [(one["text"], one["image"]) for one in found] == [*((text, None) for text in texts), (None, image)]
    queries = np.concatenate([clip.encode_text(texts, normalize=True), clip.encode_image([image], normalize=True)])
    rows = clip.encode_image([str(place / f"pets/{number:02d}.jpg") for number in range(30)], normalize=True)
    scores = queries.astype(np.float64) @ rows.T.astype(np.float64)
    for one, row in zip(found, scores, strict=True):
        assert [hit["row"] for hit in one["hits"]] == np.argsort(-row)[:5].tolist()
        np.testing.assert_allclose([hit["score"] for hit in one["hits"]], np.sort(-row)[:5] * -1, atol=2e-6)
    best = found[3]["hits"][0]
    assert (best["rank"], best["key"], best["sample"]) == (1, "07.jpg", 7)
    assert best["score"] == pytest.approx(1, abs=1e-6)
    shown = capsys.readouterr().out
    assert f"{image}\n  rank   score  key\n     1  1.0000  07.jpg\n" in shown


def test_a_sheet_holds_its_pictures(place, capsys):
    asked = ["--text", "a <red> star", "--image", str(place / "pets/03.jpg"), "-k", "4"]
    search(place, str(place / "images.npy"), *asked, "--html", str(place / "deep/sheet.html"))
    text = (place / "deep/sheet.html").read_text()
    page = HtmlPage(text)
    pictures = [image["src"] or "" for image in page.all("img")]
    assert len(pictures) == 4 + 1 + 4
    assert all(source.startswith("data:image/jpeg;base64,") for source in pictures)
    assert "<red>" in page.words
    assert "http" not in text
    assert "contact sheet:" in capsys.readouterr().out


def test_captions_are_shown_with_their_pictures(place, capsys):
    options = ["--texts", "--model", str(place / "model"), "--out", str(place / "captions")]
    main(["embed", str(place / "pets"), *options])
    found = search(place, str(place / "captions"), "--text", "a star", "--html", str(place / "sheet.html"), "-k", "3")
    hit = found[0]["hits"][0]
    assert hit["caption"] == (place / "pets" / hit["key"]).with_suffix(".txt").read_text()
    page = HtmlPage((place / "sheet.html").read_text())
    assert len(page.all("img")) == 3
    assert hit["caption"] in page.words
    assert hit["caption"][:30] in capsys.readouterr().out


def test_lines_of_a_file_are_found(place):
    found = search(place, str(place / "lines.npy"), "--text", "a blue ring", "--html", str(place / "sheet.html"))
    assert found[0]["hits"][0]["key"] == "texts.txt#2"
    assert len(found[0]["hits"]) == 3
    assert HtmlPage((place / "sheet.html").read_text()).all("img") == []


@pytest.mark.parametrize("k", ["99", "1000000000000000"])
def test_more_than_there_is_gives_all(place, k):
    found = search(place, str(place / "images.npy"), "--text", "a star", "-k", k)
    assert sorted(hit["row"] for hit in found[0]["hits"]) == list(range(30))


@pytest.mark.parametrize("out", ["a.npy", "a.parquet"])
def test_names_that_are_not_utf_8(place, tmp_path, capsys, out):
    if out.endswith("parquet"):
        pytest.importorskip("pyarrow")
    picture = os.fsdecode(os.fsencode(tmp_path) + b"/data/caf\xe9.jpg")
    (tmp_path / "data").mkdir()
    shutil.copy(place / "pets/07.jpg", picture)
    main(["embed", str(tmp_path / "data"), "--model", str(place / "model"), "--out", str(tmp_path / out)])
    search(place, str(tmp_path / out), "--image", picture, "--html", str(tmp_path / "sheet.html"))
    shown = capsys.readouterr().out
    shown.encode()
    assert "1  1.0000  caf\\udce9.jpg\n" in shown
    page = HtmlPage((tmp_path / "sheet.html").read_text())
    assert len(page.all("img")) == 2
    assert "caf\\udce9.jpg" in page.words


def test_only_captions_are_cut_and_only_on_a_terminal(place, tmp_path, capsys, monkeypatch):
    key, caption = "k" * 90, "word " * 40 + "end"
    np.save(tmp_path / "own.npy", np.load(place / "images.npy")[:2])
    lines = [json.dumps({"key": one, "caption": caption}) for one in (key, "short")]
    (tmp_path / "own.npy.keys.jsonl").write_text("\n".join(lines))
    asked = ["search", str(tmp_path / "own.npy"), "--text", "a star", "--model", str(place / "model")]

    def shown() -> dict[str, str]:
        main(asked)
        return {line.split()[2]: line for line in capsys.readouterr().out.splitlines()[2:]}

    assert all(line.endswith(f"  {caption}") for line in shown().values())
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    on_terminal = shown()
    assert on_terminal[key].endswith(f"  {key}")
    assert len(on_terminal["short"]) == 80
    assert "word word" in on_terminal["short"]


@pytest.mark.parametrize("scale", [1, 7])
def test_somebody_elses_file(place, clip, scale):
    rows = scale * np.load(place / "images.npy") * np.arange(1, 31, dtype=np.float32)[:, None]
    np.save(place / "plain.npy", rows)
    asked = ["--text", "a red star", "-k", "6"]
    found = search(place, str(place / "plain.npy"), *asked, "--model", str(place / "model"))
    wanted = search(place, str(place / "images.npy"), *asked)
    assert [hit["row"] for hit in found[0]["hits"]] == [hit["row"] for hit in wanted[0]["hits"]]
    assert found[0]["hits"][0]["key"] == f"row {wanted[0]['hits'][0]['row']}"


@pytest.mark.filterwarnings("default")  # the command line prints them
def test_pictures_that_are_gone_are_told(place, tmp_path, capsys):
    shutil.copytree(place / "pets", tmp_path / "pets")
    main(["embed", str(tmp_path / "pets"), "--model", str(place / "model"), "--out", str(tmp_path / "a.npy")])
    asked = [str(tmp_path / "a.npy"), "--text", "a star", "-k", "30", "--html", str(tmp_path / "sheet.html")]
    for name in ("29.jpg", "29.txt"):
        (tmp_path / "pets" / name).unlink()
    search(place, *asked)
    assert "warning: 1 of 30 pictures are no longer in folder:" in capsys.readouterr().err
    (tmp_path / "pets/28.jpg").unlink()
    (tmp_path / "pets/05.jpg").write_bytes(b"broken")
    search(place, *asked)
    told = capsys.readouterr().err
    assert "warning: 2 of 30 pictures are no longer in folder:" in told
    assert f"warning: 1 of 30 pictures in folder:{tmp_path / 'pets'} cannot be read" in told
    shutil.rmtree(tmp_path / "pets")
    search(place, *asked)
    assert "warning: no pictures, as the data of the set cannot be opened" in capsys.readouterr().err
    assert "29.jpg" in HtmlPage((tmp_path / "sheet.html").read_text()).words


@pytest.mark.filterwarnings("default")
def test_a_model_that_changed_is_noticed(place, tmp_path, capsys):
    shutil.copytree(place / "model", tmp_path / "model")
    main(["embed", str(place / "pets"), "--model", str(tmp_path / "model"), "--out", str(tmp_path / "a.npy")])
    save(create("tiny", seed=1), tmp_path / "model")
    search(place, str(tmp_path / "a.npy"), "--text", "a star", "--model", str(tmp_path / "model"))
    assert "warning: another model made" in capsys.readouterr().err
    refused(["search", str(tmp_path / "a.npy"), "--text", "x"], "is not as it was when it made", capsys)
    shutil.rmtree(tmp_path / "model")
    refused(["search", str(tmp_path / "a.npy"), "--text", "x"], "and --model says where it is now", capsys)


def refused(arguments: list[str], message: str, capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("clip-jax: ")
    assert shown.err.count("\n") == 1
    assert message in shown.err


TEXT = ["--text", "a star"]
WRONG = {
    "no set": (["{tmp}/nowhere.npy", *TEXT], "there is no set of embeddings {tmp}/nowhere.npy; clip-jax embed DATA"),
    "no query": (["{set}"], "there is nothing to search for; give --text"),
    "empty query": (["{set}", "--text", " "], "a text to search for is empty"),
    "k": (["{set}", *TEXT, "-k", "0"], "-k 0: it must be at least 1"),
    "no image": (["{set}", "--image", "{tmp}/no.png"], "no.png' does not exist"),
    "not an image": (["{set}", "--image", "{tmp}/text"], "is not an image in one of the formats"),
    "no queries": (["{set}", "--queries", "{tmp}/nowhere"], "cannot read the queries in {tmp}/nowhere"),
    "no description": (["{tmp}/zeros.npy", *TEXT], "does not say which model made it; --model names it"),
    "zeros": (["{tmp}/zeros.npy", *TEXT, "--model", "{model}"], "row 2 is zero, and so has no direction"),
    "nan": (["{tmp}/nan.npy", *TEXT, "--model", "{model}"], "row 1 is not finite"),
    "no rows": (["{tmp}/none.npy", *TEXT, "--model", "{model}"], "none.npy has no rows"),
    "width": (["{tmp}/narrow.npy", *TEXT, "--model", "{model}"], "gives 128 numbers, but rows of"),
    "shape": (["{tmp}/flat.npy", *TEXT, "--model", "{model}"], "holds float32 [128]; a set is one array"),
    "type": (["{tmp}/whole.npy", *TEXT, "--model", "{model}"], "holds int64 [3, 128]; a set is"),
    "not npy": (["{tmp}/text", *TEXT, "--model", "{model}"], "cannot read {tmp}/text as a .npy file"),
    "cut": (["{tmp}/cut.npy", *TEXT, "--model", "{model}"], "cannot read {tmp}/cut.npy as a .npy file"),
    "folder": (["{tmp}", *TEXT], "is a folder without set.json"),
    "sheet": (["{set}", *TEXT, "--html", "{tmp}/text/sheet.html"], "cannot write {tmp}/text/sheet.html"),
    "model": (["{set}", *TEXT, "--model", "nope"], "there is no file, folder or pretrained model 'nope'"),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_mistakes_get_one_line(place, tmp_path, capsys, mistake):
    rows = np.ones((3, 128), np.float32)
    arrays = {"narrow": rows[:, :9], "flat": rows[0], "whole": rows.astype(np.int64), "none": rows[:0], "cut": rows}
    arrays |= {name: rows.copy() for name in ("zeros", "nan")}
    arrays["zeros"][2], arrays["nan"][1, 5] = 0, np.nan
    for name, array in arrays.items():
        np.save(tmp_path / f"{name}.npy", array)
    (tmp_path / "cut.npy").write_bytes((tmp_path / "cut.npy").read_bytes()[:-100])
    (tmp_path / "text").write_text("no image")
    arguments, message = WRONG[mistake]
    places = {"{tmp}": str(tmp_path), "{set}": str(place / "images.npy"), "{model}": str(place / "model")}
    for name, path in places.items():
        arguments, message = [one.replace(name, path) for one in arguments], message.replace(name, path)
    capsys.readouterr()
    refused(["search", *arguments], message, capsys)


@pytest.mark.parametrize("out", ["a.npy", "folder"])
def test_a_set_that_is_not_complete_says_so(place, tmp_path, capsys, monkeypatch, out):
    monkeypatch.setattr(embed_module, "_complete", lambda *_: sys.exit(9))
    options = ["--model", str(place / "model"), "--out", str(tmp_path / out), "--shard", "8"]
    with pytest.raises(SystemExit, match="9"):
        main(["embed", str(place / "pets"), *options])
    os.remove(next(tmp_path.glob("*/00002.npy")))
    capsys.readouterr()
    refused(["search", str(tmp_path / out), *TEXT], f"{tmp_path / out} is not complete, 3 of 4 shards are", capsys)


def test_a_set_that_is_not_what_its_description_says(place, tmp_path, capsys):
    for file in place.glob("images.npy*"):
        shutil.copy(file, tmp_path)
    np.save(tmp_path / "images.npy", np.load(tmp_path / "images.npy")[:20])
    refused(["search", str(tmp_path / "images.npy"), *TEXT], "has 20 rows of 128, and its description says 30", capsys)
    (tmp_path / "images.npy.json").write_text("{}")
    refused(["search", str(tmp_path / "images.npy"), *TEXT], "images.npy.json lacks the key 'model'", capsys)


def test_a_picture_as_a_query_may_be_of_any_kind(place, tmp_path):
    Image.new("RGBA", (30, 20), (255, 0, 0, 128)).save(tmp_path / "q.png")
    found = search(place, str(place / "images.npy"), "--image", str(tmp_path / "q.png"), "-k", "2")
    assert len(found[0]["hits"]) == 2
