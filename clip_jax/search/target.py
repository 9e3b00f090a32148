"""Where a set of embeddings goes: one file, .npy or .parquet, or a folder of .npy shards."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from clip_jax.errors import UserError
from clip_jax.search.description import Description, read_description
from clip_jax.search.join import beside, pyarrow
from clip_jax.search.shards import DESCRIPTION, check_same

Format = Literal["npy", "parquet", "folder"]
SUFFIXES: dict[str, Format] = {".npy": "npy", ".parquet": "parquet", "": "folder"}


@dataclass(frozen=True)
class Target:
    """The place of a set, and as what."""

    path: Path
    format: Format

    @property
    def folder(self) -> Path:
        """Where its shards are while it is not complete; of a folder, that is the place itself."""
        return self.path if self.format == "folder" else beside(self.path, "partial")

    @property
    def description(self) -> Path:
        """The file that describes the complete set."""
        return self.path / DESCRIPTION if self.format == "folder" else beside(self.path, "json")


def target_of(out: str, kind: Format | None = None) -> Target:
    """What `--out` names, by its suffix unless `kind` says. Raises UserError."""
    if "://" in out:
        raise UserError(f"--out {out} is a URL; give a path, of a mounted bucket or to be copied there afterwards")
    path = Path(out).expanduser()
    known = SUFFIXES.get(path.suffix.lower())
    kind = kind or known
    if kind is None:
        raise UserError(f"--out {out}: a set ends in .npy or .parquet, or is a folder; --format says which")
    if known and path.suffix and known != kind:
        raise UserError(f"--out {out} ends in {path.suffix}, but --format is {kind}; let them agree")
    if kind != "folder" and path.is_dir():
        raise UserError(f"--out {out} is a folder; name a file in it, or choose --format folder")
    if kind == "parquet":
        if known != kind:
            raise UserError(f"--out {out}: a Parquet file is known by its name, so let it end in .parquet")
        pyarrow()
    return Target(path, kind)


def found_complete(target: Target, description: Description) -> Description | None:
    """What describes the complete set at `target`, None where it is to be made. Raises UserError for another."""
    if target.format == "folder":
        if not target.description.exists():
            return None
    elif not target.path.exists():
        return None
    elif not target.description.exists():
        raise UserError(f"{target.path} exists already, and nothing beside says what it is; choose another --out")
    found = read_description(target.description)
    check_same(target.path, found, description)
    return None if found.rows is None else found
