"""`clip-jax data` as a user calls it."""

import json

import pytest

from clip_jax.cli.main import main
from clip_jax.data.scenes import ScenesTable
from clip_jax.data.shards import Record, write_tar_shards
from clip_jax.data.table import usable

pytest.importorskip("tensorflow")


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    samples = usable(ScenesTable("train", 90).read(range(90)))
    records = [Record(f"{i:03d}", one.image, one.captions, extension="png") for i, one in enumerate(samples)]
    records[5] = Record("005", records[5].image[:100], ("cut off",), extension="png")
    folder = tmp_path_factory.mktemp("data") / "shards"
    write_tar_shards(records, folder, samples_per_shard=40)
    return folder


def test_index(shards, tmp_path, capsys):
    main(["data", "index", f"tar:{shards}", "--json", str(tmp_path / "index.json")])
    assert "3 files, 90 samples" in capsys.readouterr().out
    assert json.loads((tmp_path / "index.json").read_text())["samples"] == 90
    assert len(list(shards.glob("*.index.npz"))) == 3


def test_inspect(shards, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("clip_jax.cli.data.PIPELINE_SECONDS", 0.1)
    sheet, written = tmp_path / "sheet.png", tmp_path / "found.json"
    main(["data", "inspect", str(shards), "--model", "tiny", "--sheet", str(sheet), "--json", str(written)])
    shown = capsys.readouterr().out
    assert "90 samples in 3 files" in shown
    assert "bad image: 1" in shown
    assert "00000/005" in shown
    assert sheet.read_bytes().startswith(b"\x89PNG")
    found = json.loads(written.read_text())
    assert found["causes"] == {"bad image": 1}
    assert found["pipeline_images_per_second"] > 0


def test_what_was_found_is_kept_where_training_could_not_begin(tmp_path, capsys):
    (good,) = usable(ScenesTable("train", 1).read([0]))
    records = [Record(f"{i:03d}", b"no image", (f"{i}",), extension="png") for i in range(299)]
    records.append(Record("good", good.image, good.captions, extension="png"))
    write_tar_shards(records, tmp_path / "shards")
    written = tmp_path / "found.json"
    with pytest.raises(SystemExit) as stopped:
        main(["data", "inspect", str(tmp_path / "shards"), "--model", "tiny", "--json", str(written)])
    assert stopped.value.code == 2
    assert json.loads(written.read_text())["causes"] == {"bad image": 299}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["inpect", "x"], "there is no data task 'inpect'; did you mean 'inspect'"),
        (["index", "scenes:train"], "needs no index"),
        (["inspect", "tar:nowhere"], "no file matches nowhere"),
        (["inspect", "scenes:train", "--sheet", "sheet.doc"], "a picture ends in .png"),
        (["inspect", "scenes:train", "--limit", "0"], "--limit 0: it must be at least 1"),
        (["inspect", "scenes:train", "--crop-scale", "2"], "--crop-scale 2"),
        (["inspect", "scenes:train", "--model", "ViT-Q"], "ViT-Q"),
    ],
)
def test_mistakes_are_one_line(arguments, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["data", *arguments])
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
