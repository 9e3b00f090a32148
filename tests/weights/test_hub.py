"""Downloads from a hub on the loopback: what is fetched, what the cache saves, and what a user reads when it fails."""

import errno
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import constants
from support.fake_hub import TOKEN, FakeHub, serve

from clip_jax.errors import UserError
from clip_jax.weights.hub import download, download_file

PATH_HINT = "a folder that was downloaded elsewhere can be given as a path"
CONFIG = {"config.json": b'{"model_type": "clip"}', "tokenizer.json": b"{}", "README.md": b"A card."}


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Iterator[FakeHub]:
    """huggingface_hub reads its environment when it is imported, so here what it read is changed."""
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with serve(FakeHub(tmp_path / "hub")) as hub:
        point_to(monkeypatch, hub.url)
        yield hub


def point_to(monkeypatch, url: str) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")


@pytest.fixture
def cache(tmp_path) -> Path:
    return tmp_path / "cache"


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_fetches_what_a_model_needs_and_no_more(hub, cache):
    needed = ("config.json", "open_clip_config.json", "preprocessor_config.json", "tokenizer.json", "vocab.json")
    needed += ("merges.txt", "open_clip_model.safetensors")
    needless = ("model.safetensors", "open_clip_pytorch_model.bin", "flax_model.msgpack", "tf_model.h5", "README.md")
    needless += ("onnx/model.onnx", "logs/events.txt")
    hub.add("laion/clip", {name: f'{{"name": "{name}"}}'.encode() for name in needed + needless})
    folder = download("laion/clip", cache=cache)
    assert names(folder) == set(needed)
    assert b"open_clip_model.safetensors" in (folder / "open_clip_model.safetensors").read_bytes()
    assert cache in folder.parents
    assert hub.fetched() == sorted(needed)


INDEX = json.dumps({"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}})
SHARDED = {
    "model.safetensors.index.json": INDEX.encode(),
    **{"model-00001-of-00002.safetensors": b"1", "model-00002-of-00002.safetensors": b"2"},
}
TIMM = {"config.json": b'{"architecture": "vit_base_patch32_clip_224", "num_classes": 0}'}


@pytest.mark.parametrize(
    ("files", "fetched"),
    [
        ({"open_clip_pytorch_model.bin": b"", "pytorch_model.bin": b""}, {"open_clip_pytorch_model.bin"}),
        ({"open_clip_pytorch_model.bin": b"", "model.safetensors": b""}, {"model.safetensors"}),
        ({"pytorch_model.bin": b"", **SHARDED}, {*SHARDED}),
        ({"pytorch_model.bin": b""}, {"pytorch_model.bin"}),
        ({**TIMM, "model.safetensors": b"", "open_clip_pytorch_model.bin": b""}, {"open_clip_pytorch_model.bin"}),
        ({**TIMM, "model.safetensors": b"", "open_clip_model.safetensors": b""}, {"open_clip_model.safetensors"}),
        (
            {"clip_jax.json": b"{}", "model.safetensors": b"", "open_clip_model.safetensors": b""},
            {"clip_jax.json", "model.safetensors"},
        ),
    ],
    ids=["bin", "no pickle", "shards", "only pickle", "timm's image tower", "timm and open_clip", "clip_jax"],
)
def test_one_form_of_the_weights(hub, cache, files, fetched):
    hub.add("some/model", {**CONFIG, **files})
    assert names(download("some/model", cache=cache)) == {"config.json", "tokenizer.json", *fetched}


def test_second_time_nothing_is_fetched_again(hub, cache):
    hub.add("some/model", {**CONFIG, "model.safetensors": b"weights"})
    first = download("some/model", cache=cache)
    hub.requests.clear()
    assert download("some/model", cache=cache) == first
    assert hub.fetched() == []


def test_new_commit_is_seen(hub, cache):
    """The commit of the fake hub is that of a branch's name, so a moved branch is one that was renamed."""
    hub.add("some/model", {**CONFIG, "model.safetensors": b"old"})
    download("some/model", cache=cache)
    (hub.root / "some/model/main").rename(hub.root / "some/model/before")
    hub.commit = lambda repository, revision: {"main": "b" * 40, "before": "a" * 40}[revision]
    hub.add("some/model", {**CONFIG, "model.safetensors": b"new"})
    assert (download("some/model", cache=cache) / "model.safetensors").read_bytes() == b"new"


def test_revisions(hub, cache):
    hub.add("some/model", {**CONFIG, "model.safetensors": b"main"})
    hub.add("some/model", {**CONFIG, "model.safetensors": b"older"}, revision="v1")
    commit = hub.commit("some/model", "v1")
    for revision, content in ((None, b"main"), ("v1", b"older"), (commit, b"older"), ("main", b"main")):
        assert (download("some/model", revision, cache=cache) / "model.safetensors").read_bytes() == content


def test_without_connection_the_cache_serves(hub, cache, monkeypatch):
    hub.add("some/model", {**CONFIG, "model.safetensors": b"weights"})
    hub.add("some/model", {**CONFIG, "model.safetensors": b"older"}, revision="v1")
    folders = [download("some/model", revision, cache=cache) for revision in (None, "v1")]
    tokenizer = download_file("some/model", "tokenizer.json", cache=cache)
    for name, value in (("ENDPOINT", NOBODY), ("HF_HUB_OFFLINE", True)):
        monkeypatch.setattr(constants, name, value)
        assert [download("some/model", revision, cache=cache) for revision in (None, "v1")] == folders
        assert download_file("some/model", "tokenizer.json", cache=cache) == tokenizer


def test_hub_that_is_down_is_as_good_as_none(hub, cache):
    hub.add("some/model", {**CONFIG, "model.safetensors": b"weights"})
    folder = download("some/model", cache=cache)
    hub.broken = True
    assert download("some/model", cache=cache) == folder


def test_token_is_sent(hub, cache, monkeypatch):
    hub.add("my/model", {**CONFIG, "model.safetensors": b"weights"})
    hub.private.add("my/model")
    assert names(download("my/model", token=TOKEN, cache=cache)) >= {"model.safetensors"}
    assert {token for _, _, token in hub.requests} == {TOKEN}
    hub.requests.clear()
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    download("my/model", cache=cache / "other")
    assert {token for _, _, token in hub.requests} == {TOKEN}


def test_one_file(hub, cache):
    hub.add("google/mt5-base", {"spiece.model": b"pieces", "pytorch_model.bin": b"x"})
    path = download_file("google/mt5-base", "spiece.model", cache=cache)
    assert (path.name, path.read_bytes()) == ("spiece.model", b"pieces")
    assert hub.fetched() == ["spiece.model"]


NOBODY = "http://127.0.0.1:9"  # the port that discards, where nothing listens


def message(repository: str = "some/model", **options) -> str:
    with pytest.raises(UserError) as caught:
        download(repository, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_a_user_reads(hub, cache, monkeypatch):
    host = hub.url.removeprefix("http://")
    hub.add("some/model", {**CONFIG, "model.safetensors": b"weights"})
    hub.add("some/gated", {**CONFIG, "model.safetensors": b"weights"})
    hub.add("some/bert", {**CONFIG, "flax_model.msgpack": b"weights"})
    hub.gated.add("some/gated")
    absent = f"there is no repository {{}} on {host}, or it is private; a private one needs a token that may read it"
    absent += " (HF_TOKEN)"
    assert message("some/absent", cache=cache) == absent.format("some/absent")
    assert message("some/absent", token=TOKEN, cache=cache) == absent.format("some/absent")
    assert message(token="hf_wrong", cache=cache) == (
        f"{host} refuses the token for some/model; give a valid one (HF_TOKEN), or none"
    )
    assert message(revision="v9", cache=cache) == (
        "some/model has no revision 'v9'; a branch, a tag or a commit of it would be"
    )
    for token in (None, TOKEN):
        assert message("some/gated", token=token, cache=cache) == (
            f"some/gated is gated; ask for access at {hub.url}/some/gated, and give your token (HF_TOKEN)"
        )
    assert message("some/bert", cache=cache) == (
        "some/bert holds no weights of a CLIP model; open_clip_model.safetensors, "
        "open_clip_pytorch_model.safetensors, model.safetensors and their like would be"
    )
    assert message("a/b/c", cache=cache) == "'a/b/c' is no repository of the Hugging Face hub; OWNER/NAME would be"
    with pytest.raises(UserError, match=r"^some/model has no file spiece.model$"):
        download_file("some/model", "spiece.model", cache=cache)
    hub.broken = True
    assert message(cache=cache / "none") == f"{host} cannot give some/model now (HTTP status 503); try again later"


def test_no_connection(hub, cache, monkeypatch):
    point_to(monkeypatch, NOBODY)
    start = "cannot reach 127.0.0.1:9 to fetch {}: no connection ("
    assert message(cache=cache).startswith(start.format("some/model"))
    assert message(cache=cache).endswith(f"); {PATH_HINT}")
    with pytest.raises(UserError) as caught:
        download_file("some/model", "tokenizer.json", cache=cache)
    assert str(caught.value).startswith(start.format("tokenizer.json of some/model"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert message(cache=cache) == f"some/model was not fetched before, and HF_HUB_OFFLINE is set; {PATH_HINT}"
    with pytest.raises(UserError, match=r"^tokenizer.json of some/model was not fetched before, and HF_HUB_OFFLINE"):
        download_file("some/model", "tokenizer.json", cache=cache)


def test_half_a_download_is_no_model(hub, cache, monkeypatch):
    """The tokenizer of a model may lie in the cache without the model."""
    hub.add("some/model", {**CONFIG, "model.safetensors": b"weights"})
    download_file("some/model", "tokenizer.json", cache=cache)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "was not fetched before" in message(cache=cache)


def test_full_disk(hub, cache, monkeypatch):
    hub.add("some/model", {**CONFIG, "model.safetensors": b"weights"})

    def no_space(*arguments, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", no_space)
    assert message(cache=cache) == (
        f"cannot store some/model in {cache}: No space left on device; HF_HOME can name another place"
    )


def test_cache_that_is_a_file(hub, cache):
    hub.add("some/model", {**CONFIG, "model.safetensors": b"weights"})
    cache.write_text("")
    assert message(cache=cache).startswith(f"cannot store some/model in {cache}: ")


def test_environment_is_that_of_huggingface_hub(hub, tmp_path):
    """In a fresh interpreter, where it is read: endpoint, home, token, and offline."""
    hub.add("my/model", {**CONFIG, "model.safetensors": b"weights"})
    hub.private.add("my/model")
    program = "from clip_jax.weights.hub import download; print(download('my/model'))"
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": TOKEN}
    environment.pop("HF_HUB_CACHE", None)

    def run(**more: str) -> str:
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, env={**environment, **more}, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    folder = run()
    assert names(Path(folder)) == {"config.json", "tokenizer.json", "model.safetensors"}
    assert Path(folder).is_relative_to(tmp_path / "home" / "hub")
    hub.requests.clear()
    assert run(HF_HUB_OFFLINE="1") == folder
    assert hub.requests == []
