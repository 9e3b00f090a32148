"""ArrayRecord files of tf.train.Examples, through the array_record package."""

import os
from collections.abc import Sequence

from clip_jax.data import files
from clip_jax.data.beside import class_names_near
from clip_jax.data.examples import ExampleTable, choose_features
from clip_jax.data.patterns import check_distinct, distinguish
from clip_jax.data.table import BadSample, Indices, locate
from clip_jax.data.tfrecord import part_sizes
from clip_jax.errors import UserError


def open_arrayrecord(
    paths: Sequence[str], image: str | None = None, captions: str | None = None, label: str | None = None
) -> ExampleTable:
    """The examples in ArrayRecord files on this machine; the features are named, or chosen, as in `open_tfrecord`."""
    check_distinct(paths, "ArrayRecord files")
    records = ArrayRecords(paths)
    return ExampleTable(records, choose_features(records, image, captions, label), class_names_near(paths[0]))


class ArrayRecords:
    """The records of `paths`, in their order, of each those in its range of `rows` where these are given.

    A record's key is FILE/ROW. The files have an index of their own; reading is fast where they were written with
    `group_size:1`.
    """

    def __init__(self, paths: Sequence[str | os.PathLike[str]], rows: Sequence[range] | None = None) -> None:
        self._paths = [os.fspath(path) for path in paths]
        module, source = _array_record()
        counts = [_count(module, path) for path in self._paths]
        self._rows = list(rows or [range(count) for count in counts])
        self._whole = [len(wanted) == count for wanted, count in zip(self._rows, counts, strict=True)]
        for path, wanted, count in zip(self._paths, self._rows, counts, strict=True):
            if wanted.stop > count:
                raise UserError(f"{path} has {count} records, not {wanted.stop}; fetch it again")
        self._sizes = [len(wanted) for wanted in self._rows]
        if not len(self):
            raise UserError(f"there are no records in {self._paths[0]} and {len(self._paths) - 1} more files")
        self._names = distinguish(self._paths)
        self._source = source.ArrayRecordDataSource(
            [f"{path}[{wanted.start}:{wanted.stop}]" for path, wanted in zip(self._paths, self._rows, strict=True)]
        )

    @property
    def parts(self) -> dict[str, int]:
        return part_sizes(self._paths, self._rows, self._whole)

    @property
    def is_remote(self) -> bool:
        return False

    def __len__(self) -> int:
        return sum(self._sizes)

    def keys(self, indices: Indices) -> list[str]:
        return [f"{self._names[file]}/{self._rows[file][row]:07d}" for file, row in locate(indices, self._sizes)]

    def read(self, indices: Indices) -> list[bytes | BadSample]:
        wanted = [int(index) for index in indices]
        located = locate(wanted, self._sizes)
        if not wanted:
            return []
        try:
            return list(self._source.__getitems__(wanted))
        except Exception as error:  # its C++ raises whatever pybind makes of a status
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise UserError(f"cannot read the records of {self._paths[located[0][0]]} or beside: {reason}") from error


def _count(module, path: str) -> int:
    """The number of records in a file. Raises UserError where it is missing or no ArrayRecord file."""
    if files.is_remote(path):
        raise UserError(f"{path} is remote, but array_record reads local files; copy or mount it, or store TFRecords")
    files.stamp(path)
    try:
        reader = module.ArrayRecordReader(path)
        try:
            return reader.num_records()
        finally:
            reader.close()
    except Exception as error:  # its C++ raises whatever pybind makes of a status
        raise UserError(f"{path} is not a whole ArrayRecord file; fetch it again") from error


def _array_record():
    try:
        from array_record.python import (
            array_record_data_source,
            array_record_module,  # pyright: ignore[reportAttributeAccessIssue]
        )
    except ImportError as error:
        raise UserError(
            "ArrayRecord files need a package for Linux; pip install '.[train]' in the repository"
        ) from error
    return array_record_module, array_record_data_source
