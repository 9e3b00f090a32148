"""Tar shards in webdataset's layout (key.jpg, key.txt, key.json, key.cls) as one table with random access.

One pass over a shard notes where each sample's files lie; reads then go straight there. The index is kept beside
the shard as NAME.tar.index.npz, in arrays rather than objects: about 60 bytes a sample in memory.
"""

import errno
import json
import os
import re
import tarfile
import threading
import uuid
import weakref
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt8
from tqdm import tqdm

from clip_jax.data.table import Indices, Sample, check_indices, read_class_names
from clip_jax.errors import UserError
from clip_jax.schema import nearest

IMAGE_EXTENSIONS = ("jpg", "png", "jpeg", "webp")  # the first that a sample has is its image, as in open_clip
INDEX_VERSION = 1
_NAME = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]*)", re.DOTALL)  # the key ends at the file name's first dot
_READ_GAP = 64 * 1024  # bytes read in vain rather than asking twice
_READ_LIMIT = 16 * 1024 * 1024  # bytes of one coalesced read
_OPEN_FILES = 256  # well below the usual limit of 1024 descriptors a process

Range = tuple[int, int]  # offset and size in bytes
ABSENT: Range = (0, 0)  # the sample has no such file; an empty file counts as none


@dataclass(frozen=True)
class _Index:
    """Where the samples of one shard lie, one row a sample."""

    keys: UInt8[np.ndarray, " bytes"]  # all keys end to end, in UTF-8
    key_ends: Int64[np.ndarray, " n"]
    image: Int64[np.ndarray, " n 2"]  # offset and size, as in Range
    caption: Int64[np.ndarray, " n 2"]  # of key.txt or key.json
    label: Int64[np.ndarray, " n"]  # -1 where there is no key.cls

    def key(self, row: int) -> str:
        start = self.key_ends[row - 1] if row else 0
        return self.keys[start : self.key_ends[row]].tobytes().decode(errors="backslashreplace")


class TarTable:
    """The samples of `shards`, in their order; a sample's key is SHARD/KEY.

    `captions` None takes the whole of key.txt as the caption; a name takes that field of key.json, a string or a
    list of strings. A `classnames.txt` beside the first shard or one folder above, one name a line, names the labels
    in key.cls. A sample is a run of files with one key, and begins anew where an extension comes again (webdataset's
    rule); files of other extensions are passed over. Raises UserError for a shard that is missing, truncated or no
    tar, a sample without image, a label without a name, or no samples at all.
    """

    def __init__(self, shards: Sequence[str | os.PathLike[str]], captions: str | None = None) -> None:
        self._paths = [Path(shard) for shard in shards]
        if not self._paths:
            raise UserError("there are no tar shards; give at least one")
        if len(set(self._paths)) < len(self._paths):
            twice = next(path for path in self._paths if self._paths.count(path) > 1)
            raise UserError(f"the shard {twice} is given more than once; give each once")
        self._field = captions
        self._names = _shard_names(self._paths)
        self._indexes = _open_indexes(self._paths, "txt" if captions is None else "json")
        self._ends = np.cumsum([len(index.label) for index in self._indexes])
        if not len(self):
            raise UserError(f"no samples (key.jpg, key.txt, ...) in {self._paths[0]} and {len(shards) - 1} more shards")
        self.class_names = _class_names(self._paths[0])
        self._check()
        self._files: dict[int, int] = {}  # shard to descriptor
        self._lock = threading.Lock()
        weakref.finalize(self, _close_all, self._files)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def keys(self, indices: Indices) -> list[str]:
        return [self._key(shard, row) for shard, row in self._locate(indices)]

    def read(self, indices: Indices) -> list[Sample]:
        places = self._locate(indices)
        rows: dict[int, list[int]] = {}
        for shard, row in places:
            rows.setdefault(shard, []).append(row)
        contents = {shard: self._read_shard(shard, wanted) for shard, wanted in rows.items()}
        return [self._sample(shard, row, contents[shard]) for shard, row in places]

    def _locate(self, indices: Indices) -> list[tuple[int, int]]:
        """Shard and row in it of each index."""
        array = check_indices(indices, len(self))
        shards = np.searchsorted(self._ends, array, side="right")
        starts = np.concatenate([[0], self._ends])[shards]
        return list(zip(shards.tolist(), (array - starts).tolist(), strict=True))

    def _key(self, shard: int, row: int) -> str:
        return f"{self._names[shard]}/{self._indexes[shard].key(row)}"

    def _check(self) -> None:
        for shard, index in enumerate(self._indexes):
            for row in np.flatnonzero(index.image[:, 1] == 0)[:1].tolist():
                extensions = ", ".join(IMAGE_EXTENSIONS)
                raise UserError(f"sample '{self._key(shard, row)}' has no image ({extensions}) beside its other files")
            outside = index.label >= len(self.class_names) if self.class_names else np.zeros(0)
            for row in np.flatnonzero(outside)[:1].tolist():
                raise UserError(
                    f"sample '{self._key(shard, row)}' has label {index.label[row]}, "
                    f"but classnames.txt names classes 0 to {len(self.class_names) - 1}"
                )

    def _read_shard(self, shard: int, rows: list[int]) -> dict[Range, bytes]:
        index = self._indexes[shard]
        ranges = np.concatenate([index.image[rows], index.caption[rows]]).tolist()
        try:
            with self._descriptor(shard) as file:
                return _read_ranges(file, {(offset, size) for offset, size in ranges if size})
        except OSError as error:
            raise UserError(f"cannot read the samples of {self._paths[shard]}: {error.strerror}") from error

    @contextmanager
    def _descriptor(self, shard: int) -> Iterator[int]:
        """An open file, kept for later reads while there are not too many."""
        with self._lock:
            if shard not in self._files and len(self._files) < _OPEN_FILES:
                self._files[shard] = os.open(self._paths[shard], os.O_RDONLY)
            kept = self._files.get(shard)
        if kept is not None:
            yield kept
            return
        file = os.open(self._paths[shard], os.O_RDONLY)
        try:
            yield file
        finally:
            os.close(file)

    def _sample(self, shard: int, row: int, contents: dict[Range, bytes]) -> Sample:
        index, key = self._indexes[shard], self._key(shard, row)
        offset, size = index.caption[row].tolist()
        text = contents[offset, size] if size else None
        label = int(index.label[row])
        return Sample(
            key=key,
            image=contents[tuple(index.image[row].tolist())],
            captions=_text_captions(text, key) if self._field is None else _json_captions(text, self._field, key),
            label=None if label < 0 else label,
        )


def _text_captions(text: bytes | None, key: str) -> tuple[str, ...]:
    try:
        caption = (text or b"").decode().strip()
    except UnicodeDecodeError as error:
        raise UserError(f"the caption of sample '{key}' is not UTF-8 text") from error
    return (caption,) if caption else ()


def _json_captions(text: bytes | None, field: str, key: str) -> tuple[str, ...]:
    try:
        values: Any = json.loads(text or b"")
    except ValueError as error:
        raise UserError(f"sample '{key}' has no readable .json to take captions='{field}' from") from error
    if not isinstance(values, dict) or field not in values:
        choices = values if isinstance(values, dict) else {}
        raise UserError(f"the .json of sample '{key}' has no field '{field}'; {nearest(field, choices)}")
    captions = values[field]
    captions = [] if captions is None else [captions] if isinstance(captions, str) else captions
    if not isinstance(captions, list) or not all(isinstance(caption, str) for caption in captions):
        raise UserError(f"the field '{field}' of sample '{key}' must be a string or a list of strings")
    return tuple(caption.strip() for caption in captions if caption.strip())


def _read_ranges(file: int, ranges: set[Range]) -> dict[Range, bytes]:
    """The content of each range of a file, neighbours fetched in one read."""
    groups: list[list[Range]] = []
    for offset, size in sorted(ranges):
        group = groups[-1] if groups else []
        near = group and offset - sum(group[-1]) < _READ_GAP and offset + size - group[0][0] <= _READ_LIMIT
        if near:
            group.append((offset, size))
        else:
            groups.append([(offset, size)])
    contents = {}
    for group in groups:
        start, stop = group[0][0], sum(group[-1])
        data = _pread(file, start, stop - start)
        contents |= {(offset, size): data[offset - start : offset - start + size] for offset, size in group}
    return contents


def _pread(file: int, offset: int, size: int) -> bytes:
    data = os.pread(file, size, offset)
    while len(data) < size:  # one call may return less than was asked for
        more = os.pread(file, size - len(data), offset + len(data))
        if not more:
            raise OSError(errno.ENODATA, "it has become shorter since it was indexed")
        data += more
    return data


def _shard_names(paths: list[Path]) -> list[str]:
    """What tells the shards apart: their paths without .tar from the folder that they have in common."""
    common = os.path.commonpath([path.absolute().parent for path in paths])
    return [path.absolute().relative_to(common).as_posix().removesuffix(".tar") for path in paths]


def _class_names(first_shard: Path) -> tuple[str, ...]:
    for folder in (first_shard.absolute().parent, first_shard.absolute().parent.parent):
        if (folder / "classnames.txt").exists():
            return read_class_names(folder / "classnames.txt")
    return ()


def _close_all(files: dict[int, int]) -> None:
    for file in files.values():
        os.close(file)


def _open_indexes(paths: list[Path], caption: str) -> list[_Index]:
    """The indexes of all shards, with the place of the .txt or .json of each sample as its caption."""
    with ThreadPoolExecutor(max_workers=16) as pool:
        indexes = pool.map(lambda path: _open_index(path, caption), paths)
        return list(tqdm(indexes, "indexing shards", len(paths), unit="shard", delay=2))


def _open_index(path: Path, caption: str) -> _Index:
    """The index beside a shard where it is up to date, else a new one, which is written there if possible."""
    cache = path.with_name(path.name + ".index.npz")
    try:
        status = path.stat()
        stamp = np.array([INDEX_VERSION, status.st_size, status.st_mtime_ns])
        columns = _load_columns(cache, stamp, caption)
        if columns is None:
            everything = _scan(path)
            _save(cache, {"stamp": stamp, **everything})
            columns = _pick(everything, caption)
    except OSError as error:
        raise UserError(f"cannot read the shard {path}: {error.strerror}") from error
    except tarfile.TarError as error:
        raise UserError(f"{path} is not a whole, uncompressed tar ({error}); fetch or unpack it again") from error
    return _Index(**columns)


def _pick(columns: Mapping[str, np.ndarray], caption: str) -> dict[str, np.ndarray]:
    names = {"keys": "keys", "key_ends": "key_ends", "image": "image", "caption": caption, "label": "label"}
    return {name: columns[column] for name, column in names.items()}


def _load_columns(cache: Path, stamp: Int64[np.ndarray, " 3"], caption: str) -> dict[str, np.ndarray] | None:
    """The columns of an index file, or None where it is not there, not readable or not of this shard."""
    try:
        # Opened here, because np.load leaves the file open when it is no whole archive.
        with open(cache, "rb") as file, np.load(file) as stored:
            return _pick(stored, caption) if np.array_equal(stored["stamp"], stamp) else None
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
        return None


def _save(cache: Path, columns: dict[str, np.ndarray]) -> None:
    """Writes an index file whole or not at all; where nothing can be written, the shard is indexed again next time."""
    partial = cache.with_name(f".{cache.name}.{uuid.uuid4().hex}")
    with suppress(OSError):
        try:
            with open(partial, "wb") as file:
                np.savez(file, allow_pickle=False, **columns)
            os.replace(partial, cache)
        finally:
            partial.unlink(missing_ok=True)


def _scan(path: Path) -> dict[str, np.ndarray]:
    """The columns of a shard's index, from one pass over it. Raises TarError and OSError."""
    keys: list[str] = []
    samples: list[dict[str, Range]] = []
    labels: list[int] = []
    with open(path, "rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
        for key, extension, place in _members(tar):
            if not samples or key != keys[-1] or extension in samples[-1]:
                keys.append(key)
                samples.append({})
                labels.append(-1)
            samples[-1][extension] = place
            if extension == "cls":
                labels[-1] = _label(os.pread(file.fileno(), place[1], place[0]), path, key)
        # tarfile takes a damaged header, or a file that ends after a header, for the end of the archive.
        if os.pread(file.fileno(), 512, tar.offset) != bytes(512):
            raise tarfile.ReadError("no end-of-archive mark")
    names = [name.encode(errors="surrogateescape") for name in _distinct(keys)]
    images = [next((sample[e] for e in IMAGE_EXTENSIONS if e in sample), ABSENT) for sample in samples]
    return {
        "keys": np.frombuffer(b"".join(names), np.uint8),
        "key_ends": np.cumsum([len(name) for name in names], dtype=np.int64),
        "image": _rows(images),
        "txt": _rows([sample.get("txt", ABSENT) for sample in samples]),
        "json": _rows([sample.get("json", ABSENT) for sample in samples]),
        "label": np.array(labels, np.int64),
    }


def _members(tar: tarfile.TarFile) -> Iterator[tuple[str, str, Range]]:
    """Key, extension and place of each file that belongs to a sample, in the order of the tar."""
    while (member := tar.next()) is not None:
        tar.members.clear()  # tarfile keeps them all otherwise  # pyright: ignore[reportAttributeAccessIssue]
        name = _NAME.fullmatch(member.name.removeprefix("./"))
        if not name or not member.isreg() or member.issparse():
            continue
        key, extension = name[1], name[2].lower()
        if extension in (*IMAGE_EXTENSIONS, "txt", "json", "cls"):
            yield key, extension, (member.offset_data, member.size)


def _label(text: bytes, path: Path, key: str) -> int:
    if not text.strip().isdigit() or len(text.strip()) > 9:
        raise UserError(f"the label {key}.cls in {path} is {text[:20]!r}; it must be a class index, a natural number")
    return int(text)


def _distinct(keys: list[str]) -> list[str]:
    """The keys of a shard, those that come again with ~2, ~3, ... behind."""
    times: Counter[str] = Counter()
    names = []
    for key in keys:
        times[key] += 1
        names.append(key if times[key] == 1 else f"{key}~{times[key]}")
    return names


def _rows(ranges: list[Range]) -> Int64[np.ndarray, " n 2"]:
    return np.array(ranges, np.int64).reshape(-1, 2)
