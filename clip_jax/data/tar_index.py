"""The index of a tar shard in webdataset's layout: where the files of each sample lie.

It is kept in arrays rather than objects: about 60 bytes a sample in memory.
"""

import re
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BufferedReader

import numpy as np
from jaxtyping import Int64

from clip_jax.data.index_file import open_indexes
from clip_jax.data.packed import PackedTexts
from clip_jax.data.ranges import Range, open_stream
from clip_jax.errors import UserError

IMAGE_EXTENSIONS = ("jpg", "png", "jpeg", "webp")  # the first that a sample has is its image, as in open_clip
VERSION = 2
ABSENT: Range = (0, 0)  # the sample has no such file; an empty file counts as none
NO_LABEL, WRONG_LABEL = -1, -2  # in place of a class index: there is no key.cls, or no class index in it
_WHOLE = -1
_NAME = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]*)", re.DOTALL)  # the key ends at the file name's first dot


@dataclass(frozen=True)
class TarIndex:
    """Where the samples of one shard lie, one row a sample; all of them where the shard breaks off or not.

    `broken` is the byte from which on the tar cannot be read, or None. A range may reach beyond the shard's `size`.
    """

    size: int
    keys: PackedTexts
    image: Int64[np.ndarray, "n 2"]  # offset and size, as in Range
    caption: Int64[np.ndarray, "n 2"]  # of key.txt or key.json
    label: Int64[np.ndarray, " n"]
    end: Int64[np.ndarray, " n"]  # the byte behind the sample's last file
    broken: int | None

    def __len__(self) -> int:
        return len(self.label)

    def is_cut(self, row: int) -> bool:
        """Whether the shard ends within the sample, or before its image."""
        last = self.broken is not None and row == len(self) - 1
        return bool(self.end[row] > self.size or (last and not self.image[row, 1]))


def open_tar_indexes(paths: Sequence[str], caption: str) -> list[TarIndex]:
    """The indexes of shards, with the place of each sample's file of extension `caption`, txt or json.

    Raises UserError where a shard cannot be read or nothing in it is a tar.
    """
    columns = ("keys", "key_ends", "image", caption, "label", "end", "broken")
    return [
        TarIndex(
            size=size,
            keys=PackedTexts(stored["keys"], stored["key_ends"]),
            image=stored["image"],
            caption=stored[caption],
            label=stored["label"],
            end=stored["end"],
            broken=None if stored["broken"] == _WHOLE else int(stored["broken"]),
        )
        for stored, size in open_indexes(paths, scan, VERSION, columns)
    ]


def scan(path: str, size: int) -> dict[str, np.ndarray]:
    """The columns of a shard's index, from one pass over it. Raises UserError."""
    keys: list[str] = []
    samples: list[dict[str, Range]] = []
    labels: list[int] = []
    with open_stream(path, size) as file:
        walk = _Walk(file, size)
        for key, extension, place in walk.members():
            if not samples or key != keys[-1] or extension in samples[-1]:
                keys.append(key)
                samples.append({})
                labels.append(NO_LABEL)
            samples[-1][extension] = place
            if extension == "cls" and sum(place) <= size:
                labels[-1] = _label(file, place)
    if walk.problem and not keys:
        raise UserError(f"{path} is not a whole, uncompressed tar ({walk.problem}); fetch or unpack it again")
    images = [next((sample[e] for e in IMAGE_EXTENSIONS if e in sample), ABSENT) for sample in samples]
    packed = PackedTexts.pack(_distinct(keys))
    return {
        "keys": packed.data,
        "key_ends": packed.ends,
        "image": _rows(images),
        "txt": _rows([sample.get("txt", ABSENT) for sample in samples]),
        "json": _rows([sample.get("json", ABSENT) for sample in samples]),
        "label": np.array(labels, np.int64),
        "end": np.array([max(map(sum, sample.values())) for sample in samples], np.int64),
        "broken": np.array(walk.broken),
    }


class _Walk:
    """One pass over a tar; `broken` is the byte where it cannot go on, `problem` why, once it has ended."""

    def __init__(self, file: BufferedReader, size: int) -> None:
        self._file, self._size = file, size
        self.broken, self.problem = _WHOLE, ""

    def members(self) -> Iterator[tuple[str, str, Range]]:
        """Key, extension and place of each file that belongs to a sample, in the order of the tar."""
        offset = 0
        try:
            with tarfile.open(fileobj=self._file, mode="r:") as tar:
                while (member := tar.next()) is not None:
                    tar.members.clear()  # tarfile keeps them all otherwise  # pyright: ignore[reportAttributeAccessIssue]
                    offset = tar.offset
                    name = _NAME.fullmatch(member.name.removeprefix("./"))
                    if not name or not member.isreg() or member.issparse():
                        continue
                    key, extension = name[1], name[2].lower()
                    if extension in (*IMAGE_EXTENSIONS, "txt", "json", "cls"):
                        yield key, extension, (member.offset_data, member.size)
                offset = tar.offset
            # tarfile takes a damaged header, or a file that ends after a header, for the end of the archive.
            self._file.seek(offset)
            if self._file.read(512) != bytes(512):
                raise tarfile.ReadError("no end-of-archive mark")
        except (tarfile.TarError, ValueError, EOFError, OverflowError) as error:
            self.broken, self.problem = min(offset, self._size), str(error)


def _label(file: BufferedReader, place: Range) -> int:
    file.seek(place[0])
    text = file.read(min(place[1], 64)).strip()
    return int(text) if text.isdigit() and len(text) <= 9 else WRONG_LABEL


def _distinct(keys: list[str]) -> list[str]:
    """The keys of a shard, those that come again with ~2, ~3, ... behind."""
    times: Counter[str] = Counter()
    names = []
    for key in keys:
        times[key] += 1
        names.append(key if times[key] == 1 else f"{key}~{times[key]}")
    return names


def _rows(ranges: list[Range]) -> Int64[np.ndarray, "n 2"]:
    return np.array(ranges, np.int64).reshape(-1, 2)
