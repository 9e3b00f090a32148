"""The released weights that have a name: which architecture they are of, and where on the Hugging Face hub they lie.

Names are `TAG/ARCHITECTURE`, both as in open_clip: `laion2b_s34b_b79k/ViT-B-32`. Weights that were trained with
QuickGELU are of the `-quickgelu` architecture by either name, `openai/ViT-B-32` as well as `openai/ViT-B-32-quickgelu`.
"""

import difflib
import json
from dataclasses import asdict, dataclass, replace
from importlib import resources

from clip_jax.config import ClipConfig, PreprocessConfig
from clip_jax.errors import UserError
from clip_jax.listing import Listing
from clip_jax.model_size import parameters
from clip_jax.presets import get_config
from clip_jax.schema import parse


@dataclass(frozen=True)
class Pretrained:
    """Named weights in a hub `repository`, of a named architecture, with the preprocessing they were trained for.

    `revision` is a branch, tag or commit of the repository, the newest where there is none.
    """

    name: str
    architecture: str
    repository: str
    preprocess: PreprocessConfig
    revision: str | None = None

    @property
    def config(self) -> ClipConfig:
        """The architecture's config with these weights' preprocessing."""
        return replace(get_config(self.architecture), preprocess=self.preprocess)


def _read_table() -> dict[str, Pretrained]:
    text = (resources.files("clip_jax") / "assets" / "pretrained.tsv").read_text(encoding="utf-8")
    table = {}
    for line in text.splitlines()[1:]:
        name, architecture, repository, *rest = line.split("\t")
        preset = get_config(architecture).preprocess
        different = json.loads(rest[0]) if rest else {}
        preprocess = parse(PreprocessConfig, asdict(preset) | different, name)
        table[name] = Pretrained(name, architecture, repository, preprocess)
    return table


PRETRAINED = _read_table()


def get_pretrained(name: str) -> Pretrained:
    """The weights of that name. Raises UserError for an unknown one, naming the nearest."""
    if name not in PRETRAINED:
        raise UserError(f"there is no file, folder or pretrained model '{name}'; {_hint(name)}")
    return PRETRAINED[name]


def list_pretrained() -> Listing:
    """The names of released weights, sorted: a list of strings that prints as a table of what they are."""
    return Listing(
        ("name", "architecture", "total M", "repository"),
        {name: _row(PRETRAINED[name]) for name in sorted(PRETRAINED)},
        "total M: millions of parameters of both towers. Repository: on the Hugging Face hub.",
    )


def _row(entry: Pretrained) -> tuple[str, float, str]:
    return entry.architecture, parameters(get_config(entry.architecture)).total / 1e6, entry.repository


def _hint(name: str) -> str:
    """What was probably meant: the weights in a repository of that name, the two parts swapped, or a near name."""
    repositories = {entry.repository: entry.name for entry in reversed(PRETRAINED.values())}
    if name in repositories:
        return f"did you mean '{repositories[name]}', or 'hf-hub:{name}'?"
    lowered = {known.lower(): known for known in PRETRAINED}
    swapped = "/".join(reversed(name.lower().split("/")))
    close = difflib.get_close_matches(swapped, lowered, n=1, cutoff=0.9)
    close = close or difflib.get_close_matches(name.lower(), lowered, n=1, cutoff=0.5)
    if close:
        return f"did you mean '{lowered[close[0]]}'?"
    repository = f", and a repository of the hub is written 'hf-hub:{name}'" if name.count("/") == 1 else ""
    return f"clip_jax.list_pretrained() has the names{repository}"
