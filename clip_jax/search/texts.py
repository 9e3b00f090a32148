"""Texts: the captions of a table, or the lines of a file, embedded while the next ones are read and tokenised."""

import hashlib
import os
from array import array
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any, Literal

import numpy as np
from jaxtyping import Array, Int, Int32

from clip_jax.data.fingerprint import fingerprint
from clip_jax.data.table import BadSample, Table
from clip_jax.errors import UserError
from clip_jax.search.encoder import Encoder
from clip_jax.search.source import Embedded, Json, bad_json, one_behind

READ_AT_ONCE = 256  # samples of a table, whose images come with the captions
STRIDE = 1024  # lines between places that are noted
LONGEST = 2**20  # bytes of a line


class Texts:
    """Samples of which each has texts, or none; `read` finds them."""

    of: Literal["texts"] = "texts"

    def __len__(self) -> int:
        raise NotImplementedError

    def read(self, samples: range) -> tuple[list[Json], list[Json]]:
        """The texts of some samples as keys, with `caption`, and the samples that have none or cannot be used."""
        raise NotImplementedError

    def embed(self, encoder: Encoder, shards: Sequence[range], advance: Callable[[int], Any]) -> Iterator[Embedded]:
        """Each shard's keys, left-out texts and rows; the next one is read and tokenized meanwhile."""

        def load(shard: range) -> tuple[list[Json], list[Json], np.ndarray]:
            keys, bad = self.read(shard)
            return keys, bad, encoder.tokenize([key["caption"] for key in keys])

        with ThreadPoolExecutor(1) as ahead:
            coming = [ahead.submit(load, shard) for shard in shards[:1]]
            for number, shard in enumerate(shards):
                keys, bad, tokens = coming.pop().result()
                coming += [ahead.submit(load, following) for following in shards[number + 1 : number + 2]]
                rows, done = np.zeros((len(keys), encoder.width), np.float32), 0
                for places, embeddings in one_behind(_encoded(encoder, tokens)):
                    rows[places] = embeddings
                    done += len(places)
                    advance(len(shard) * done // len(keys) - len(shard) * (done - len(places)) // len(keys))
                if not keys:
                    advance(len(shard))
                yield Embedded(rows, keys, bad)


class Captions(Texts):
    """The captions of `table`, all of each sample."""

    kind: Literal["table"] = "table"

    def __init__(self, table: Table) -> None:
        self._table = table

    def __len__(self) -> int:
        return len(self._table)

    def digest(self, spec: str) -> str:
        """A fingerprint of the table and its captions' SPEC."""
        return fingerprint(self._table, spec)

    def read(self, samples: range) -> tuple[list[Json], list[Json]]:
        keys, bad = [], []
        for start in range(0, len(samples), READ_AT_ONCE):
            places = samples[start : start + READ_AT_ONCE]
            for place, one in zip(places, self._table.read(places), strict=True):
                if isinstance(one, BadSample):
                    bad.append(bad_json(place, one))
                elif not (captions := [caption for caption in one.captions if caption.strip()]):
                    reason = "its caption is empty" if one.captions else "it has no caption"
                    bad.append(bad_json(place, BadSample(one.key, "no caption", reason)))
                else:
                    keys += [{"key": one.key, "sample": place, "caption": caption} for caption in captions]
        return keys, bad


class Lines(Texts):
    """The lines of a text file in UTF-8; the key of one is FILE#LINE, counted from 1. Raises UserError."""

    kind: Literal["lines"] = "lines"

    def __init__(self, path: str) -> None:
        self._path, self._name = path, os.path.basename(path)
        self._starts = array("q")
        self._digest = hashlib.blake2b(self._name.encode(errors="surrogateescape") + b"\0", digest_size=16)
        self._count = 0
        try:
            with open(path, "rb") as file:
                place = 0
                while line := file.readline(LONGEST + 1):
                    if len(line) > LONGEST:
                        raise UserError(f"line {self._count + 1} of {path} is longer than 1 MB; give a text a line")
                    if self._count % STRIDE == 0:
                        self._starts.append(place)
                    self._digest.update(line)
                    place, self._count = place + len(line), self._count + 1
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror}") from error
        if not self._count:
            raise UserError(f"{path} is empty; it would have a text a line")

    def __len__(self) -> int:
        return self._count

    def digest(self, spec: str) -> str:
        """A fingerprint of the file's name, which is in the keys, and of its contents."""
        return self._digest.hexdigest()

    def read(self, samples: range) -> tuple[list[Json], list[Json]]:
        keys, bad = [], []
        for place, line in zip(samples, self._lines(samples), strict=True):
            key = f"{self._name}#{place + 1}"
            try:
                text = line.decode("utf-8-sig").strip()
            except UnicodeDecodeError:
                bad.append(bad_json(place, BadSample(key, "bad caption", "the line is not UTF-8 text")))
                continue
            if text:
                keys.append({"key": key, "sample": place, "caption": text})
            else:
                bad.append(bad_json(place, BadSample(key, "no caption", "the line is empty")))
        return keys, bad

    def _lines(self, samples: range) -> list[bytes]:
        try:
            with open(self._path, "rb") as file:
                file.seek(self._starts[samples.start // STRIDE])
                first = samples.start % STRIDE
                lines = list(islice(file, first, first + len(samples)))
        except OSError as error:
            raise UserError(f"cannot read {self._path}: {error.strerror}") from error
        if len(lines) < len(samples):
            raise UserError(f"{self._path} has fewer lines than when it was opened; leave it as it is, and begin anew")
        return lines


def _encoded(
    encoder: Encoder, tokens: Int32[np.ndarray, "n context"]
) -> Iterator[tuple[Int[np.ndarray, " b"], Array, int]]:
    """Batches of alike length, as short ones are quick together: the places of the texts, and their embeddings."""
    lengths = np.count_nonzero(tokens != tokens[:, -1:], axis=1)
    order = np.argsort(lengths, kind="stable")
    for start in range(0, len(order), encoder.batch_size):
        places = order[start : start + encoder.batch_size]
        yield places, encoder.text(tokens[places]), len(places)
