"""Scenes on disk are the scenes of the table, whatever the number of cores, and are not mixed up."""

import json
import subprocess
import sys

import pytest

from clip_jax.data.draw_splits import draw_splits
from clip_jax.data.scenes import ScenesTable
from clip_jax.data.spec import open_table
from clip_jax.data.table import usable
from clip_jax.errors import UserError


def test_shards_hold_what_the_table_draws(tmp_path):
    draw_splits(tmp_path / "scenes", {"train": 300, "held_out": 24}, seed=7, image_size=32)
    for split in ("train", "held_out"):
        table = open_table(f"tar:{tmp_path}/scenes/{split}?captions=captions")
        drawn = ScenesTable(split, len(table), seed=7, image_size=32)
        assert table.class_names == drawn.class_names
        for read, made in zip(*(usable(t.read(range(len(table)))) for t in (table, drawn)), strict=True):
            assert (read.image, read.captions, read.label) == (made.image, made.captions, made.label)
            assert read.key.endswith(made.key)
    assert len(open_table(f"tar:{tmp_path}/scenes/train")) == 300

    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    draw_splits(tmp_path / "scenes", {"train": 300, "held_out": 24}, seed=7, image_size=32)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    for other in ({"seed": 8, "image_size": 32}, {"seed": 7, "image_size": 48}):
        with pytest.raises(UserError, match="was drawn with"):
            draw_splits(tmp_path / "scenes", {"train": 300}, **other)
    assert json.loads((tmp_path / "scenes" / "train" / "description.json").read_text())["seed"] == 7


def test_a_script_without_a_main_guard_is_told(tmp_path):
    script = tmp_path / "draw.py"
    script.write_text(
        "from pathlib import Path\n"
        "from clip_jax.data.draw_splits import draw_splits\n"
        f"draw_splits(Path({str(tmp_path)!r}), {{'train': 8}}, 0, 16)\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "UserError: the processes that draw have ended" in done.stderr.splitlines()[-1]
    assert "`if __name__ == '__main__':`" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "train").exists()
