"""What lies beside the files of a dataset, or one folder above them, in CLIP_benchmark's layout.

`classnames.txt` has a class name a line; `dataset_type.txt` says `retrieval` where every line of a .txt is a caption,
and `multilabel` where a .npy marks the several labels of an image; `zeroshot_classification_templates.txt` has a
template a line, and `nshards.txt` the number of tars, beside them.
Source: the webdatasets of github.com/LAION-AI/CLIP_benchmark.
"""

import os
from typing import Literal, TypeAlias

from clip_jax.data import files
from clip_jax.errors import UserError
from clip_jax.schema import nearest

CLASS_NAMES, KIND, TEMPLATES = "classnames.txt", "dataset_type.txt", "zeroshot_classification_templates.txt"
SHARDS = "nshards.txt"
Kind: TypeAlias = Literal["classification", "retrieval", "multilabel"]
KINDS: tuple[Kind, ...] = ("classification", "retrieval", "multilabel")


def class_names_near(path: str) -> tuple[str, ...]:
    """The names in `classnames.txt` near a file; none where there is no such file."""
    found = _near(path, CLASS_NAMES)
    return read_class_names(found) if found else ()


def read_class_names(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """The names in a file of one class name a line. Raises UserError where it cannot be read."""
    return tuple(_lines(os.fspath(path), "class name"))


def kind_near(path: str) -> Kind:
    """What `dataset_type.txt` near a file says, `classification` where there is none. Raises UserError."""
    found = _near(path, KIND)
    said = "".join(_lines(found, "word")).lower() if found else "classification"
    if said not in KINDS:
        raise UserError(f"{found} says '{said}'; {nearest(said, KINDS)}")
    return said


def templates_near(path: str) -> tuple[str, ...]:
    """The templates near a file, with {} for the class name; none where there are no such."""
    found = _near(path, TEMPLATES)
    return tuple(line.replace("{c}", "{}") for line in _lines(found, "template")) if found else ()


def files_beside(path: str) -> list[str]:
    """The files near one that say what is in it, where they are."""
    found = (_near(path, name) for name in (CLASS_NAMES, KIND))
    return [place for place in found if place]


def check_shards(paths: list[str]) -> None:
    """Raises UserError where `nshards.txt` beside the tars of a folder counts another number of them."""
    place = files.join(os.path.dirname(paths[0]), SHARDS)
    if files.kind(place) != "file":
        return
    said = "".join(_lines(place, "number"))
    if not said.isdigit():
        raise UserError(f"{place} says '{said}'; the number of tars would be right")
    if int(said) != len(paths):
        raise UserError(f"{place} counts {said} tars, but {len(paths)} are there; fetch them again")


def _near(path: str, name: str) -> str | None:
    folder = os.path.dirname(path if files.is_remote(path) else os.path.abspath(path))
    for place in (folder, os.path.dirname(folder)):
        found = f"{place.rstrip('/')}/{name}"
        if not place.endswith(":") and files.kind(found) == "file":
            return found
    return None


def _lines(path: str, what: str) -> list[str]:
    try:
        text = files.read_file(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text; one {what} a line would be") from error
    return [line.strip() for line in text.strip().splitlines()]
