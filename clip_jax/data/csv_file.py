"""Lists of images and captions as CSV or TSV, a row a sample, as open_clip reads them."""

import csv
import io
import os
from collections.abc import Sequence

from clip_jax.data import files
from clip_jax.data.packed import PackedTexts, TextPacker
from clip_jax.data.ranges import open_stream
from clip_jax.data.table import BadSample, Indices, Sample, check_indices
from clip_jax.errors import UserError
from clip_jax.schema import nearest

SEPARATORS = {"tab": "\t", "comma": ","}
IMAGES = ("filepath", "image", "image_path", "path", "file_name", "filename", "file")  # open_clip's, then the usual
CAPTIONS = ("title", "caption", "text")


class CsvTable:
    """The rows of `path`, a file or URL whose first row names the columns; several rows may have one image.

    `image` is the column of image files, paths seen from the CSV's folder or URLs, and `caption` that of their
    captions; by default `filepath` and `title` as in open_clip, else whichever usual name there is. Without a
    `separator`, tab or comma, it is what the first row has. A sample's key is IMAGE#ROW, rows counted from 1. Raises
    UserError for a file without such columns or rows.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        image: str | None = None,
        caption: str | None = None,
        separator: str | None = None,
    ) -> None:
        self._path = os.fspath(path)
        self._folder = os.path.dirname(self._path)
        if separator is not None and separator not in SEPARATORS:
            raise UserError(f"the CSV separator '{separator}' is not known; {nearest(separator, SEPARATORS)}")
        self._images, self._captions = _read(self._path, image, caption, separator)
        if not len(self):
            raise UserError(f"{self._path} has no rows behind its first, which names the columns")

    @property
    def parts(self) -> dict[str, int]:
        return {self._path: len(self)}

    @property
    def is_remote(self) -> bool:
        return files.is_remote(self._place(0))

    @property
    def class_names(self) -> tuple[str, ...]:
        return ()

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
        return Sample(key, image, (caption,) if caption else ())


def _read(path: str, image: str | None, caption: str | None, separator: str | None) -> tuple[PackedTexts, PackedTexts]:
    """The columns of images and of captions."""
    images, captions = TextPacker(), TextPacker()
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
            caption_at = _column(path, header, caption, CAPTIONS, "caption")
            line = 2
            rows = csv.reader(lines, delimiter=delimiter, strict=True)
            for row in rows:
                if row:
                    images.add(row[image_at].strip() if image_at < len(row) else "")
                    captions.add(row[caption_at] if caption_at < len(row) else "")
                line = 2 + rows.line_num
        except csv.Error as error:
            raise UserError(
                f"{path} is not readable CSV ({error}) in the row that begins at line {line}; "
                'close its quotes, and write a quote within quotes as ""'
            ) from error
    return images.packed(), captions.packed()


def _column(path: str, header: Sequence[str], given: str | None, usual: Sequence[str], option: str) -> int:
    names = [given] if given else [name for name in usual if name in header]
    if not names:
        there = ", ".join(header)[:200] or "nothing"
        raise UserError(f"{path} has no column {' or '.join(usual)}; {option}=COLUMN names one of: {there}")
    if names[0] not in header:
        raise UserError(f"{path} has no column '{names[0]}'; {nearest(names[0], header)}")
    return header.index(names[0])
