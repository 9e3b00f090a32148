"""Sets of embeddings that are damaged, or somebody's own, are read or refused in a line."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from clip_jax.errors import UserError
from clip_jax.search.description import Description
from clip_jax.search.embedding_set import Key, open_set

DESCRIBED = Description("m", "v", "t", "d", "dd", "texts", 6, 4, 3, True, "float32", "float32", rows=6)
ROWS = np.arange(18, dtype=np.float32).reshape(6, 3)


def own(tmp_path: Path, *lines: str) -> Path:
    np.save(tmp_path / "own.npy", ROWS)
    (tmp_path / "own.npy.keys.jsonl").write_text("\n".join(lines))
    return tmp_path / "own.npy"


def parquet_file(tmp_path: Path, **columns: object) -> Path:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    embedding = arrow.FixedSizeListArray.from_arrays(arrow.array(ROWS.reshape(-1)), 3)
    given = {"key": [f"k{row}" for row in range(6)], "sample": [*range(6)], "embedding": embedding} | columns
    table = arrow.table({name: column for name, column in given.items() if column is not None})
    parquet.write_table(table, tmp_path / "a.parquet")
    (tmp_path / "a.parquet.json").write_text(DESCRIBED.to_json())
    return tmp_path / "a.parquet"


def test_keys_of_ones_own_may_say_more(tmp_path):
    lines = [json.dumps({"key": f"k{row}", "url": "http://", "caption": "c" if row else None}) for row in range(6)]
    assert open_set(own(tmp_path, *lines)).keys([5, 0]) == {0: Key("k0"), 5: Key("k5", None, "c")}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('"k1"', "line 2 must be a mapping"),
        ('{"name": "k1"}', "line 2 lacks the key 'key'"),
        ('{"key": 1}', r"line 2\.key must be a string, not 1"),
        ('{"key": "k", "sample": "1"}', r"line 2\.sample must be an integer or none"),
        ("k1", "has no key for row 1 of its file"),
    ],
)
def test_keys_that_are_none(tmp_path, line, message):
    found = open_set(own(tmp_path, '{"key": "k0"}', line, *['{"key": "k"}'] * 4))
    with pytest.raises(UserError, match=message):
        found.keys([1])


@pytest.mark.parametrize("keys", [5, 7])
def test_keys_have_to_be_as_many_as_rows(tmp_path, keys):
    with pytest.raises(UserError, match=rf"own\.npy\.keys\.jsonl has {keys} keys, and the set has 6 rows beside it"):
        open_set(own(tmp_path, *['{"key": "k"}'] * keys))


def test_a_folder_whose_keys_are_lost(tmp_path):
    (tmp_path / "set.json").write_text(replace(DESCRIBED, rows=6).to_json())
    for number, rows in enumerate((ROWS[:4], ROWS[4:])):
        np.save(tmp_path / f"{number:05d}.npy", rows)
        (tmp_path / f"{number:05d}.keys.jsonl").write_text('{"key": "k"}\n' * len(rows))
    assert open_set(tmp_path).sizes == [4, 2]
    (tmp_path / "00000.keys.jsonl").unlink()
    with pytest.raises(UserError, match=r"cannot read .*00000\.keys\.jsonl, which says what each row is of"):
        open_set(tmp_path)


def test_a_parquet_file_that_is_whole(tmp_path):
    found = open_set(parquet_file(tmp_path))
    np.testing.assert_array_equal(np.concatenate(list(found.parts())), ROWS)
    assert found.keys([4]) == {4: Key("k4", 4)}


def test_a_parquet_file_cut_short(tmp_path):
    path = parquet_file(tmp_path)
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(UserError, match=r"cannot read .*a\.parquet as a Parquet file: ArrowInvalid"):
        open_set(path)


def test_a_parquet_file_with_damaged_pages(tmp_path):
    path = parquet_file(tmp_path)
    content = bytearray(path.read_bytes())
    content[4:400] = bytes(396)  # behind the magic number, before the footer
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"cannot read .*a\.parquet as a Parquet file"):
        list(open_set(path).parts())


@pytest.mark.parametrize("columns", [{"embedding": None}, {"key": None}, {"embedding": [1.0] * 6}])
def test_a_parquet_file_of_something_else(tmp_path, columns):
    path = parquet_file(tmp_path, **columns)
    with pytest.raises(UserError, match=r"a\.parquet has not the columns key and embedding"):
        open_set(path)
