"""Which files a tar has and where, against tarfile alone, for every kind of header that it writes."""

import io
import random
import tarfile
from contextlib import suppress
from typing import Any

import pytest

from clip_jax.data.index_file import WHOLE
from clip_jax.data.ranges import Range
from clip_jax.data.tar_walk import TarWalk

NAMES = (
    "a.jpg",
    "folder/",
    "folder/größe.txt",
    "link.jpg",
    "n" * 100,
    "prefix/" * 20 + "of ustar.jpg",
    "./dotted.txt",
    "end.json",
)
LONG = ("long/" * 60 + "w" * 150 + ".jpg", *NAMES)


def write(form: int, names: tuple[str, ...], time: float = 0, encoding: str = "utf-8", **headers: Any) -> bytes:
    """A tar of members with these names; `whole` are pax headers of all of it, `each` of each member."""
    rng, buffer = random.Random(0), io.BytesIO()
    with tarfile.open(
        fileobj=buffer, mode="w", format=form, encoding=encoding, pax_headers=headers.get("whole")
    ) as tar:
        for name in names:
            info = tarfile.TarInfo(name)
            info.mtime, info.pax_headers = time, headers.get("each", {})
            if name.endswith("/"):
                info.type = tarfile.DIRTYPE
            elif name.startswith("link"):
                info.type, info.linkname = tarfile.SYMTYPE, "a.jpg"
            else:
                info.size = rng.choice([0, 1, 511, 512, 513, 3000])
            tar.addfile(info, io.BytesIO(rng.randbytes(info.size)))
    return buffer.getvalue()


def walk(data: bytes) -> tuple[list[tuple[str, Range]], int]:
    found = TarWalk(io.BufferedReader(io.BytesIO(data)), len(data))  # pyright: ignore[reportArgumentType]
    return list(found.files()), found.broken


def expected(data: bytes) -> list[tuple[str, Range]]:
    """What tarfile finds before the first damage."""
    files = []
    with suppress(tarfile.TarError), tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
        for member in tar:
            if member.isreg():
                files.append((member.name, (member.offset_data, member.size)))
    return files


CASES = {
    "ustar": write(tarfile.USTAR_FORMAT, NAMES),
    "gnu": write(tarfile.GNU_FORMAT, LONG),
    "pax": write(tarfile.PAX_FORMAT, LONG),
    "times in pax headers, as webdataset writes them": write(tarfile.PAX_FORMAT, LONG, time=1.5),
    "base-256 numbers": write(tarfile.GNU_FORMAT, LONG, time=-5),
    "names that are not UTF-8": write(tarfile.GNU_FORMAT, NAMES, encoding="latin-1"),
    "a comment on the whole": write(tarfile.PAX_FORMAT, NAMES, whole={"comment": "x"}),
    "a name for all": write(tarfile.PAX_FORMAT, NAMES, whole={"path": "other.jpg"}),
    "sizes in pax headers": write(tarfile.PAX_FORMAT, ("a.jpg",), each={"size": "5"}),
    "much in pax headers": write(tarfile.PAX_FORMAT, NAMES, each={"comment": "x" * 100_000}),
    "a pax header that speaks of a path": write(tarfile.PAX_FORMAT, NAMES, each={"comment": "path="}),
}


@pytest.mark.parametrize("name", CASES)
def test_files_are_those_of_tarfile(name):
    assert walk(CASES[name]) == (expected(CASES[name]), WHOLE)
    assert len(walk(CASES[name])[0]) >= 1


@pytest.mark.parametrize("name", ["ustar", "gnu", "pax", "times in pax headers, as webdataset writes them"])
def test_damage_ends_it_where_it_ends_tarfile(name):
    rng = random.Random(0)
    for _ in range(300):
        data = bytearray(CASES[name])
        place = rng.randrange(len(data))
        data[place] ^= 1 << rng.randrange(8)
        files, broken = walk(bytes(data))
        assert files == expected(bytes(data))
        assert broken == WHOLE or broken % 512 == 0
    whole = expected(CASES[name])
    for size in range(512, len(CASES[name]), 300):
        files, broken = walk(CASES[name][:size])
        assert files == whole[: len(files)]
        assert broken == WHOLE or broken <= size
        assert len(files) >= sum(sum(place) <= size for _, place in whole)
