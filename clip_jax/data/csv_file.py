"""Lists of images with captions or labels as CSV or TSV, a row a sample, as open_clip reads them."""

import csv
import io
import os
import sys
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64

from clip_jax.data import files
from clip_jax.data.beside import CLASS_NAMES, class_names_near
from clip_jax.data.packed import PackedTexts, TextPacker
from clip_jax.data.ranges import open_stream
from clip_jax.data.table import BadSample, Indices, Sample, check_indices
from clip_jax.errors import UserError
from clip_jax.schema import nearest

SEPARATORS = {"tab": "\t", "comma": ","}
IMAGES = ("filepath", "image", "image_path", "path", "file_name", "filename", "file")  # open_clip's, then the usual
CAPTIONS = ("title", "caption", "text")
LABELS = ("label", "class")
NO_LABEL, WRONG_LABEL = -1, -2  # in place of a class index


class CsvTable:
    """The rows of `path`, a file or URL whose first row names the columns; several rows may have one image.

    `image` is the column of image files, paths seen from the CSV's folder or URLs, and `caption` that of their
    captions; by default `filepath` and `title` as in open_clip, else whichever usual name there is. `label`, or a
    column of that name, has the name of each image's class; a `classnames.txt` beside the file gives these an order,
    and then the column may have their numbers. Where there are labels, captions need not be. Without a `separator`,
    tab or comma, it is what the first row has. A sample's key is IMAGE#ROW, rows counted from 1. Raises UserError for a
    file without such columns or rows.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        image: str | None = None,
        caption: str | None = None,
        separator: str | None = None,
        label: str | None = None,
    ) -> None:
        self._path = os.fspath(path)
        self._folder = os.path.dirname(self._path)
        if separator is not None and separator not in SEPARATORS:
            raise UserError(f"the CSV separator '{separator}' is not known; {nearest(separator, SEPARATORS)}")
        columns = _read(self._path, image, caption, label, separator)
        self._images, self._captions, said = columns
        self.class_names, self._labels = _classes(said, class_names_near(self._path))
        if not len(self):
            raise UserError(f"{self._path} has no rows behind its first, which names the columns")

    @property
    def parts(self) -> dict[str, int]:
        return {self._path: len(self)}

    @property
    def is_remote(self) -> bool:
        return files.is_remote(self._place(0))

    def __len__(self) -> int:
        return len(self._images)

    def keys(self, indices: Indices) -> list[str]:
        return [self._key(row) for row in check_indices(indices, len(self)).tolist()]

    def read(self, indices: Indices) -> list[Sample | BadSample]:
        rows = check_indices(indices, len(self)).tolist()
        contents = files.read_files(self._place(row) for row in rows if self._images.encoded(row))
        return [self._sample(row, contents.get(self._place(row), b"")) for row in rows]

    def _key(self, row: int) -> str:
        return f"{self._images.printable(row)}#{row + 1}"

    def _place(self, row: int) -> str:
        return files.join(self._folder, os.fsdecode(self._images.encoded(row)))

    def _sample(self, row: int, image: bytes | UserError) -> Sample | BadSample:
        key = self._key(row)
        if not self._images.encoded(row):
            return BadSample(key, "no image", "its row names no image")
        if not isinstance(image, bytes) or not image:
            return BadSample(key, "no image", str(image or f"{self._place(row)} is an empty file"))
        try:
            caption = self._captions.encoded(row).decode().strip()
        except UnicodeDecodeError:
            return BadSample(key, "bad caption", "its caption is not UTF-8 text")
        label = NO_LABEL if self._labels is None else int(self._labels[row])
        if label == WRONG_LABEL and not caption:
            return BadSample(key, "bad label", f"its label is no class in {CLASS_NAMES}")
        return Sample(key, image, (caption,) if caption else (), None if label < 0 else label)


def _read(
    path: str, image: str | None, caption: str | None, label: str | None, separator: str | None
) -> tuple[PackedTexts, PackedTexts, list[str] | None]:
    """The columns of images, of captions and, where there is one, of labels."""
    images, captions, labels = TextPacker(), TextPacker(), []
    with (
        open_stream(path, files.stamp(path).size) as stream,
        io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="") as lines,
    ):
        first = lines.readline()
        delimiter = SEPARATORS[separator] if separator else "\t" if "\t" in first else ","
        line = 1  # where the row begins
        try:
            header = [name.strip() for name in next(csv.reader([first], delimiter=delimiter), [])]
            image_at = _column(path, header, image, IMAGES, "image")
            label_at = _column(path, header, label, LABELS, "label", optional=True)
            caption_at = _column(path, header, caption, CAPTIONS, "caption", optional=label_at is not None)
            line = 2
            rows = csv.reader(lines, delimiter=delimiter, strict=True)
            for row in rows:
                if row:
                    images.add(_cell(row, image_at).strip())
                    captions.add(_cell(row, caption_at))
                    labels.append(sys.intern(_cell(row, label_at).strip()))
                line = 2 + rows.line_num
        except csv.Error as error:
            raise UserError(
                f"{path} is not readable CSV ({error}) in the row that begins at line {line}; "
                'close its quotes, and write a quote within quotes as ""'
            ) from error
    return images.packed(), captions.packed(), None if label_at is None else labels


def _cell(row: Sequence[str], column: int | None) -> str:
    return "" if column is None or column >= len(row) else row[column]


def _classes(said: list[str] | None, names: tuple[str, ...]) -> tuple[tuple[str, ...], Int64[np.ndarray, " n"] | None]:
    """The class names, by `names` where there are any, and the class of each row."""
    if said is None:
        return (), None
    names = names or tuple(sorted(set(said) - {""}))
    place = {str(number): number for number in range(len(names))}
    place |= {name: number for number, name in enumerate(names)} | {"": NO_LABEL}
    return names, np.array([place.get(text, WRONG_LABEL) for text in said], np.int64)


def _column(
    path: str, header: Sequence[str], given: str | None, usual: Sequence[str], option: str, optional: bool = False
) -> int | None:
    """The place of a column; None where it is `optional`, not `given` and not there."""
    names = [given] if given else [name for name in usual if name in header]
    if not names and optional:
        return None
    if not names:
        there = ", ".join(header)[:200] or "nothing"
        raise UserError(f"{path} has no column {' or '.join(usual)}; {option}=COLUMN names one of: {there}")
    if names[0] not in header:
        raise UserError(f"{path} has no column '{names[0]}'; {nearest(names[0], header)}")
    return header.index(names[0])
