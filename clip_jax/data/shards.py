"""Writing captioned images as tar shards in img2dataset's layout, which this and other libraries read."""

import fcntl
import io
import json
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any

from tqdm import tqdm

from clip_jax.errors import UserError

DESCRIPTION = "description.json"


@dataclass(frozen=True)
class Record:
    """One sample to be written. `image` is an encoded file of type `extension`; `metadata` is JSON-able."""

    key: str
    image: bytes
    captions: tuple[str, ...]
    metadata: dict[str, Any] = field(default_factory=dict)
    label: int | None = None
    extension: str = "jpg"


def write_tar_shards(
    records: Iterable[Record],
    directory: str | os.PathLike[str],
    samples_per_shard: int = 1000,
    class_names: Sequence[str] = (),
    total: int | None = None,
    description: dict[str, Any] | None = None,
) -> int:
    """Writes 00000.tar, 00001.tar, ... into a new `directory` and returns the number of samples.

    A sample becomes KEY.jpg, KEY.txt (its first caption), KEY.json (its metadata and the list "captions") and, if it
    has a label, KEY.cls; `class_names` become classnames.txt, `description` becomes
    description.json. Equal records give equal bytes. The directory appears
    whole or not at all: it is written beside under a temporary name, and what a killed run left there is removed.
    If another process completes the same directory first, its result stays. `total` is for the progress bar.
    Raises UserError where the directory exists and is not empty, and where a key is repeated or has a dot.
    """
    if samples_per_shard < 1:
        raise UserError(f"samples_per_shard is {samples_per_shard}; it must be at least 1")
    target = Path(directory).absolute()
    if os.path.lexists(target) and not (target.is_dir() and not any(target.iterdir())):
        raise UserError(f"{directory} exists already; remove it or choose a new directory")
    target.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{target.name}.partial-"
    _remove_abandoned(target.parent, prefix)
    partial = Path(tempfile.mkdtemp(prefix=prefix, dir=target.parent))
    lock = os.open(partial, os.O_RDONLY)
    try:
        with suppress(OSError):  # some network file systems have no locks; nothing is cleaned up there
            fcntl.flock(lock, fcntl.LOCK_EX)  # held until this process ends, however it ends
        if description is not None:
            (partial / DESCRIPTION).write_text(json.dumps(description) + "\n", encoding="utf-8")
        progress = tqdm(records, "writing shards", total, unit="sample", delay=2)
        count = _write_shards(iter(progress), partial, samples_per_shard)
        if class_names:
            (partial / "classnames.txt").write_text("".join(f"{name}\n" for name in class_names), encoding="utf-8")
        partial.chmod(0o755)
        try:
            os.rename(partial, target)
        except OSError:
            if not any(target.glob("*.tar")):  # not there because another process was faster
                raise
        return count
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        os.close(lock)


def _write_shards(records: Iterator[Record], directory: Path, samples_per_shard: int) -> int:
    count, shard = 0, 0
    while (first := next(records, None)) is not None:
        seen = set()
        with tarfile.open(directory / f"{shard:05d}.tar", "w", format=tarfile.PAX_FORMAT) as tar:
            for record in chain([first], islice(records, samples_per_shard - 1)):
                if "." in record.key.rsplit("/", 1)[-1] or record.key in seen:
                    raise UserError(
                        f"the key '{record.key}' is repeated or has a dot; give each sample its own, dotless"
                    )
                seen.add(record.key)
                for extension, data in _members(record).items():
                    member = tarfile.TarInfo(f"{record.key}.{extension}")  # time, owner and group are 0
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
        shard, count = shard + 1, count + len(seen)
    if not count:
        raise UserError("there are no samples to write; give at least one")
    return count


def _members(record: Record) -> dict[str, bytes]:
    """Extension to content, in the order of writing."""
    metadata = {**record.metadata, "captions": list(record.captions)}
    members = {record.extension: record.image}
    if record.captions:
        members["txt"] = record.captions[0].encode()
    members["json"] = json.dumps(metadata, ensure_ascii=False).encode()
    if record.label is not None:
        members["cls"] = str(record.label).encode()
    return members


def _remove_abandoned(parent: Path, prefix: str) -> None:
    """Removes temporary directories whose writer no longer lives, which is to say: no longer holds the lock."""
    for path in parent.iterdir():
        if not path.name.startswith(prefix):
            continue
        try:
            lock = os.open(path, os.O_RDONLY)
        except OSError:
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path, ignore_errors=True)
        except OSError:
            pass  # another process is writing there
        finally:
            os.close(lock)
