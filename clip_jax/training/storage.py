"""A run's files on a disk or in a bucket: what goes wrong with them is told in one line."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from etils import epath

from clip_jax.errors import IOFailure, UserError, reason


@contextmanager
def one_line(path: Path | epath.Path, action: str, failure: type[UserError] = IOFailure) -> Iterator[None]:
    """Turns what comes up over files in `path` into a `failure` that says `cannot ACTION: why`.

    Buckets are reached through several libraries, each with errors of its own; there, any error counts.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if isinstance(path, Path) and not isinstance(error, OSError):
            raise
        raise failure(f"cannot {action}: {reason(error)}") from error
