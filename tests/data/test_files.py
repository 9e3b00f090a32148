from pathlib import Path

import fsspec
import pytest
from support.distant import HttpError, distant_files

from clip_jax.data import files
from clip_jax.errors import UserError


@pytest.fixture
def distant():
    with distant_files() as system:
        yield system


@pytest.fixture
def waits(monkeypatch) -> list[float]:
    """The pauses that would have been made."""
    made = []
    monkeypatch.setattr(files.time, "sleep", made.append)
    return made


@pytest.mark.parametrize("root", ["memory://box", "distant://box", None])
def test_finds_stamps_and_reads_alike_everywhere(tmp_path, distant, root):
    del distant
    root = root or str(tmp_path)
    system, _ = fsspec.core.url_to_fs(root)
    if not files.is_remote(root):
        (tmp_path / "deep").mkdir()
    for name in ("b.tar", "a.tar", "deep/c.tar", "a.txt"):
        system.pipe_file(f"{root}/{name}", f"content of {name}".encode())
    found = files.match(f"{root}/*.tar")
    assert [files.read_file(path) for path in found] == [b"content of a.tar", b"content of b.tar"]
    assert files.match(f"{root}/none*") == []
    assert [files.kind(f"{root}/{name}") for name in ("a.txt", "deep", "z.txt")] == ["file", "folder", None]
    assert files.read_file(f"{root}/deep/c.tar") == b"content of deep/c.tar"
    names = [f"{root}/{name}" for name in ("b.tar", "z.tar", "a.tar", "b.tar")]
    assert [(path, str(content)) for path, content in files.read_files(names).items()] == [
        (names[0], str(b"content of b.tar")),
        (names[1], f"cannot read {names[1]}: No such file or directory"),
        (names[2], str(b"content of a.tar")),
    ]
    before = files.stamp(f"{root}/a.txt")
    assert before == files.stamp(f"{root}/a.txt")
    assert before.size == len("content of a.txt")
    system.pipe_file(f"{root}/a.txt", b"another of a.txt")
    assert files.stamp(f"{root}/a.txt") != before
    for read in (files.read_file, files.stamp):
        with pytest.raises(UserError, match=r"cannot read .*/z\.txt: No such file or directory$"):
            read(f"{root}/z.txt")


def test_what_fails_for_a_while_is_asked_for_again(distant, waits):
    distant.store("box/a", b"content")
    distant.failures += [ConnectionResetError("reset"), TimeoutError("slow")]
    assert files.read_file("distant://box/a") == b"content"
    assert waits == [0.5, 1.0]
    distant.failures.append(OSError("500 Internal Server Error"))
    assert files.fetch([("distant://box/a", 1, 4)]) == [b"ont"]
    assert waits == [0.5, 1.0, 0.5]


def test_nothing_is_attempted_again_after_a_long_time(distant, waits, monkeypatch):
    distant.store("box/a", b"content")
    monkeypatch.setattr(files, "_PATIENCE", -1.0)
    for ask in (files.stamp, files.read_file, lambda path: files.fetch([(path, 0, 3)])):
        distant.failures[:] = [ConnectionResetError("reset")]
        with pytest.raises(UserError, match="cannot read distant://box/a: reset"):
            ask("distant://box/a")
    assert waits == []


@pytest.mark.parametrize(
    ("error", "attempts"),
    [
        (ConnectionResetError("reset"), 5),
        (HttpError(503), 5),
        (HttpError(429), 5),
        (HttpError(403), 1),
        (PermissionError("denied"), 1),
        (ValueError("no"), 1),
    ],
)
def test_what_fails_for_good_is_one_line(distant, waits, error, attempts):
    del waits
    distant.store("box/a", b"content")

    def read_part(path: str) -> None:
        (answer,) = files.fetch([(path, 0, 3)])
        assert attempts == 1  # what may succeed later is raised, for it does not tell of the file
        assert isinstance(answer, UserError)
        raise answer

    for ask in (files.stamp, files.read_file, read_part):
        distant.failures[:] = [error] * 9
        with pytest.raises(UserError, match=r"cannot read distant://box/a: \w+") as caught:
            ask("distant://box/a")
        assert "\n" not in str(caught.value)
        assert 9 - len(distant.failures) == attempts


def test_what_may_not_be_read_is_told_of_and_what_fails_is_raised(tmp_path, monkeypatch):
    paths = [str(tmp_path / name) for name in ("a", "b")]
    for path in paths:
        Path(path).write_bytes(b"content")
    error: OSError = PermissionError(13, "Permission denied")

    def fail(path, *arguments):
        if path == paths[0]:
            raise error
        return open(path, *arguments)

    monkeypatch.setattr(files, "open", fail, raising=False)
    told, content = files.read_files(paths).values()
    assert str(told) == f"cannot read {paths[0]}: Permission denied"
    assert content == b"content"
    error = OSError(5, "Input/output error")
    with pytest.raises(UserError, match=r"/a: Input/output error$"):
        files.read_files(paths)


def test_a_stamp_asked_for_anew_does_not_come_from_a_listing(distant, monkeypatch):
    forgotten = []
    monkeypatch.setattr(distant, "invalidate_cache", lambda self, path=None: forgotten.append(path))
    distant.store("box/a", b"content")
    assert files.stamp("distant://box/a") == files.stamp("distant://box/a", anew=True)
    assert forgotten == ["box/a"]


def test_names_what_to_install(monkeypatch):
    def missing(url):
        raise ImportError(f"needs something for {url}")

    monkeypatch.setattr(files.fsspec.core, "url_to_fs", missing)
    for url, package in (
        ("gs://b/x", r"'\.\[gcs\]' in the repository"),
        ("s3://b/x", "s3fs"),
        ("zzz://b/x", "zzzfs"),
    ):
        with pytest.raises(UserError, match=f"needs another package; pip install {package}$"):
            files.stamp(url)


def test_refuses_an_unknown_protocol():
    with pytest.raises(UserError, match="zzz://b/x: Protocol not known: zzz"):
        files.kind("zzz://b/x")
