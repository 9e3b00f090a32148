"""Features kept on disk: what a model has embedded once is read the next time.

What belongs together, a model's view of some data, is one folder, which holds 00000.npz, 00001.npz, ..., each written
whole or not at all.
"""

import hashlib
import io
import json
import os
import uuid
import zipfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from clip_jax.clip import Clip
from clip_jax.errors import UserError

VERSION = 1  # to be raised where the same model and data would give other features


def default_folder() -> Path:
    """Where features are kept unless told otherwise."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base) / "clip_jax" / "features"


class FeatureStore:
    """What one tower of a model made of some data, below `folder`; `data` is a digest of that."""

    def __init__(self, folder: Path, clip: Clip, tower: Literal["visual", "text"], data: str) -> None:
        model = fingerprint_of(clip, tower)
        self._folder = folder / f"{tower}-{model[:16]}-{data[:16]}"
        self._identity = {"version": VERSION, "model": model, "data": data}

    def read(self, number: int) -> tuple[dict[str, np.ndarray], Any] | None:
        """The arrays of a part and what was told with them; None where it is not there, or not whole."""
        try:
            with open(self._path(number), "rb") as file, np.load(file) as stored:
                identity, told = json.loads(bytes(stored["json"]))
                return ({name: stored[name] for name in stored.files}, told) if identity == self._identity else None
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
            return None

    def write(self, number: int, arrays: Mapping[str, np.ndarray], told: Any = None) -> None:
        """Keeps a part, `told` being what JSON can say. Raises UserError where the folder cannot be written to."""
        content = io.BytesIO()
        text = np.frombuffer(json.dumps([self._identity, told]).encode(), np.uint8)
        np.savez(content, allow_pickle=False, json=text, **arrays)
        path = self._path(number)
        partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            partial.write_bytes(content.getvalue())
            os.replace(partial, path)
        except OSError as error:
            raise UserError(
                f"cannot keep features in {self._folder}: {error.strerror}; --cache FOLDER names another place, and "
                "--no-cache keeps none"
            ) from error
        finally:
            with suppress(OSError):
                partial.unlink()

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:05d}.npz"


@lru_cache(maxsize=2)  # a large model takes seconds, and every classifier asks
def fingerprint_of(clip: Clip, tower: Literal["visual", "text"]) -> str:
    """A digest of what makes one tower's features: the model's config, how it computes, and the tower's values."""
    described = json.dumps([clip.config.to_dict(), clip.compute.dtype], sort_keys=True)
    digest = hashlib.blake2b(described.encode(), digest_size=16)
    for leaf in jax.tree.leaves(clip.params[tower]):
        digest.update(np.ascontiguousarray(leaf).reshape(-1).view(np.uint8).data)
    if tower == "text":
        for name, content in sorted(clip.tokenizer_files.items()):
            digest.update(name.encode() + content)
    return digest.hexdigest()


def fingerprint_of_texts(texts: Iterable[str]) -> str:
    """A digest of texts in their order."""
    digest = hashlib.blake2b(digest_size=16)
    for text in texts:
        digest.update(text.encode(errors="surrogatepass") + b"\0")
    return digest.hexdigest()
