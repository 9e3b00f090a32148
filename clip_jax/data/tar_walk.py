"""The files in a tar, found in one pass over its headers.

The header of a plain file is read here, which is several times as fast as tarfile. Whatever else there is (long names,
links, sparse files, the archive's end, damage) is left to tarfile.
"""

import re
import tarfile
from collections.abc import Iterator
from io import BufferedReader

from clip_jax.data.index_file import WHOLE
from clip_jax.data.ranges import Range

_BLOCK = 512
_LONGEST = 64 * 1024  # bytes of an extended header that is looked at here
_TELLING = re.compile(rb"path=|size=|charset=|GNU\.")  # what an extended header may say of where or what a file is


class TarWalk:
    """One pass over a tar of `size` bytes; once it has ended, `broken` is where it could not go on, `problem` why."""

    def __init__(self, file: BufferedReader, size: int) -> None:
        self._file, self._size = file, size
        self.broken, self.problem = WHOLE, ""

    def files(self) -> Iterator[tuple[str, Range]]:
        """Name and place of each regular file, in the order of the tar."""
        offset = 0
        try:
            with tarfile.open(fileobj=self._file, mode="r:", encoding="utf-8") as tar:
                tar.firstmember = None  # it is read again  # pyright: ignore[reportAttributeAccessIssue]
                while True:
                    plain = None if tar.pax_headers else self._plain_file(offset)
                    if plain:
                        yield plain
                        offset = sum(plain[1]) + -sum(plain[1]) % _BLOCK
                        continue
                    self._file.seek(offset)
                    tar.offset = offset
                    member = tar.next()
                    tar.members.clear()  # tarfile keeps them all otherwise  # pyright: ignore[reportAttributeAccessIssue]
                    if member is None:
                        break
                    offset = tar.offset
                    if member.isreg() and not member.issparse():
                        yield member.name, (member.offset_data, member.size)
            # tarfile takes a damaged header, or a file that ends after a header, for the end of the archive.
            self._file.seek(offset)
            if self._file.read(_BLOCK) != bytes(_BLOCK):
                raise tarfile.ReadError("no end-of-archive mark")
        except (tarfile.TarError, ValueError, EOFError, OverflowError) as error:
            self.broken, self.problem = min(offset, self._size), str(error)

    def _plain_file(self, offset: int) -> tuple[str, Range] | None:
        """Name and place of the file whose header is at `offset`, None where tarfile must look."""
        self._file.seek(offset)
        header = self._file.read(_BLOCK)
        size = _stored_size(header)
        if header[156:157] == b"x" and size is not None and size <= _LONGEST:
            blocks = size + -size % _BLOCK
            if _TELLING.search(self._file.read(blocks)):
                return None
            offset += _BLOCK + blocks
            header = self._file.read(_BLOCK)
            size = _stored_size(header)
        if size is None or header[156:157] != b"0" or header[345]:  # there the name may begin
            return None
        return header[:100].split(b"\0", 1)[0].decode(errors="surrogateescape"), (offset + _BLOCK, size)


def _stored_size(header: bytes) -> int | None:
    """The size in a whole header; None where that is damaged, or has it in another way than octal digits."""
    if len(header) < _BLOCK:
        return None
    try:
        size, checksum = (int(field.rstrip(b" \0"), 8) for field in (header[124:136], header[148:156]))
    except ValueError:
        return None
    return size if size >= 0 and sum(header) - sum(header[148:156]) + 8 * ord(" ") == checksum else None
