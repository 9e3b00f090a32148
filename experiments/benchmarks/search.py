"""Seconds to find the nearest rows of a million for a hundred queries, by clip_jax and by NumPy, in one run.

    python experiments/benchmarks/search.py [--rows 1000000] [--width 512] [--queries 100] [-k 10] [--json FILE]

The rows are float32 of length one in a memory-mapped file, drawn once. NumPy multiplies all of them in one product and
takes the best by argpartition and sort, which needs the whole matrix of scores. The sides take turns; compilation is
counted in the first round, which is told apart. Memory is what a process of its own has beside the mapped file. The
answers are compared: rows must be equal but where NumPy's float32 cannot tell two scores apart.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

os.environ["JAX_PLATFORMS"] = os.environ.get("JAX_PLATFORMS", "cpu")

import numpy as np

from clip_jax.search.nearest import nearest

ROWS_AT_ONCE = 10_000
Answer = tuple[np.ndarray, np.ndarray]


def draw(path: Path, rows: int, width: int) -> None:
    """Rows of length one, as a memory-mapped file."""
    rng = np.random.default_rng(0)
    file = np.lib.format.open_memmap(path, "w+", np.float32, (rows, width))
    for start in range(0, rows, ROWS_AT_ONCE):
        some = rng.standard_normal((min(ROWS_AT_ONCE, rows - start), width), np.float32)
        file[start : start + len(some)] = some / np.linalg.norm(some, axis=1, keepdims=True)
    file.flush()


def ours(rows: np.ndarray, queries: np.ndarray, k: int) -> Answer:
    found = nearest(rows, queries, k)
    return found.rows, found.scores


def numpy(rows: np.ndarray, queries: np.ndarray, k: int) -> Answer:
    scores = queries @ rows.T
    best = np.sort(np.argpartition(-scores, k, axis=1)[:, :k], axis=1)
    values = np.take_along_axis(scores, best, axis=1)
    order = np.argsort(-values, axis=1, kind="stable")
    return np.take_along_axis(best, order, axis=1), np.take_along_axis(values, order, axis=1)


SIDES: dict[str, Callable[[np.ndarray, np.ndarray, int], Answer]] = {"clip_jax": ours, "NumPy": numpy}


def own_memory() -> float:
    """MiB of this process that belong to no file."""
    found = re.search(r"RssAnon:\s+(\d+)", Path("/proc/self/status").read_text())
    return int(found[1]) / 1024 if found else float("nan")


def measure_memory(side: str, path: Path, queries: np.ndarray, k: int) -> None:
    """Prints how much more than before a side has at its peak."""
    rows = np.load(path, mmap_mode="r")
    SIDES[side](rows[:ROWS_AT_ONCE], queries, k)
    before, seen, over = own_memory(), [0.0], threading.Event()

    def watch() -> None:
        while not over.wait(0.01):
            seen.append(own_memory() - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    SIDES[side](rows, queries, k)
    over.set()
    watcher.join()
    print(max(seen))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("-k", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--file", type=Path, help="where the rows are kept for another time (default: nowhere)")
    parser.add_argument("--memory-of", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path, help="where to write the results")
    arguments = parser.parse_args()
    rng = np.random.default_rng(1)
    queries = rng.standard_normal((arguments.queries, arguments.width), np.float32)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    if arguments.memory_of:
        return measure_memory(arguments.memory_of, arguments.file, queries, arguments.k)
    with tempfile.TemporaryDirectory() as folder:
        path = arguments.file or Path(folder) / "rows.npy"
        if not path.exists():
            draw(path, arguments.rows, arguments.width)
        compare(path, queries, arguments)


def compare(path: Path, queries: np.ndarray, arguments: argparse.Namespace) -> None:
    rows = np.load(path, mmap_mode="r")
    seconds: dict[str, list[float]] = {name: [] for name in SIDES}
    processor: dict[str, list[float]] = {name: [] for name in SIDES}
    answers: dict[str, Answer] = {}
    for _ in range(arguments.rounds):
        for name, side in SIDES.items():
            start, used = time.perf_counter(), time.process_time()
            answers[name] = side(rows, queries, arguments.k)
            seconds[name].append(time.perf_counter() - start)
            processor[name].append(time.process_time() - used)
    (our_rows, our_scores), (their_rows, their_scores) = answers.values()
    differ = our_rows != their_rows
    assert np.abs(our_scores - their_scores).max() < 1e-6
    assert not differ.any() or np.abs(our_scores - their_scores)[differ].max() < 1e-6
    load = os.getloadavg()[0]
    print(
        f"{len(rows):,} x {rows.shape[1]} float32, the best {arguments.k} for {len(queries)} queries; load {load:.1f}"
    )
    print(f"rows that differ, all within rounding: {int(differ.sum())} of {differ.size}\n")
    print(f"{'':10}{'median s':>10}{'best s':>9}{'first s':>9}{'CPU s':>8}{'ratio':>7}{'MiB':>8}")
    results = {}
    for name, times in seconds.items():
        command = [sys.executable, __file__, "--memory-of", name, "--file", str(path), "-k", str(arguments.k)]
        command += ["--queries", str(len(queries)), "--width", str(rows.shape[1])]
        memory = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        median = statistics.median(times)
        results[name] = {
            "median_seconds": median,
            "best_seconds": min(times),
            "first_seconds": times[0],
            "cpu_seconds": statistics.median(processor[name]),
            "times_numpy": statistics.median(seconds["NumPy"]) / median,
            "mebibytes": memory,
        }
        print(
            f"{name:10}{median:10.2f}{min(times):9.2f}{times[0]:9.2f}{results[name]['cpu_seconds']:8.2f}"
            f"{results[name]['times_numpy']:7.2f}{memory:8.0f}"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
