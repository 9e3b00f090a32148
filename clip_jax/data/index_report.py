"""What there is after the files of a data spec have been indexed, for whoever asks before a long run."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from clip_jax.data import files
from clip_jax.data.patterns import expand
from clip_jax.data.spec import FILES, open_table, parse_spec
from clip_jax.errors import UserError

INDEXED = ("tar", "tfrecord")


@dataclass(frozen=True)
class IndexReport:
    """The shards of a data spec: how many samples each has, and the bytes of all together."""

    parts: dict[str, int]
    bytes: int

    @property
    def shards(self) -> int:
        """How many files there are."""
        return len(self.parts)

    @property
    def samples(self) -> int:
        """How many samples they hold together."""
        return sum(self.parts.values())


def index_report(text: str) -> IndexReport:
    """Indexes the tars or TFRecord files of a data spec, several at a time, with a progress bar where it takes long.

    The indexes are kept, so that the next to open the same files need not make them. Raises UserError for other kinds
    of data, which need none, and where a shard cannot be read; one that breaks off is warned of.
    """
    spec = parse_spec(text)
    if spec.kind not in INDEXED:
        raise UserError(f"data of kind '{spec.kind}' needs no index; {' and '.join(INDEXED)} do")
    table = open_table(text)
    with ThreadPoolExecutor(max_workers=files.AT_ONCE) as pool:
        stamps = pool.map(files.stamp, expand(spec.location, FILES[spec.kind]))
        return IndexReport(table.parts, sum(stamp.size for stamp in stamps))
