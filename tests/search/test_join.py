"""Shards and the file they become: what is lost of them is noticed, and what is no UTF-8 does not matter."""

import json
from pathlib import Path

import numpy as np
import pytest

from clip_jax.errors import UserError
from clip_jax.search.description import Description
from clip_jax.search.embedding_set import open_set, read_bad
from clip_jax.search.join import completed, join_npy, join_parquet
from clip_jax.search.shards import (
    DESCRIPTION,
    JOINED,
    Shard,
    complete_shards,
    count_keys,
    write_kept,
    write_shard,
)

DESCRIBED = Description("m", "v", "t", "d", "dd", "images", 12, 4, 3, True, "float32", "float32")
ROWS = np.arange(36, dtype=np.float32).reshape(12, 3)


@pytest.fixture
def folder(tmp_path) -> Path:
    """Three shards of four rows."""
    place = tmp_path / "a.npy.partial"
    place.mkdir()
    for number in range(3):
        here = range(4 * number, 4 * number + 4)
        write_shard(place, Shard(number, ROWS[here], [{"key": f"k{row}", "sample": row} for row in here], []))
    write_kept(place / DESCRIPTION, DESCRIBED.to_json().encode())
    return place


def stop_joining_after(folder: Path, shards: int) -> None:
    """As a process leaves it that was killed."""
    header = (folder / "00000.npy").read_bytes()[:128].replace(b"(4, 3)", b"(12, 3)").replace(b" \n", b"\n")
    (folder / JOINED).write_bytes(header + ROWS[: 4 * shards].tobytes())
    for number in range(shards):
        (folder / f"{number:05d}.npy").unlink()


def test_joined_from_any_point(folder, tmp_path):
    stop_joining_after(folder, 2)
    join_npy(folder, tmp_path / "a.npy", completed(folder, DESCRIBED))
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), ROWS)
    assert [one.key for one in open_set(tmp_path / "a.npy").keys(range(12)).values()] == [f"k{n}" for n in range(12)]


def test_a_shard_without_keys_is_not_complete(folder):
    (folder / "00001.keys.jsonl").unlink()
    assert complete_shards(folder) == {0, 2}


@pytest.mark.parametrize("joined", [0, 2])
def test_lost_keys_are_not_passed_over(folder, joined):
    stop_joining_after(folder, joined)
    (folder / "00001.keys.jsonl").unlink()
    with pytest.raises(UserError, match=r"cannot read .*00001\.keys\.jsonl, which says what each row is of: No such"):
        completed(folder, DESCRIBED)


def test_keys_have_to_be_as_many_as_rows(folder):
    keys = folder / "00001.keys.jsonl"
    keys.write_text("".join(keys.read_text().splitlines(keepends=True)[1:]))
    with pytest.raises(UserError, match=r"00001\.npy has 4 rows, but 3 keys are beside it; remove it"):
        completed(folder, DESCRIBED)


@pytest.mark.parametrize("lost", ["joined rows", "a shard"])
def test_rows_lost_while_joining_are_noticed(folder, tmp_path, lost):
    stop_joining_after(folder, 1)
    if lost == "a shard":
        (folder / "00001.npy").unlink()
    else:
        (folder / JOINED).write_bytes((folder / JOINED).read_bytes()[:-12])
    with pytest.raises(UserError, match="has lost some of its rows; remove it"):
        join_npy(folder, tmp_path / "a.npy", completed(folder, DESCRIBED))


def test_a_cut_shard_is_named(folder):
    (folder / "00002.npy").write_bytes((folder / "00002.npy").read_bytes()[:-5])
    with pytest.raises(UserError, match=r"cannot read .*00002\.npy as a \.npy file"):
        completed(folder, DESCRIBED)


def test_what_can_be_read_again_is_no_longer_bad(folder):
    keys = [{"key": "k", "sample": 0}]
    write_shard(folder, Shard(0, ROWS[:1], keys, [{"key": "b", "sample": 1, "cause": "no image", "reason": "gone"}]))
    assert [one["key"] for one in read_bad(folder, 9)] == ["b"]
    write_shard(folder, Shard(0, ROWS[:1], keys, []))
    assert read_bad(folder, 9) == []
    assert completed(folder, DESCRIBED).left_out == {}


def test_names_that_are_not_utf_8_are_escaped_in_parquet(folder, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    key = b"caf\xe9.jpg".decode(errors="surrogateescape")
    write_shard(folder, Shard(0, ROWS[:4], [{"key": key, "sample": 0}] * 4, []))
    join_parquet(folder, tmp_path / "a.parquet", completed(folder, DESCRIBED))
    table = parquet.read_table(tmp_path / "a.parquet")
    assert table["key"].to_pylist()[3:5] == [r"caf\udce9.jpg", "k4"]
    assert open_set(tmp_path / "a.parquet").keys([0])[0].key == r"caf\udce9.jpg"


@pytest.mark.parametrize(("content", "lines"), [(b"", 0), (b"a\n", 1), (b"a\nb", 2), (b"\n\n", 2)])
def test_lines_are_counted_with_the_last(tmp_path, content, lines):
    (tmp_path / "keys").write_bytes(content)
    assert count_keys(tmp_path / "keys") == lines


def test_keys_stay_as_they_are_in_json(folder):
    key = b"\xff".decode(errors="surrogateescape")
    write_shard(folder, Shard(0, ROWS[:1], [{"key": key}], []))
    assert json.loads((folder / "00000.keys.jsonl").read_text())["key"] == key
