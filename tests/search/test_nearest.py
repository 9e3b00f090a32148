"""The nearest rows: NumPy's in float64, however they are cut, whatever is wrong with them."""

import numpy as np
import pytest

from clip_jax.errors import UserError
from clip_jax.search import nearest as module
from clip_jax.search.nearest import nearest


def draw(rows: int, width: int = 24, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, width), np.float32)


def expected(rows: np.ndarray, queries: np.ndarray, k: int, cosine: bool = False) -> tuple[np.ndarray, np.ndarray]:
    rows, queries = rows.astype(np.float64), queries.astype(np.float64)
    if cosine:
        rows, queries = (some / np.linalg.norm(some, axis=1, keepdims=True) for some in (rows, queries))
    scores = (queries @ rows.T).astype(np.float32)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return order, np.take_along_axis(scores, order, axis=1)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """Eight devices take 256 rows at once."""
    monkeypatch.setattr(module, "CHUNK_BYTES", 256 * 24 * 4)


@pytest.mark.parametrize("cosine", [False, True])
@pytest.mark.parametrize(("count", "k"), [(1, 1), (31, 5), (256, 10), (257, 10), (1500, 1), (1500, 40), (1500, 600)])
def test_as_numpy_has_it(count, k, cosine):
    rows, queries = draw(count) * np.geomspace(0.01, 100, count, dtype=np.float32)[:, None], draw(7, seed=1)
    found = nearest(rows, queries, k, cosine)
    order, scores = expected(rows, queries, k, cosine)
    np.testing.assert_array_equal(found.rows, order)
    np.testing.assert_allclose(found.scores, scores, rtol=2e-7)  # which way float64's last digit rounds
    assert found.scores.dtype == np.float32


def test_more_queries_than_are_taken_at_once(monkeypatch):
    monkeypatch.setattr(module, "QUERIES_AT_ONCE", 3)
    rows, queries = draw(700), draw(8, seed=1)
    np.testing.assert_array_equal(nearest(rows, queries, 4).rows, expected(rows, queries, 4)[0])


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_rows_of_other_precision(dtype):
    rows, queries = draw(600).astype(dtype), draw(5, seed=1)
    found, (order, scores) = nearest(rows, queries, 9), expected(rows.astype(np.float32), queries, 9)
    np.testing.assert_array_equal(found.rows, order)
    np.testing.assert_allclose(found.scores, scores, rtol=2e-7)


def test_the_cut_into_parts_changes_nothing(tmp_path):
    rows, queries = draw(1000), draw(5, seed=1)
    np.save(tmp_path / "rows.npy", rows)
    whole = nearest(np.load(tmp_path / "rows.npy", mmap_mode="r"), queries, 20)
    for bounds in ([1, 2, 900], [256, 512], [300, 300, 999]):
        parts = nearest(iter(np.split(rows, bounds)), queries, 20)
        np.testing.assert_array_equal(parts.rows, whole.rows)
        np.testing.assert_array_equal(parts.scores, whole.scores)


def test_of_equal_rows_the_first_ones_come_first():
    rows, queries = np.tile(draw(3), (400, 1)), draw(6, seed=1)
    found = nearest(rows, queries, 500, cosine=True)
    best = expected(rows[:3], queries, 3, cosine=True)[0]
    for query in range(6):
        first, second = best[query][:2]
        wanted = [*range(first, 1200, 3), *range(second, 1200, 3)][:500]
        assert found.rows[query].tolist() == wanted
        assert len(set(found.scores[query].tolist())) == 2


@pytest.mark.parametrize("cosine", [False, True])
@pytest.mark.parametrize("k", [1, 3, 70, 3000])
def test_many_equal_rows_among_others(k, cosine):
    """Whole numbers, whose products are exact: NumPy's ties are ties, over blocks and chunks."""
    rows = np.random.default_rng(0).choice([-1, 1], (7, 16)).astype(np.float32)
    rows = rows[np.random.default_rng(1).choice(7, 3000, p=[0.7, 0.2, 0.02, 0.02, 0.02, 0.02, 0.02])]
    queries = np.random.default_rng(2).choice([-1, 1], (9, 16)).astype(np.float32)
    order, scores = expected(rows, queries, k, cosine)
    found = nearest(rows, queries, k, cosine)
    np.testing.assert_array_equal(found.rows, order)
    np.testing.assert_array_equal(found.scores, scores)


def test_equal_rows_have_equal_scores_wherever_they_are():
    """Not so of a matrix product, whose last digit depends on what stands beside a row."""
    rows = np.tile(draw(1, 509), (3001, 1))
    found = nearest(rows, draw(40, 509, seed=1), 3001, cosine=True)
    np.testing.assert_array_equal(found.rows, np.tile(np.arange(3001), (40, 1)))
    assert (found.scores == found.scores[:, :1]).all()


def test_near_ties_are_told_apart():
    """Scores that differ by less than what float32 loses in summing."""
    queries = np.ones((1, 24), np.float32)
    rows = np.full((900, 24), 1000, np.float32)
    rows[:, 1::2] = -1000  # sums to nothing, but for what is left of the first
    rows[:, 0] += np.random.default_rng(0).permutation(900).astype(np.float32) / 1024
    order, scores = expected(rows, queries, 50)
    found = nearest(rows, queries, 50)
    np.testing.assert_array_equal(found.rows, order)
    np.testing.assert_array_equal(found.scores, scores)


def test_fewer_rows_than_wanted_give_all():
    found = nearest(draw(4), draw(2, seed=1), 10)
    assert found.rows.shape == found.scores.shape == (2, 4)
    assert sorted(found.rows[0].tolist()) == [0, 1, 2, 3]


def test_memory_is_not_taken_for_rows_that_are_not_there():
    rows, queries = draw(300), draw(2, seed=1)
    found = nearest(iter([rows[:200], rows[200:]]), queries, 10**15)
    np.testing.assert_array_equal(found.rows, expected(rows, queries, 300)[0])
    assert nearest(iter([]), queries, 10**15).rows.shape == (2, 0)


def test_no_queries_are_a_mistake():
    with pytest.raises(UserError, match="there are no queries"):
        nearest(draw(5), draw(2)[:0], 3)


def spoilt(value: float) -> np.ndarray:
    rows = draw(600)
    rows[300] = 0 if value == 0 else rows[300]
    rows[300, 3] = value
    return rows


@pytest.mark.parametrize("cosine", [False, True])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_none_are_named(value, cosine):
    with pytest.raises(UserError, match="row 300 is not finite"):
        nearest(spoilt(value), draw(2), 3, cosine)
    with pytest.raises(UserError, match="query 300 is not finite"):
        nearest(draw(5), spoilt(value), 3, cosine)


def test_zeros_have_no_direction():
    assert len(nearest(spoilt(0), draw(2), 3).rows) == 2
    with pytest.raises(UserError, match="row 300 is zero"):
        nearest(spoilt(0), draw(2), 3, cosine=True)
    with pytest.raises(UserError, match="query 300 is zero"):
        nearest(draw(5), spoilt(0), 3, cosine=True)


@pytest.mark.parametrize(
    ("rows", "k", "message"),
    [
        (draw(5, 23), 3, "queries of 24 numbers do not fit rows of 23"),
        (draw(5)[0], 3, "not float32 \\[24\\]"),
        (draw(5).astype(np.int32), 3, "not int32"),
        (draw(5), 0, "k is 0"),
    ],
)
def test_mistakes_are_named(rows, k, message):
    with pytest.raises(UserError, match=message):
        nearest(rows, draw(2), k)


MEMORY = """
import re, sys, threading, time
import numpy as np
from clip_jax.search.nearest import nearest
rows = np.load(sys.argv[1], mmap_mode="r")
queries = np.random.default_rng(1).standard_normal((100, 512)).astype(np.float32)
nearest(rows[:20000], queries, 10)
used = lambda: int(re.search(r"RssAnon:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024
before, seen = used(), []
threading.Thread(target=lambda: [(seen.append(used()), time.sleep(0.01)) for _ in iter(int, 1)], daemon=True).start()
nearest(rows, queries, 10)
print(max(seen) - before)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_rows(tmp_path):
    import subprocess
    import sys

    rows = np.lib.format.open_memmap(tmp_path / "rows.npy", "w+", np.float32, (400_000, 512))  # 800 MB
    for start in range(0, len(rows), 20_000):
        rows[start : start + 20_000] = draw(20_000, 512, start)
    command = [sys.executable, "-c", MEMORY, str(tmp_path / "rows.npy")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    assert float(done.stdout) < 100  # MiB, beside the mapped file
