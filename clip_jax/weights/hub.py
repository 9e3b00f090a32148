"""Models and single files of the Hugging Face hub, fetched by huggingface_hub into the cache that its users share.

HF_HOME, HF_TOKEN, HF_ENDPOINT and HF_HUB_OFFLINE mean what they mean to huggingface_hub. Of a model only what it needs
is fetched: the files that describe it, its tokenizer, and its weights in one form.
"""

import errno
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from clip_jax.errors import UserError
from clip_jax.inputs.hf_tokenizer import TOKENIZER_FILES
from clip_jax.weights import released
from clip_jax.weights.json_files import read_json

CONFIG = "config.json"
DESCRIPTIONS = (
    *(released.DESCRIPTION, "open_clip_config.json", CONFIG, "preprocessor_config.json", "processor_config.json"),
    *TOKENIZER_FILES,
)
SHARDS = {  # of an index of a model in several files
    "model.safetensors.index.json": "model-*-of-*.safetensors",
    "pytorch_model.bin.index.json": "pytorch_model-*-of-*.bin",
}
# Safetensors first. Under the names without open_clip, timm publishes bare image towers.
WEIGHTS = (
    *("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors"),
    *("model.safetensors", "model.safetensors.index.json"),
    *("open_clip_pytorch_model.bin", "pytorch_model.bin", "pytorch_model.bin.index.json"),
)
STORAGE = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR)
PATH_HINT = "a folder that was downloaded elsewhere can be given as a path"


class _Unreachable(UserError):
    """The hub did not answer, so that what was fetched before must do."""


def download(repository: str, revision: str | None = None, token: str | None = None, cache: Path | None = None) -> Path:
    """A local folder with the model in `repository` (OWNER/NAME), at a branch, tag or commit, the newest by default.

    What is in the cache already is not fetched again, and does without the hub where that cannot be reached.
    Raises UserError where the hub, the repository, the revision or weights in it cannot be had.
    """
    try:
        with _explained(repository, revision, cache):
            return _fetch_model(repository, revision, token, cache)
    except _Unreachable:
        cached = _cached(repository, revision, cache, WEIGHTS)  # which are fetched last
        if cached is None:
            raise
        return cached.parent


def download_file(
    repository: str, filename: str, revision: str | None = None, token: str | None = None, cache: Path | None = None
) -> Path:
    """The local path of one file of a repository, such as a tokenizer's. Otherwise as `download`; raises UserError."""
    from huggingface_hub import hf_hub_download

    try:
        with _explained(repository, revision, cache, filename):
            if filename not in _list_files(repository, revision, token):
                raise UserError(f"{repository} has no file {filename}")
            return Path(hf_hub_download(repository, filename, revision=revision, token=token, cache_dir=cache))
    except _Unreachable:
        cached = _cached(repository, revision, cache, [filename])
        if cached is None:
            raise
        return cached


def _fetch_model(repository: str, revision: str | None, token: str | None, cache: Path | None) -> Path:
    from huggingface_hub import snapshot_download

    def fetch(names: Sequence[str]) -> Path:
        wanted = list(names)
        return Path(
            snapshot_download(repository, revision=revision, token=token, cache_dir=cache, allow_patterns=wanted)
        )

    files = _list_files(repository, revision, token)
    folder = fetch(DESCRIPTIONS)  # small, and they tell what the weights are
    candidates = (released.WEIGHTS,) if released.is_released(folder) else WEIGHTS
    candidates = [name for name in candidates if name in files and not _is_of_timm(folder, name)]
    if not candidates:
        known = f"{', '.join(WEIGHTS[:3])} and their like"
        raise UserError(f"{repository} holds no weights of a CLIP model; {known} would be")
    weights = candidates[0]
    return fetch([*DESCRIPTIONS, weights, *([SHARDS[weights]] if weights in SHARDS else [])])


def _list_files(repository: str, revision: str | None, token: str | None) -> set[str]:
    from huggingface_hub import HfApi, constants

    timeout = constants.HF_HUB_ETAG_TIMEOUT
    info = HfApi(token=token).model_info(repository, revision=revision, timeout=timeout)
    return {file.rfilename for file in info.siblings or ()}


def _is_of_timm(folder: Path, weights: str) -> bool:
    """Whether these are weights of an image tower alone, which timm's own config.json describes."""
    if weights.startswith("open_clip") or not (folder / CONFIG).is_file():
        return False
    try:
        config = read_json(folder / CONFIG)
    except UserError:
        return False  # whoever reads the model will say that this file is damaged
    return "architecture" in config and "model_type" not in config


def _cached(repository: str, revision: str | None, cache: Path | None, names: Sequence[str]) -> Path | None:
    """The first of these files that was fetched before."""
    from huggingface_hub import try_to_load_from_cache

    found = (try_to_load_from_cache(repository, name, cache_dir=cache, revision=revision) for name in names)
    return next((Path(path) for path in found if isinstance(path, str)), None)


@contextmanager
def _explained(
    repository: str, revision: str | None, cache: Path | None, filename: str | None = None
) -> Iterator[None]:
    """Turns what huggingface_hub raises into UserErrors, and into _Unreachable where the hub did not answer."""
    from huggingface_hub import errors

    http_error = errors.HTTPError  # pyright: ignore[reportPrivateImportUsage] (httpx's or httpx2's, by version)
    try:
        yield
    except (errors.HFValidationError, http_error, OSError, RuntimeError) as error:
        raise _explanation(error, repository, revision, cache, filename) from error


def _explanation(
    error: Exception, repository: str, revision: str | None, cache: Path | None, filename: str | None
) -> UserError:
    from huggingface_hub import constants, errors

    if isinstance(error, errors.LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
        error = error.__cause__  # why the hub was not asked, or did not answer
    wanted = repository if filename is None else f"{filename} of {repository}"
    host = urlsplit(constants.ENDPOINT).netloc
    match error:
        case errors.HFValidationError():
            return UserError(f"'{repository}' is no repository of the Hugging Face hub; OWNER/NAME would be")
        case errors.GatedRepoError():
            page = f"{constants.ENDPOINT}/{repository}"
            return UserError(f"{repository} is gated; ask for access at {page}, and give your token (HF_TOKEN)")
        case errors.RepositoryNotFoundError():
            return UserError(
                f"there is no repository {repository} on {host}, or it is private; a private one needs a token that "
                "may read it (HF_TOKEN)"
            )
        case errors.RevisionNotFoundError():
            return UserError(f"{repository} has no revision '{revision}'; a branch, a tag or a commit of it would be")
        case errors.HfHubHTTPError() if error.response.status_code == 401:
            return UserError(f"{host} refuses the token for {wanted}; give a valid one (HF_TOKEN), or none")
        case errors.HfHubHTTPError() if error.response.status_code < 500 and error.response.status_code != 429:
            return UserError(f"{host} refuses {wanted} with HTTP status {error.response.status_code}")
        case errors.HfHubHTTPError():
            status = error.response.status_code
            return _Unreachable(f"{host} cannot give {wanted} now (HTTP status {status}); try again later")
        case errors.OfflineModeIsEnabled():
            return _Unreachable(f"{wanted} was not fetched before, and HF_HUB_OFFLINE is set; {PATH_HINT}")
        case OSError() if error.errno in STORAGE:
            place = cache or constants.HF_HUB_CACHE
            return UserError(f"cannot store {wanted} in {place}: {error.strerror}; HF_HOME can name another place")
        case _:
            reason = " ".join(str(error).split()) or type(error).__name__
            return _Unreachable(f"cannot reach {host} to fetch {wanted}: no connection ({reason}); {PATH_HINT}")
