"""Writes clip_jax/assets/pretrained.tsv: the released weights that open_clip knows, for architectures of clip_jax.

    python experiments/make_pretrained.py [--check]

The table of the installed open_clip_torch is read. `--check` writes nothing and fails unless the vendored table
equals the one it would write.
"""

import argparse
import importlib
import importlib.util
import json
import sys
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

from clip_jax.config import PreprocessConfig
from clip_jax.presets import PRESETS

ASSET = Path(__file__).parents[1] / "clip_jax" / "assets" / "pretrained.tsv"
COLUMNS = ("name", "architecture", "repository", "preprocess")


def installed_table() -> dict[str, dict[str, dict[str, Any]]]:
    """open_clip's table, {architecture: {tag: entry}}, from its module alone: the package would import torchvision."""
    spec = importlib.util.find_spec("open_clip")
    if spec is None or spec.origin is None:
        sys.exit("open_clip_torch is not installed")
    package = ModuleType("open_clip")
    package.__path__ = [str(Path(spec.origin).parent)]
    sys.modules["open_clip"] = package
    return importlib.import_module("open_clip.pretrained")._PRETRAINED


def row(architecture: str, tag: str, entry: dict[str, Any]) -> tuple[str, ...] | None:
    """One line of the table, or None for weights of another architecture or without a repository."""
    repository, _, file = entry["hf_hub"].rpartition("/")
    ours = architecture
    if entry.get("quick_gelu") and not architecture.endswith("-quickgelu"):
        ours = f"{architecture}-quickgelu"
    if ours not in PRESETS or not repository:
        return None
    assert not file, f"{tag}/{architecture} names a file, which the table has no column for"
    theirs = PreprocessConfig(
        resize=entry["resize_mode"], interpolation=entry["interpolation"], mean=entry["mean"], std=entry["std"]
    )
    preset = PRESETS[ours].preprocess
    different = {
        field: getattr(theirs, field)
        for field in ("resize", "interpolation", "mean", "std")
        if getattr(theirs, field) != getattr(preset, field)
    }
    return (f"{tag}/{architecture}", ours, repository, json.dumps(different) if different else "")


def table_text(table: dict[str, dict[str, dict[str, Any]]]) -> str:
    rows = (row(architecture, tag, entry) for architecture, tags in table.items() for tag, entry in tags.items())
    lines = sorted(line for line in rows if line is not None)
    return "".join("\t".join(line).rstrip() + "\n" for line in (COLUMNS, *lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare with the vendored file, write nothing")
    arguments = parser.parse_args()

    text = table_text(installed_table())
    if arguments.check:
        if ASSET.read_text(encoding="utf-8") != text:
            sys.exit(f"{ASSET.name} differs from its source; run this script without --check")
    else:
        ASSET.write_text(text, encoding="utf-8")
    print(f"{text.count(chr(10)) - 1} weights, from open_clip_torch {version('open_clip_torch')}")


if __name__ == "__main__":
    main()
