import hashlib
import json
import os
import subprocess
import sys
import tarfile

import pytest

from clip_jax.data import shards as shards_module
from clip_jax.data.shards import Record, write_tar_shards
from clip_jax.data.table import usable
from clip_jax.data.tar import TarTable
from clip_jax.errors import UserError


def records(count: int):
    for i in range(count):
        captions = (f"a größe {i}", f"other {i}")[: i % 3]
        yield Record(f"{i:06d}", bytes([i]) * (i + 1), captions, {"n": i}, None if i % 2 else i % 4)


def contents(path) -> dict[str, bytes]:
    with tarfile.open(path) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar.getmembers()}  # pyright: ignore


def test_shards_hold_what_was_given(tmp_path):
    assert write_tar_shards(records(7), tmp_path / "out", samples_per_shard=3, class_names=("a", "b", "c")) == 7
    names = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert names == ["00000.tar", "00001.tar", "00002.tar", "classnames.txt"]
    assert (tmp_path / "out/classnames.txt").read_text() == "a\nb\nc\n"
    assert [len(contents(tmp_path / f"out/{n:05d}.tar")) for n in range(3)] == [3 + 3 + 4, 2 + 4 + 3, 3]
    members = contents(tmp_path / "out/00000.tar")
    assert members["000002.jpg"] == b"\2\2\2"
    assert members["000002.txt"].decode() == "a größe 2"
    assert json.loads(members["000002.json"]) == {"n": 2, "captions": ["a größe 2", "other 2"]}
    assert members["000002.cls"] == b"2"
    assert "000000.txt" not in members
    assert "000001.cls" not in members


def test_the_table_reads_them_back(tmp_path):
    write_tar_shards(records(10), tmp_path / "out", samples_per_shard=4)
    shards = sorted((tmp_path / "out").glob("*.tar"))
    samples = usable(TarTable(shards, captions="captions").read(range(10)))
    for sample, record in zip(samples, records(10), strict=True):
        assert sample.key.split("/")[1] == record.key
        assert (sample.image, sample.captions, sample.label) == (record.image, record.captions, record.label)
    firsts = [s.captions for s in usable(TarTable(shards).read(range(10)))]
    assert firsts == [record.captions[:1] for record in records(10)]


def test_equal_records_give_equal_bytes(tmp_path):
    digests = []
    for name in ("one", "two"):
        write_tar_shards(records(5), tmp_path / name)
        digests.append(hashlib.sha256((tmp_path / name / "00000.tar").read_bytes()).hexdigest())
    assert digests[0] == digests[1]
    with tarfile.open(tmp_path / "one/00000.tar") as tar:
        assert {(m.mtime, m.uid, m.gid, m.uname, m.gname) for m in tar.getmembers()} == {(0, 0, 0, "", "")}


def test_nothing_is_left_where_a_record_fails(tmp_path):
    def failing():
        yield from records(3)
        raise RuntimeError("drawing failed")

    with pytest.raises(RuntimeError, match="drawing failed"):
        write_tar_shards(failing(), tmp_path / "out", samples_per_shard=2)
    assert list(tmp_path.iterdir()) == []


KILLED = """
import os, signal, sys
from clip_jax.data.shards import Record, write_tar_shards
def records():
    yield from (Record(str(i), b"x" * 100, ()) for i in range(5))
    os.kill(os.getpid(), signal.SIGKILL)
write_tar_shards(records(), sys.argv[1], samples_per_shard=2)
"""


def test_a_killed_run_leaves_no_directory_and_the_next_cleans_up(tmp_path):
    run = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "out")], check=False)
    assert run.returncode == -9
    assert not (tmp_path / "out").exists()
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".out.partial-")
    assert (left / "00000.tar").exists()
    write_tar_shards(records(3), tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_what_another_writer_is_writing_stays(tmp_path):
    def slow():
        yield from records(1)
        write_tar_shards(records(9), tmp_path / "out", samples_per_shard=4)  # another writer, and a faster one
        yield Record("late", b"x", ())

    assert write_tar_shards(slow(), tmp_path / "out") == 2
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    assert len(TarTable(sorted((tmp_path / "out").glob("*.tar")))) == 9


def test_other_failures_of_the_last_step_are_not_hidden(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError("no")

    monkeypatch.setattr(shards_module.os, "rename", refuse)
    with pytest.raises(PermissionError):
        write_tar_shards(records(2), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_refuses_wrong_arguments(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    (tmp_path / "file").touch()
    twice = [Record("a", b"x", ()), Record("a", b"x", ())]
    for given, name, shard_size, message in (
        (records(1), "full", 10, "full exists already"),
        (records(1), "file", 10, "file exists already"),
        (records(0), "new", 10, "no samples to write"),
        (records(1), "new", 0, "samples_per_shard is 0"),
        (twice, "new", 10, "key 'a' is repeated or has a dot"),
        ([Record("a.b", b"x", ())], "new", 10, "key 'a.b' is repeated or has a dot"),
    ):
        with pytest.raises(UserError, match=message):
            write_tar_shards(given, tmp_path / name, shard_size)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "full"]


def test_an_empty_directory_is_filled_and_is_readable_by_others(tmp_path):
    (tmp_path / "out").mkdir()
    write_tar_shards(records(1), tmp_path / "out")
    assert os.listdir(tmp_path / "out") == ["00000.tar"]
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o755
