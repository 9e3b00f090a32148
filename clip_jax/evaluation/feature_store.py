"""Features kept on disk: what a model has embedded once is read the next time.

What belongs together, a model's view of some data, is one folder, which holds 00000.npz, 00001.npz, ..., each written
whole or not at all.
"""

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from clip_jax.clip import Clip
from clip_jax.errors import UserError
from clip_jax.fingerprint import fingerprint_of
from clip_jax.whole_file import write_whole

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
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            write_whole(self._path(number), [content.getbuffer()])
        except OSError as error:
            raise UserError(
                f"cannot keep features in {self._folder}: {error.strerror}; --cache FOLDER names another place, and "
                "--no-cache keeps none"
            ) from error

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:05d}.npz"


def fingerprint_of_texts(texts: Iterable[str]) -> str:
    """A digest of texts in their order."""
    digest = hashlib.blake2b(digest_size=16)
    for text in texts:
        digest.update(text.encode(errors="surrogatepass") + b"\0")
    return digest.hexdigest()
