"""Sets of embeddings: what is in them, and that they come out the same however often they were stopped."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.tables import ListTable

from clip_jax.clip import Clip
from clip_jax.data.scenes import ScenesTable
from clip_jax.data.table import BadSample, Sample, Table, usable
from clip_jax.errors import IOFailure, UserError
from clip_jax.search import embed as module
from clip_jax.search.embed import Options, Outcome, describe, embed, open_source
from clip_jax.search.embedding_set import open_set
from clip_jax.search.images import Images
from clip_jax.search.source import Source
from clip_jax.search.target import target_of
from clip_jax.search.texts import Captions, Lines


class Killed(BaseException):
    """Stands for SIGKILL: nothing but clean-up code runs after it."""


@pytest.fixture(scope="module")
def clip(toy_config, toy_params) -> Clip:
    text = replace(toy_config.text, vocab_size=49408)
    embedding = np.random.default_rng(0).standard_normal((49408, 40)).astype(np.float32)
    params = toy_params | {"text": toy_params["text"] | {"token_embedding": embedding}}
    return Clip(replace(toy_config, text=text), params)


def spoilt(samples: list[Any]) -> ListTable:
    """With two bad samples, both in the first eight."""
    samples[1] = BadSample(samples[1].key, "no image", "it is gone")
    samples[6] = replace(samples[6], image=samples[6].image[:300])
    return ListTable(samples)


@pytest.fixture
def table() -> Table:
    return spoilt(usable(ScenesTable("train", 21).read(range(21))))


def make(clip: Clip, source: Source, out: Path, model: str = "toy", shard: int = 8, **options: Any) -> Outcome:
    description = describe(clip, model, source, "spec", Options(shard=shard, **options))
    return embed(clip, source, description, target_of(str(out)), batch_size=4)


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_images_are_those_of_the_model(clip, table, tmp_path):
    found = make(clip, Images(table), tmp_path / "a.npy")
    good = [place for place in range(21) if place not in (1, 6)]
    images = [table.samples[place].image for place in good]
    rows = np.load(tmp_path / "a.npy", mmap_mode="r")
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows, clip.encode_image(images, normalize=True), atol=2e-6)
    wanted = [{"key": table.samples[place].key, "sample": place} for place in good]
    assert lines(tmp_path / "a.npy.keys.jsonl") == wanted
    first, second = lines(tmp_path / "a.npy.bad.jsonl")
    assert first == {"key": table.samples[1].key, "sample": 1, "cause": "no image", "reason": "it is gone"}
    assert (second["sample"], second["cause"]) == (6, "bad image")
    told = json.loads((tmp_path / "a.npy.json").read_text())
    assert (told["rows"], told["samples"], told["width"]) == (19, 21, 24)
    assert told["left_out"] == {"bad image": 1, "no image": 1} == found.description.left_out
    assert (told["normalized"], told["model"], found.samples) == (True, "toy", 21)
    assert sorted(os.listdir(tmp_path)) == ["a.npy", "a.npy.bad.jsonl", "a.npy.json", "a.npy.keys.jsonl"]


def test_raw_and_half_precision(clip, table, tmp_path):
    make(clip, Images(table), tmp_path / "raw.npy", normalized=False)
    make(clip, Images(table), tmp_path / "half.npy", dtype="float16")
    raw, half = np.load(tmp_path / "raw.npy"), np.load(tmp_path / "half.npy")
    images = [one.image for place, one in enumerate(table.samples) if place not in (1, 6)]
    np.testing.assert_allclose(raw, clip.encode_image(images), atol=2e-5)
    assert half.dtype == np.float16
    np.testing.assert_array_equal(half, clip.encode_image(images, normalize=True).astype(np.float16))


def test_captions_each_have_a_row(clip, table, tmp_path):
    table.samples[3] = replace(table.samples[3], captions=())
    make(clip, Captions(table), tmp_path / "a.npy")
    told = [
        {"key": one.key, "sample": place, "caption": caption}
        for place, one in enumerate(table.samples)
        if isinstance(one, Sample)
        for caption in one.captions
    ]
    assert lines(tmp_path / "a.npy.keys.jsonl") == told
    assert len(told) > 21
    texts = [one["caption"] for one in told]
    np.testing.assert_allclose(np.load(tmp_path / "a.npy"), clip.encode_text(texts, normalize=True), atol=2e-6)
    assert [(one["sample"], one["cause"]) for one in lines(tmp_path / "a.npy.bad.jsonl")] == [
        (1, "no image"),
        (3, "no caption"),
    ]


def test_lines_of_a_file_each_have_a_row(clip, tmp_path, monkeypatch):
    monkeypatch.setattr("clip_jax.search.texts.STRIDE", 3)
    texts = [f"text number {number} " + "word " * (number % 5) for number in range(20)]
    written = [*texts]
    written[4], written[11] = "   ", "\udcff\udcfe"
    (tmp_path / "t.txt").write_bytes("\ufeff".encode() + "\r\n".join(written).encode(errors="surrogateescape"))
    source, spec = open_source(str(tmp_path / "t.txt"), texts=True)
    assert spec == str(tmp_path / "t.txt")
    make(clip, source, tmp_path / "a.npy")
    good = [place for place in range(20) if place not in (4, 11)]
    assert lines(tmp_path / "a.npy.keys.jsonl") == [
        {"key": f"t.txt#{place + 1}", "sample": place, "caption": texts[place].strip()} for place in good
    ]
    wanted = clip.encode_text([texts[place] for place in good], normalize=True)
    np.testing.assert_allclose(np.load(tmp_path / "a.npy"), wanted, atol=2e-6)
    assert [one["key"] for one in lines(tmp_path / "a.npy.bad.jsonl")] == ["t.txt#5", "t.txt#12"]


@pytest.mark.parametrize("texts", [False, True])
def test_every_form_holds_the_same(clip, table, tmp_path, texts):
    source = Captions(table) if texts else Images(table)
    sets = []
    for name in ("a.npy", "a.parquet", "folder"):
        make(clip, source, tmp_path / name)
        sets.append(open_set(tmp_path / name))
    assert sorted(name for name in os.listdir(tmp_path / "folder") if name.endswith(".npy")) == [
        f"{number:05d}.npy" for number in range(3)
    ]
    rows = [np.concatenate(list(one.parts())) for one in sets]
    wanted = [0, 5, len(rows[0]) - 1, 5]
    for one, other in zip(sets[1:], rows[1:], strict=True):
        np.testing.assert_array_equal(other, rows[0])
        assert one.keys(wanted) == sets[0].keys(wanted)
        assert one.width == 24
        assert one.description == sets[0].description


@pytest.mark.parametrize("name", ["a.npy", "a.parquet", "folder"])
def test_killed_at_every_write_it_comes_out_the_same(clip, table, tmp_path, monkeypatch, name):
    make(clip, Images(table), tmp_path / "whole" / name)
    whole = content(tmp_path / "whole")
    calls = {"left": 0}

    def deadly(action):
        def run(*arguments: Any, **options: Any):
            calls["left"] -= 1
            if calls["left"] == 0:
                raise Killed
            return action(*arguments, **options)

        return run

    survived = 0
    for after in range(1, 100):
        place = tmp_path / f"killed{after}"
        with monkeypatch.context() as patched:
            for holder, function in ((os, "replace"), (os, "fsync"), (Path, "unlink"), (shutil, "rmtree")):
                patched.setattr(holder, function, deadly(getattr(holder, function)))
            calls["left"] = after
            try:
                make(clip, Images(table), place / name)
                break
            except Killed:
                survived += 1
        make(clip, Images(table), place / name)
        assert content(place) == whole
    assert survived > 7


def test_nothing_is_embedded_twice(clip, table, tmp_path, monkeypatch):
    seen = []
    write = module.write_shard
    monkeypatch.setattr(module, "write_shard", lambda folder, shard: seen.append(shard.number) or write(folder, shard))
    with monkeypatch.context() as patched:
        patched.setattr(module, "_complete", lambda *_: (_ for _ in ()).throw(Killed()))
        with pytest.raises(Killed):
            make(clip, Images(table), tmp_path / "a.npy")
    (tmp_path / "a.npy.partial/00001.npy").unlink()
    assert make(clip, Images(table), tmp_path / "a.npy").samples == 8
    assert seen == [0, 1, 2, 1]
    assert make(clip, Images(table), tmp_path / "a.npy").samples == 0
    assert seen == [0, 1, 2, 1]


def test_a_killed_writer_leaves_nothing_behind(clip, table, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/.00000.npy.partial-abc").write_bytes(b"half")
    make(clip, Images(table), tmp_path / "folder")
    assert not [name for name in os.listdir(tmp_path / "folder") if name.startswith(".")]


CHANGES: dict[str, tuple[dict[str, Any], str]] = {
    "raw": ({"normalized": False}, "normalised embeddings"),
    "dtype": ({"dtype": "float16"}, "--dtype float32"),
    "shard": ({"shard": 4}, "--shard 8"),
}


@pytest.mark.parametrize("complete", [False, True])
@pytest.mark.parametrize("change", [*CHANGES, "model", "data", "texts", "compute"])
def test_another_set_in_the_same_place_is_refused(clip, table, tmp_path, monkeypatch, change, complete):
    with monkeypatch.context() as patched:
        if not complete:
            patched.setattr(module, "_complete", lambda *_: (_ for _ in ()).throw(Killed()))
        try:
            make(clip, Images(table), tmp_path / "a.npy", model="before")
        except Killed:
            assert not (tmp_path / "a.npy").exists()
    before = content(tmp_path)
    options, message = CHANGES.get(change, ({}, ""))
    source = Images(table)
    if change == "model":
        visual = clip.params["visual"] | {"projection": clip.params["visual"]["projection"] + 1}
        clip, message = replace(clip, params=clip.params | {"visual": visual}), r"another model \(before"
    elif change == "data":
        source, message = Images(ListTable(table.samples[:20])), r"other data \(spec"
    elif change == "texts":
        source, message = Captions(table), "embeddings of images"
    elif change == "compute":
        clip, message = (
            replace(clip, compute=replace(clip.compute, dtype="bfloat16")),
            "another model|--compute float32",
        )
    with pytest.raises(UserError, match=rf"was begun with .*({message}).*; give the same again, or another --out"):
        make(clip, source, tmp_path / "a.npy", **options)
    assert content(tmp_path) == before


def test_other_peoples_files_are_left_alone(clip, table, tmp_path):
    np.save(tmp_path / "a.npy", np.zeros(3))
    with pytest.raises(UserError, match="exists already, and nothing beside says what it is"):
        make(clip, Images(table), tmp_path / "a.npy")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/photo.jpg").touch()
    with pytest.raises(UserError, match=r"folder holds other files, and no set\.json"):
        make(clip, Images(table), tmp_path / "folder")
    assert os.listdir(tmp_path / "folder") == ["photo.jpg"]


def test_a_shard_whose_keys_are_lost_is_embedded_again(clip, table, tmp_path, monkeypatch):
    make(clip, Images(table), tmp_path / "whole.npy")
    with monkeypatch.context() as patched:
        patched.setattr(module, "_complete", lambda *_: (_ for _ in ()).throw(Killed()))
        with pytest.raises(Killed):
            make(clip, Images(table), tmp_path / "a.npy")
    (tmp_path / "a.npy.partial/00000.keys.jsonl").unlink()
    assert make(clip, Images(table), tmp_path / "a.npy").samples == 8
    for name in ("a.npy", "a.npy.keys.jsonl"):
        assert (tmp_path / name).read_bytes() == (tmp_path / name.replace("a.npy", "whole.npy", 1)).read_bytes()


def test_shards_of_others_may_come_late(clip, table, tmp_path, monkeypatch):
    """A file system of several hosts shows a file only after a while, or never."""
    description = describe(clip, "toy", Images(table), "spec", Options(shard=8))
    folder = tmp_path / "a"
    make(clip, Images(table), folder)
    late = folder / "00002.npy"
    late.rename(tmp_path / "late")
    naps = []
    monkeypatch.setattr(module.time, "sleep", lambda _: naps.append(1) or (tmp_path / "late").rename(late))
    assert module._complete(folder, target_of(str(folder)), description).rows == 19
    assert naps == [1]
    late.unlink()
    monkeypatch.setattr(module, "PATIENCE", 0)
    monkeypatch.setattr(module.time, "sleep", lambda _: None)
    with pytest.raises(UserError, match="1 shards are not in"):
        module._complete(folder, target_of(str(folder)), description)


def test_whether_it_is_being_joined_is_the_first_ones_to_say(clip, table, tmp_path, monkeypatch):
    """Hosts that took different branches would wait at different barriers."""
    asked = []
    monkeypatch.setattr(module, "from_first", lambda value: asked.append(value) or 1)
    monkeypatch.setattr(module, "_embed_missing", lambda *_: pytest.fail("the first one sees that it is joined"))
    monkeypatch.setattr(module, "_complete", lambda *_: _[2])
    make(clip, Images(table), tmp_path / "a.npy")
    assert asked == [0]


@pytest.mark.parametrize(("first", "told"), [(True, ["open", "wait"]), (False, ["wait", "open"])])
def test_the_first_process_opens_the_data_before_the_others(monkeypatch, first, told):
    done = []
    monkeypatch.setattr(module, "is_first", lambda: first)
    monkeypatch.setattr(module, "wait_for_all", lambda _: done.append("wait"))
    opened = module.open_table
    monkeypatch.setattr(module, "open_table", lambda spec: done.append("open") or opened(spec))
    assert len(open_source("scenes:train?images=5")[0]) == 5
    assert done == told


def test_what_a_killed_process_left_is_removed_unless_it_is_at_it(clip, table, tmp_path):
    make(clip, Images(table), tmp_path / "a.npy")
    left = tmp_path / "a.npy.partial"
    left.mkdir()
    with module.locked(left):
        make(clip, Images(table), tmp_path / "a.npy")
        assert left.exists()
    make(clip, Images(table), tmp_path / "a.npy")
    assert not left.exists()


def test_two_at_once_are_kept_apart(clip, table, tmp_path):
    with module.locked(tmp_path / "a.npy.partial"), pytest.raises(UserError, match="another process is writing to"):
        make(clip, Images(table), tmp_path / "a.npy")


def test_where_nothing_can_be_written(clip, table, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot write to .*file.*; give a place that can be written to"):
        make(clip, Images(table), tmp_path / "file/a.npy")

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(IOFailure, match="No space left on device; the same command goes on"):
            make(clip, Images(table), tmp_path / "a.npy")
    make(clip, Images(table), tmp_path / "a.npy")


def test_data_of_which_nothing_can_be_used(clip, tmp_path):
    table = ListTable([BadSample(f"{number}", "no image", "it is gone") for number in range(9)])
    for _ in range(2):
        with pytest.raises(UserError, match="of 9 samples none can be used, the first is 0: it is gone"):
            make(clip, Images(table), tmp_path / "a.npy")


@pytest.mark.parametrize(
    ("value", "message"),
    [(np.nan, "zero or not finite"), (0.0, "zero or not"), (1e9, "large for float16"), (1e-12, "small for float16")],
)
def test_embeddings_that_cannot_be_kept(clip, table, tmp_path, value, message):
    visual = clip.params["visual"] | {"projection": clip.params["visual"]["projection"] * value}
    wrong = replace(clip, params=clip.params | {"visual": visual})
    with pytest.raises(UserError, match=rf"embedding of {table.samples[0].key} is .*{message}"):
        make(wrong, Images(table), tmp_path / "a.npy", normalized=False, dtype="float16")


def test_a_file_whose_lines_are_none(tmp_path):
    (tmp_path / "a.txt").touch()
    with pytest.raises(UserError, match="is empty; it would have a text a line"):
        Lines(str(tmp_path / "a.txt"))
    (tmp_path / "a.txt").write_bytes(b"x" * 2_000_000)
    with pytest.raises(UserError, match=r"line 1 of .* is longer than 1 MB"):
        Lines(str(tmp_path / "a.txt"))
