import io
import sys
import tarfile
import types
from pathlib import Path

import pytest

from clip_jax.data.folder import FolderTable
from clip_jax.data.spec import OPTIONS, Spec, open_table, parse_spec
from clip_jax.data.table import BadSample, Table, usable
from clip_jax.data.tar import TarTable
from clip_jax.errors import UserError


def simple_shard(path: Path, first: int, samples: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for number in range(first, first + samples):
            for name, data in ((f"{number}.jpg", b"image"), (f"{number}.txt", f"caption {number}".encode())):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("tar:a/{00000..00012}.tar", Spec("tar", "a/{00000..00012}.tar")),
        ("tar:a/*.tar?captions=alt", Spec("tar", "a/*.tar", (("captions", "alt"),))),
        ("folder:pets", Spec("folder", "pets")),
        ("scenes:held_out?images=10&seed=3", Spec("scenes", "held_out", (("images", "10"), ("seed", "3")))),
        ("shards/{0..3}.tar?captions=a,b", Spec("tar", "shards/{0..3}.tar", (("captions", "a,b"),))),
        ("gs://bucket/x.tar", Spec("tar", "gs://bucket/x.tar")),
        ("tar:gs://bucket/{0..9}.tar?captions=alt", Spec("tar", "gs://bucket/{0..9}.tar", (("captions", "alt"),))),
        ("s3://bucket/list.tsv", Spec("csv", "s3://bucket/list.tsv")),
        ("simplecache::gs://bucket/x.tar", Spec("tar", "simplecache::gs://bucket/x.tar")),
        ("a/x.tfrecord-00000-of-00010", Spec("tfrecord", "a/x.tfrecord-00000-of-00010")),
        ("arrayrecord:a/*", Spec("arrayrecord", "a/*")),
        ("csv:a.txt?separator=comma&image=i", Spec("csv", "a.txt", (("separator", "comma"), ("image", "i")))),
        (
            "tfds:coco_captions/2014:1.1.0?split=train[:10%]&data_dir=gs://b/d",
            Spec("tfds", "coco_captions/2014:1.1.0", (("split", "train[:10%]"), ("data_dir", "gs://b/d"))),
        ),
        ("synthetic:1000?size=64", Spec("synthetic", "1000", (("size", "64"),))),
        ("./a:b/x.tar", Spec("tar", "./a:b/x.tar")),
        ("tar:a:b.tar", Spec("tar", "a:b.tar")),
    ],
)
def test_parses(text, spec):
    assert parse_spec(text) == spec


def test_recognises_bare_paths(tmp_path):
    simple_shard(tmp_path / "shards/1.tar", 0, 2)
    (tmp_path / "pets/cat").mkdir(parents=True)
    (tmp_path / "list.xls").touch()
    assert parse_spec(f"{tmp_path}/shards").kind == "tar"
    assert parse_spec(f"{tmp_path}/shards/1.tar?captions=x").options == (("captions", "x"),)
    assert parse_spec(f"{tmp_path}/pets").kind == "folder"
    for name, kind in (("x.tfrecord-00000-of-00002", "tfrecord"), ("x.arrayrecord", "arrayrecord")):
        (tmp_path / kind).mkdir()
        (tmp_path / kind / name).touch()
        assert parse_spec(f"{tmp_path}/{kind}").kind == kind
        assert parse_spec(f"{tmp_path}/{kind}/{name}").kind == kind
    with pytest.raises(UserError, match=r"list\.xls is of an unknown kind; name it as in KIND:"):
        parse_spec(f"{tmp_path}/list.xls")
    with pytest.raises(UserError, match="there is no file or folder"):
        parse_spec(f"{tmp_path}/missing")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tars:x.tar", "no data of kind 'tars'; did you mean 'tar'"),
        ("floder:x", "did you mean 'folder'"),
        ("zzz:x", "valid are .*csv.*tar"),
        ("folder:gs://bucket/pets", "is remote; data of kinds tar, csv, tfrecord may be"),
        ("arrayrecord:gs://bucket/x", "is remote; data of kinds tar, csv, tfrecord may be"),
        ("gs://bucket/pets", "gs://bucket/pets is of an unknown kind; name it as in tar:gs://bucket/pets"),
        ("tfds:x?spilt=test", "'tfds' has no option 'spilt'; did you mean 'split'"),
        ("csv:x?sep=tab", "'csv' has no option 'sep'; did you mean 'separator'"),
        ("synthetic:5?seeds=1", "did you mean 'seed'"),
        ("tar:x.tar?captions=", "the option 'captions' in the data spec .* is empty"),
        ("tar:", "has no location"),
        ("", "has no location"),
        ("tar:x.tar?caption=a", "'tar' has no option 'caption'; did you mean 'captions'"),
        ("scenes:train?sede=1", "did you mean 'seed'"),
        ("folder:x?a=b", "'folder' has no option 'a'; it takes none"),
        ("tar:x.tar?captions", "'captions' in the data spec .* is not key=value"),
        ("tar:x.tar?=a", "not key=value"),
        ("tar:x.tar?", "not key=value"),
        ("tar:x.tar?captions=a&captions=b", "each key once"),
    ],
)
def test_refuses(text, message):
    with pytest.raises(UserError, match=message) as error:
        parse_spec(text)
    assert "\n" not in str(error.value)


def test_opens_tables(tmp_path):
    for shard in range(3):
        simple_shard(tmp_path / f"shards/{shard}.tar", shard * 2, 2)
    (tmp_path / "pets/cat").mkdir(parents=True)
    (tmp_path / "pets/cat/1.jpg").write_bytes(b"image")
    for text in (f"tar:{tmp_path}/shards/{{0..2}}.tar", f"{tmp_path}/shards", f"tar:{tmp_path}/shards/*.tar"):
        table = open_table(text)
        assert isinstance(table, TarTable)
        assert [s.captions for s in usable(table.read(range(6)))] == [(f"caption {i}",) for i in range(6)]
    (bad,) = open_table(f"{tmp_path}/shards?captions=alt").read([0])
    assert isinstance(bad, BadSample)
    assert bad.cause == "bad caption"
    for text in (f"folder:{tmp_path}/pets", f"{tmp_path}/pets"):
        table = open_table(text)
        assert isinstance(table, FolderTable)
        assert table.class_names == ("cat",)


def test_opens_scenes():
    table = open_table("scenes:held_out?images=5&seed=1")
    assert len(table) == 5
    assert isinstance(table, Table)
    assert table.parts == {"held_out": 5}
    assert usable(table.read([4]))[0].label is not None


def test_every_kind_can_be_opened():
    """A kind that parses must have its case in open_table; none of these places exists."""
    for kind, options in OPTIONS.items():
        assert len(set(options)) == len(options)
        with pytest.raises(UserError):
            open_table(f"{kind}:/nowhere/at/all")


def test_usable_names_the_bad_one():
    with pytest.raises(UserError, match=r"^sample a/1: it is empty$"):
        usable([BadSample("a/1", "no image", "it is empty")])


@pytest.mark.parametrize(
    ("kind", "package", "message"),
    [
        ("tfrecord", "tensorflow", "read through TensorFlow; pip install"),
        ("arrayrecord", "array_record.python", "need a package for Linux; pip install"),
        ("tfds", "tensorflow", "read through TensorFlow; pip install"),
        ("tfds", "tensorflow_datasets", "tfds: needs another package; pip install"),
    ],
)
def test_says_what_to_install(tmp_path, monkeypatch, kind, package, message):
    (tmp_path / "x").write_bytes(b"")
    monkeypatch.setitem(sys.modules, package, None)  # as where it is not installed
    if (kind, package) == ("tfds", "tensorflow_datasets"):
        config = types.SimpleNamespace(set_visible_devices=lambda *_: None)
        monkeypatch.setitem(sys.modules, "tensorflow", types.SimpleNamespace(config=config))
    if kind == "tfrecord":
        (tmp_path / "x").write_bytes(bytes.fromhex("0000000000000000 29039807 d8ea82a2"))  # one empty record
    with pytest.raises(UserError, match=message):
        open_table(f"{kind}:{tmp_path}/x")
