"""The index of a tar shard in webdataset's layout: where the files of each sample lie.

It is kept in arrays rather than objects: about 60 bytes a sample in memory.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from io import BufferedReader

import numpy as np
from jaxtyping import Int64

from clip_jax.data.files import Stamp
from clip_jax.data.index_file import WHOLE, open_indexes
from clip_jax.data.packed import PackedTexts
from clip_jax.data.ranges import Range, open_stream
from clip_jax.data.tar_walk import TarWalk
from clip_jax.errors import UserError
from clip_jax.inputs.images import EXTENSIONS

VERSION = 4
ABSENT: Range = (0, 0)  # the sample has no such file; an empty file counts as none
NO_LABEL, WRONG_LABEL = -1, -2  # in place of a class index: there is no key.cls, or no class index in it
_NAME = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]*)", re.DOTALL)  # the key ends at the file name's first dot


@dataclass(frozen=True)
class TarIndex:
    """Where the samples of one shard lie, one row a sample; all of them where the shard breaks off or not.

    `stamp` is the shard's version, `broken` the byte from which on it cannot be read, or None. A range may reach beyond
    the shard.
    """

    stamp: Stamp
    keys: PackedTexts
    image: Int64[np.ndarray, "n 2"]  # offset and size, as in Range
    caption: Int64[np.ndarray, "n 2"]  # of key.txt or key.json
    labels: Int64[np.ndarray, "n 2"]  # of key.npy
    label: Int64[np.ndarray, " n"]
    end: Int64[np.ndarray, " n"]  # the byte behind the sample's last file
    broken: int | None

    def __len__(self) -> int:
        return len(self.label)

    def is_cut(self, row: int) -> bool:
        """Whether the shard ends within the sample, or before its image."""
        last = self.broken is not None and row == len(self) - 1
        return bool(self.end[row] > self.stamp.size or (last and not self.image[row, 1]))


def open_tar_indexes(paths: Sequence[str], caption: str) -> list[TarIndex]:
    """The indexes of shards, with the place of each sample's file of extension `caption`, txt or json.

    Raises UserError where a shard cannot be read or nothing in it is a tar.
    """
    columns = ("keys", "key_ends", "image", caption, "npy", "label", "end", "broken")
    return [
        TarIndex(
            stamp=stamp,
            keys=PackedTexts(stored["keys"], stored["key_ends"]),
            image=stored["image"],
            caption=stored[caption],
            labels=stored["npy"],
            label=stored["label"],
            end=stored["end"],
            broken=None if stored["broken"] == WHOLE else int(stored["broken"]),
        )
        for stored, stamp in open_indexes(paths, scan, VERSION, columns)
    ]


def scan(path: str, size: int) -> dict[str, np.ndarray]:
    """The columns of a shard's index, from one pass over it. Raises UserError."""
    keys: list[str] = []
    samples: list[dict[str, Range]] = []
    labels: list[int] = []
    with open_stream(path, size) as file:
        walk = TarWalk(file, size)
        for name, place in walk.files():
            key, extension = _split(name)
            if not key:
                continue
            if not samples or key != keys[-1] or extension in samples[-1]:
                keys.append(key)
                samples.append({})
                labels.append(NO_LABEL)
            samples[-1][extension] = place
            if extension == "cls" and sum(place) <= size:
                labels[-1] = _label(file, place)
    if walk.problem and not keys:
        raise UserError(f"{path} is not a whole, uncompressed tar ({walk.problem}); fetch or unpack it again")
    known = [row for row, sample in enumerate(samples) if sample.keys() - {"npy"}]  # arrays alone are other data
    keys, labels = [keys[row] for row in known], [labels[row] for row in known]
    samples = [samples[row] for row in known]
    images = [next((sample[e] for e in EXTENSIONS if e in sample), ABSENT) for sample in samples]
    packed = PackedTexts.pack(_distinct(keys))
    return {
        "keys": packed.data,
        "key_ends": packed.ends,
        "image": _rows(images),
        "txt": _rows([sample.get("txt", ABSENT) for sample in samples]),
        "json": _rows([sample.get("json", ABSENT) for sample in samples]),
        "npy": _rows([sample.get("npy", ABSENT) for sample in samples]),
        "label": np.array(labels, np.int64),
        "end": np.array([max(map(sum, sample.values())) for sample in samples], np.int64),
        "broken": np.array(walk.broken),
    }


def _split(name: str) -> tuple[str, str]:
    """Key and extension of a file that belongs to a sample, empty for any other.

    An image does even where the name has another dot, as key.v2.jpg: then its sample has no image, which is told of.
    """
    found = _NAME.fullmatch(name.removeprefix("./"))
    extension = found[2].lower() if found else ""
    known = extension in ("txt", "json", "cls", "npy") or extension.rsplit(".", 1)[-1] in EXTENSIONS
    return (found[1], extension) if found and known else ("", "")


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
