"""Many short texts in two arrays rather than as objects."""

from array import array
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64, UInt8


@dataclass(frozen=True)
class PackedTexts:
    """Texts end to end in UTF-8, and where each ends."""

    data: UInt8[np.ndarray, " bytes"]
    ends: Int64[np.ndarray, " n"]

    @staticmethod
    def pack(texts: Iterable[str]) -> "PackedTexts":
        """Those texts, one after the other."""
        packer = TextPacker()
        for text in texts:
            packer.add(text)
        return packer.packed()

    def __len__(self) -> int:
        return len(self.ends)

    def encoded(self, row: int) -> bytes:
        """The text at `row`, in UTF-8."""
        start = self.ends[row - 1] if row else 0
        return self.data[start : self.ends[row]].tobytes()

    def printable(self, row: int) -> str:
        """The text, bytes that are not UTF-8 as escapes."""
        return self.encoded(row).decode(errors="backslashreplace")


class TextPacker:
    """Texts to be packed, one after the other."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._ends = array("q")

    def add(self, text: str) -> None:
        """Bytes that were not UTF-8 may stand in the text as surrogates, as `surrogateescape` makes them."""
        self._data += text.encode(errors="surrogateescape")
        self._ends.append(len(self._data))

    def packed(self) -> PackedTexts:
        """The texts added so far."""
        return PackedTexts(np.frombuffer(bytes(self._data), np.uint8), np.array(self._ends, np.int64))
