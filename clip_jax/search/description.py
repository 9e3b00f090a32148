"""What is kept beside a set of embeddings: which model made it of which data, and how."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from clip_jax.errors import UserError
from clip_jax.schema import parse

SHARD = 4096  # samples; what is lost at most where a process is stopped
VERSION = 1  # to be raised where the same model and data would give other embeddings


@dataclass(frozen=True)
class Description:
    """A set of embeddings in words and numbers, as JSON beside it.

    `model` and `data` say where they were, the digests what they were. `samples` are all that the data has, each
    `shard` of them embedded together; `left_out` of these could not be used, by cause. `rows` are in the set, None
    while it is not complete. `normalized` rows have length one. `dtype` is that of the rows, `compute` that of the
    model's activations. `kind` says whether `data` are a table's or the lines of a text file.
    """

    model: str
    visual_digest: str
    text_digest: str
    data: str
    data_digest: str
    of: Literal["images", "texts"]
    samples: int
    shard: int
    width: int
    normalized: bool
    dtype: Literal["float32", "float16"]
    compute: Literal["float32", "bfloat16"]
    kind: Literal["table", "lines"] = "table"
    rows: int | None = None
    left_out: dict[str, int] = field(default_factory=dict)
    version: int = VERSION

    @property
    def shards(self) -> int:
        """How many there are, the last of which may be smaller."""
        return -(-self.samples // self.shard)

    def samples_of(self, shard: int) -> range:
        """The places in the data that a shard is of."""
        return range(shard * self.shard, min((shard + 1) * self.shard, self.samples))

    def difference(self, other: "Description") -> str | None:
        """In which way a set that `other` describes would not be this one, in words; None where it would be."""
        words = {
            "of": f"embeddings of {self.of}",
            "compute": f"--compute {self.compute}",
            "normalized": "normalised embeddings" if self.normalized else "--raw",
            "dtype": f"--dtype {self.dtype}",
            "shard": f"--shard {self.shard}",
            "data_digest": f"other data ({self.data}, as it was then)",
            "visual_digest": f"another model ({self.model}, as it was then)",
            "text_digest": f"another model ({self.model}, as it was then)",
        }
        return next((told for name, told in words.items() if getattr(self, name) != getattr(other, name)), None)

    def to_json(self) -> str:
        """As the file beside the set has it."""
        return json.dumps(asdict(self), indent=2) + "\n"


def read_description(path: Path) -> Description:
    """Raises UserError for a file that cannot be read, or says something else."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}, which describes a set of embeddings: {error}") from error
    if isinstance(values, dict) and values.get("version", VERSION) != VERSION:
        raise UserError(f"{path} is of version {values['version']}; this clip_jax knows {VERSION}, so embed anew")
    return parse(Description, values, str(path))
