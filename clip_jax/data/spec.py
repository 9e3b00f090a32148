"""The grammar that names data everywhere: KIND:LOCATION[?key=value&...], or a bare path."""

import fnmatch
import os
from dataclasses import dataclass
from pathlib import Path

from clip_jax.data import files
from clip_jax.data.beside import check_shards
from clip_jax.data.patterns import expand
from clip_jax.data.table import Table
from clip_jax.errors import UserError
from clip_jax.schema import nearest

_EXAMPLE = ("image", "captions", "label")
OPTIONS = {
    "tar": ("captions",),
    "folder": (),
    "csv": ("image", "caption", "label", "separator"),
    "tfrecord": _EXAMPLE,
    "arrayrecord": _EXAMPLE,
    "tfds": ("split", "data_dir", *_EXAMPLE),
    "scenes": ("images", "seed", "size", "style"),
    "synthetic": ("size", "seed"),
}
"""The options of each kind of data."""
REMOTE = ("tar", "csv", "tfrecord")  # kinds whose location may be a URL
FILES = {"tar": "*.tar", "tfrecord": "*.tfrecord*", "arrayrecord": "*.array*record*"}
"""How the files of each kind are named, by which a bare path or a folder of them is recognised."""


@dataclass(frozen=True)
class Spec:
    """A parsed data spec; `options` are the pairs after the question mark."""

    kind: str
    location: str
    options: tuple[tuple[str, str], ...] = ()


def parse_spec(text: str) -> Spec:
    """The parts of a data spec such as `tar:data/{00000..00012}.tar?captions=captions` or `folder:pets`.

    A bare path or URL is recognised by its name (.tar, .csv, .tsv, .tfrecord, .arrayrecord), a folder by what it
    holds: tars, TFRecords, ArrayRecords, or images. Raises UserError for what is not in the grammar.
    """
    rest, question, option_text = text.partition("?")
    kind, colon, location = rest.partition(":")
    if not colon or "/" in kind or location.startswith(("//", ":")):
        kind, location = _recognise(rest), rest
    elif kind not in OPTIONS:
        raise UserError(f"there is no data of kind '{kind}'; {nearest(kind, OPTIONS)}")
    if not location:
        raise UserError(f"the data spec '{text}' has no location; KIND:LOCATION[?key=value&...] would be one")
    if files.is_remote(location) and kind not in REMOTE:
        raise UserError(f"'{text}' is remote; data of kinds {', '.join(REMOTE)} may be, so copy or mount it")
    options = _parse_options(option_text, text) if question else ()
    for key, value in options:
        if key not in OPTIONS[kind]:
            hint = nearest(key, OPTIONS[kind]) if OPTIONS[kind] else "it takes none"
            raise UserError(f"data of kind '{kind}' has no option '{key}'; {hint}")
        if not value:
            raise UserError(f"the option '{key}' in the data spec '{text}' is empty; give it a value, or leave it out")
    return Spec(kind, location, options)


def open_table(text: str) -> Table:
    """The table that a data spec names. Raises UserError where the spec or the data is at fault."""
    spec = parse_spec(text)
    options = dict(spec.options)
    place = os.path.expanduser(spec.location)
    # Each kind is imported where it is opened: some need packages that are not installed everywhere.
    match spec.kind:
        case "tar":
            from clip_jax.data.tar import TarTable

            shards = expand(place, FILES["tar"])
            if files.kind(place) == "folder":
                check_shards(shards)
            return TarTable(shards, options.get("captions"))
        case "folder":
            from clip_jax.data.folder import FolderTable

            return FolderTable(place)
        case "csv":
            from clip_jax.data.csv_file import CsvTable

            return CsvTable(place, **options)
        case "tfrecord":
            from clip_jax.data.tfrecord import open_tfrecord

            return open_tfrecord(expand(place, FILES["tfrecord"]), **options)
        case "arrayrecord":
            from clip_jax.data.arrayrecord import open_arrayrecord

            return open_arrayrecord(expand(place, FILES["arrayrecord"]), **options)
        case "tfds":
            from clip_jax.data.tfds import open_tfds

            return open_tfds(spec.location, **options)
        case "scenes":
            from clip_jax.data.scenes import ScenesTable

            return ScenesTable.from_options(spec.location, options)
        case "synthetic":
            from clip_jax.data.synthetic import SyntheticTable

            return SyntheticTable.from_options(spec.location, options)
        case kind:
            raise AssertionError(f"parse_spec let the kind {kind} through")


def _recognise(path: str) -> str:
    """The kind of data behind a bare path or URL."""
    name = path.rstrip("/").rsplit("/", 1)[-1]
    if name.endswith((".csv", ".tsv")):
        return "csv"
    for kind, pattern in FILES.items():
        if fnmatch.fnmatchcase(name, pattern):
            return kind
    if files.is_remote(path):
        raise UserError(f"{path} is of an unknown kind; name it as in tar:{path}")
    place = Path(path).expanduser()
    if place.is_dir():
        return next((kind for kind, pattern in FILES.items() if any(place.glob(pattern))), "folder")
    if place.exists():
        raise UserError(f"{path} is of an unknown kind; name it as in KIND:{path}")
    raise UserError(f"there is no file or folder {path}; a path or KIND:LOCATION ({', '.join(OPTIONS)}) would do")


def _parse_options(option_text: str, spec: str) -> tuple[tuple[str, str], ...]:
    options: dict[str, str] = {}
    for pair in option_text.split("&"):
        key, equals, value = pair.partition("=")
        if not key or not equals or key in options:
            raise UserError(f"'{pair}' in the data spec '{spec}' is not key=value, each key once")
        options[key] = value
    return tuple(options.items())
