"""Tar shards in webdataset's layout (key.jpg, key.txt, key.json, key.cls, key.npy) as one table with random access.

One pass over a shard notes where each sample's files lie (tar_index); reads then go straight there.
"""

import io
import json
import os
import warnings
import zipfile
from collections.abc import Sequence
from typing import Any

import numpy as np

from clip_jax.data import files
from clip_jax.data.beside import class_names_near, kind_near
from clip_jax.data.numpy_files import ONE_AT_A_TIME
from clip_jax.data.patterns import check_distinct, distinguish
from clip_jax.data.ranges import Range, RangeReader
from clip_jax.data.table import BadSample, Indices, Sample, locate
from clip_jax.data.tar_index import NO_LABEL, WRONG_LABEL, TarIndex, open_tar_indexes
from clip_jax.errors import UserError
from clip_jax.inputs.images import EXTENSIONS
from clip_jax.schema import nearest


class TarTable:
    """The samples of `shards`, paths or URLs, in their order; a sample's key is SHARD/KEY.

    `captions` None takes the whole of key.txt as the caption; names of fields (`alt`, or several with commas between)
    take what these say in key.json, strings or lists of strings, all of it captions of the sample; of several fields
    some may be missing. A wrong label makes a sample bad only where it has no captions. A
    `classnames.txt` beside the first shard or one folder above, one name a line, names the labels in key.cls. Where
    `dataset_type.txt` beside it says `retrieval`, every line of key.txt is a caption, and where it says `multilabel`,
    key.npy has a number for each class, which is not zero where the image has that label. A sample
    is a run of files with one key, and begins anew where an extension comes again (webdataset's rule); files of
    other extensions are passed over. A shard that breaks off is warned of, and its samples before that are used.
    Raises UserError for a shard that is missing or no tar, and where there are no samples at all.
    """

    def __init__(self, shards: Sequence[str | os.PathLike[str]], captions: str | None = None) -> None:
        self._paths = [os.fspath(shard) for shard in shards]
        check_distinct(self._paths, "tar shards")
        self._fields = None if captions is None else tuple(captions.split(","))
        if self._fields and not all(self._fields):
            raise UserError(f"captions='{captions}' is not a field of the .json, nor several with commas between")
        self._names = distinguish(self._paths, ".tar")
        self._indexes = open_tar_indexes(self._paths, "txt" if captions is None else "json")
        self._sizes = [len(index) for index in self._indexes]
        if not len(self):
            raise UserError(
                f"no samples (key.jpg, key.txt, ...) in {self._paths[0]} and {len(self._paths) - 1} more shards"
            )
        self._warn()
        self.class_names = class_names_near(self._paths[0])
        self._kind = kind_near(self._paths[0])
        self._reader = RangeReader({p: index.stamp for p, index in zip(self._paths, self._indexes, strict=True)})

    @property
    def parts(self) -> dict[str, int]:
        return dict(zip(self._paths, self._sizes, strict=True))

    @property
    def is_remote(self) -> bool:
        return any(map(files.is_remote, self._paths))

    def __len__(self) -> int:
        return sum(self._sizes)

    def keys(self, indices: Indices) -> list[str]:
        return [self._key(shard, row) for shard, row in locate(indices, self._sizes)]

    def read(self, indices: Indices) -> list[Sample | BadSample]:
        places = locate(indices, self._sizes)
        rows: dict[int, list[int]] = {}
        for shard, row in places:
            if not self._indexes[shard].is_cut(row):
                rows.setdefault(shard, []).append(row)
        contents = self._reader.read(
            {self._paths[shard]: self._ranges(shard, wanted) for shard, wanted in rows.items()}
        )
        return [self._sample(shard, row, contents.get(self._paths[shard], {})) for shard, row in places]

    def _key(self, shard: int, row: int) -> str:
        return f"{self._names[shard]}/{self._indexes[shard].keys.printable(row)}"

    def _warn(self) -> None:
        for path, index in zip(self._paths, self._indexes, strict=True):
            if index.broken is not None:
                warnings.warn(
                    f"{path} breaks off or is damaged at byte {index.broken} of {index.stamp.size}; "
                    f"only the {len(index)} samples before that are known",
                    stacklevel=3,
                )

    def _ranges(self, shard: int, rows: list[int]) -> list[Range]:
        index = self._indexes[shard]
        wanted = [index.image, index.caption] + [index.labels] * (self._kind == "multilabel")
        places = np.concatenate([ranges[rows] for ranges in wanted]).tolist()
        return [(offset, size) for offset, size in places if size]

    def _sample(self, shard: int, row: int, contents: dict[Range, bytes]) -> Sample | BadSample:
        index, key = self._indexes[shard], self._key(shard, row)
        if index.is_cut(row):
            return BadSample(key, "cut short", f"{self._paths[shard]} breaks off at byte {index.broken}, within it")
        if not index.image[row, 1]:
            names = ", ".join(f"KEY.{extension}" for extension in EXTENSIONS)
            return BadSample(
                key, "no image", f"there is no image, or an empty one ({names} would be, no other dot in the name)"
            )
        offset, size = index.caption[row].tolist()
        text = contents[offset, size] if size else None
        try:
            by_line = self._kind == "retrieval"
            found = [_text_captions(text, by_line)] if self._fields is None else _json_captions(text, self._fields)
        except ValueError as error:
            return BadSample(key, "bad caption", str(error))
        captions = tuple(caption for several in found for caption in several)
        label, labels, fault = self._label(index, row, contents)
        if fault and not captions:
            return BadSample(key, "bad label", fault)
        return Sample(
            key=key,
            image=contents[tuple(index.image[row].tolist())],
            captions=captions,
            label=label,
            captions_by_field=tuple(map(len, found)) if len(found) > 1 else (),
            labels=labels,
        )

    def _label(
        self, index: TarIndex, row: int, contents: dict[Range, bytes]
    ) -> tuple[int | None, tuple[int, ...] | None, str]:
        """The label or the several labels of a sample, and what is wrong with them."""
        if self._kind == "multilabel":
            offset, size = index.labels[row].tolist()
            try:
                return None, self._several(contents[offset, size] if size else b""), ""
            except ValueError as error:
                return None, None, str(error)
        label = int(index.label[row])
        fault = self._label_fault(label)
        return None if fault or label == NO_LABEL else label, None, fault

    def _several(self, marks: bytes) -> tuple[int, ...]:
        """The labels that a .npy marks. Raises ValueError with the reason where it cannot be read."""
        try:
            with ONE_AT_A_TIME:
                found = np.load(io.BytesIO(marks), allow_pickle=False)
        except (ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
            raise ValueError("it has no .npy that can be read, with a number for each class") from error
        if not isinstance(found, np.ndarray) or found.shape != (len(self.class_names) or found.size,):
            shape = list(getattr(found, "shape", ()))
            raise ValueError(f"its .npy is {shape}; one number for each of {len(self.class_names)} classes is right")
        return tuple(np.flatnonzero(found).tolist())

    def _label_fault(self, label: int) -> str:
        if label == WRONG_LABEL:
            return "its .cls is not a class index, a natural number"
        if self.class_names and label >= len(self.class_names):
            return f"its label is {label}, but classnames.txt names classes 0 to {len(self.class_names) - 1}"
        return ""


def _text_captions(text: bytes | None, by_line: bool) -> list[str]:
    try:
        said = (text or b"").decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError("its .txt is not UTF-8 text") from error
    captions = [caption.strip() for caption in (said.splitlines() if by_line else [said])]
    return [caption for caption in captions if caption]


def _json_captions(text: bytes | None, fields: tuple[str, ...]) -> list[list[str]]:
    """What each of the fields of a .json says. Raises ValueError with the reason where that cannot be told."""
    if text is None:
        raise ValueError(f"there is no .json to take captions='{','.join(fields)}' from")
    try:
        values: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError("its .json is not readable JSON") from error
    values = values if isinstance(values, dict) else {}
    if not any(field in values for field in fields):
        raise ValueError(f"its .json has no field '{' or '.join(fields)}'; {nearest(fields[0], values)}")
    return [_field_captions(values.get(field), field) for field in fields]


def _field_captions(said: Any, field: str) -> list[str]:
    said = [] if said is None else [said] if isinstance(said, str) else said
    if not isinstance(said, list) or not all(isinstance(caption, str) for caption in said):
        raise ValueError(f"the field '{field}' of its .json must be a string or a list of strings")
    try:
        "".join(said).encode()
    except UnicodeEncodeError as error:  # JSON can say "\ud83d", which no tokenizer takes
        raise ValueError("a caption in its .json has half a surrogate pair, which is no text") from error
    return [caption.strip() for caption in said if caption.strip()]
