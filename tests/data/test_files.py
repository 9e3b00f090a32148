import random

import fsspec
import pytest
from support.distant import distant_files

from clip_jax.data import files, ranges
from clip_jax.data.ranges import RangeReader, Stretch, coalesce, open_stream
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
    assert list(files.read_files(names).items()) == [
        (names[0], b"content of b.tar"),
        (names[1], None),
        (names[2], b"content of a.tar"),
    ]
    before = files.stamp(f"{root}/a.txt")
    assert before == files.stamp(f"{root}/a.txt")
    assert before.size == len("content of a.txt")
    system.pipe_file(f"{root}/a.txt", b"another of a.txt")
    assert files.stamp(f"{root}/a.txt") != before
    for read in (files.read_file, files.stamp):
        with pytest.raises(UserError, match=r"cannot read .*/z\.txt: No such file or directory$"):
            read(f"{root}/z.txt")


def test_the_ranges_of_several_files(tmp_path, distant):
    rng = random.Random(0)
    contents = {"distant://box/a": rng.randbytes(5_000_000), str(tmp_path / "b"): rng.randbytes(300_000)}
    distant.store("box/a", contents["distant://box/a"])
    (tmp_path / "b").write_bytes(contents[str(tmp_path / "b")])
    reader = RangeReader({path: len(content) for path, content in contents.items()})
    wanted = {
        path: [(rng.randrange(len(content) - 5000), rng.randrange(1, 5000)) for _ in range(9)]
        for path, content in contents.items()
    }
    read = reader.read(wanted)
    assert read == {
        path: {(offset, size): contents[path][offset : offset + size] for offset, size in wanted[path]}
        for path in contents
    }
    assert reader.read({}) == {}


def test_coalescing_reads_little_in_vain():
    assert coalesce([(900, 50), (0, 100), (120, 10), (0, 100), (300, 600)], 50, 1000) == [
        Stretch(0, 130, ((0, 100), (120, 10))),
        Stretch(300, 950, ((300, 600), (900, 50))),
    ]
    long = [(0, 600), (600, 600), (1200, 5000)]
    assert [stretch.ranges for stretch in coalesce(long, 50, 1000)] == [(part,) for part in long]


def test_a_range_within_another(distant):
    distant.store("box/a", bytes(range(200)))
    wanted = {"distant://box/a": [(0, 100), (10, 20), (0, 5)]}
    read = RangeReader({"distant://box/a": 200}).read(wanted)["distant://box/a"]
    assert read == {(offset, size): bytes(range(offset, offset + size)) for offset, size in wanted["distant://box/a"]}


def test_what_fails_for_a_while_is_asked_for_again(distant, waits):
    distant.store("box/a", b"content")
    distant.failures += [ConnectionResetError("reset"), TimeoutError("slow")]
    assert files.read_file("distant://box/a") == b"content"
    assert waits == [0.5, 1.0]
    distant.failures.append(OSError("500 Internal Server Error"))
    assert RangeReader({"distant://box/a": 7}).read({"distant://box/a": [(1, 3)]}) == {
        "distant://box/a": {(1, 3): b"ont"}
    }
    assert waits == [0.5, 1.0, 0.5]


def test_nothing_is_attempted_again_after_a_long_time(distant, waits, monkeypatch):
    distant.store("box/a", b"content")
    monkeypatch.setattr(files, "_PATIENCE", -1.0)
    for ask in (files.stamp, files.read_file, lambda path: files.fetch([(path, 0, 3)])):
        distant.failures[:] = [ConnectionResetError("reset")]
        with pytest.raises(UserError, match="cannot read distant://box/a: reset"):
            ask("distant://box/a")
    assert waits == []


class HttpError(Exception):
    """As gcsfs has it: no OSError."""

    def __init__(self, code: int) -> None:
        super().__init__(f"status {code}\nand more")
        self.code = code


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
    for ask in (files.stamp, files.read_file, lambda path: files.fetch([(path, 0, 3)])):
        distant.failures[:] = [error] * 9
        with pytest.raises(UserError, match=r"cannot read distant://box/a: \w+") as caught:
            ask("distant://box/a")
        assert "\n" not in str(caught.value)
        assert 9 - len(distant.failures) == attempts


@pytest.mark.parametrize("content", [b"short", b"", None])
def test_a_remote_file_that_ends_early_has_changed(distant, content):
    if content is not None:
        distant.store("box/a", content)
    if content == b"":
        distant.failures += [HttpError(416), HttpError(416)]
    reader = RangeReader({"distant://box/a": 100})
    for read in (lambda: reader.read({"distant://box/a": [(0, 50)]}), open_stream("distant://box/a", 100).read):
        with pytest.raises(UserError, match="distant://box/a has changed since it was indexed"):
            read()


def test_a_stream_comes_in_large_blocks(distant, monkeypatch):
    monkeypatch.setattr(ranges, "_BLOCK", 1000)
    content = random.Random(0).randbytes(10_500)
    distant.store("box/a", content)
    with open_stream("distant://box/a", len(content)) as stream:
        pieces = []
        while piece := stream.read(100):
            pieces.append(piece)
        assert b"".join(pieces) == content
        assert distant.calls["read"] == 11
        stream.seek(7000)
        assert stream.read(30) == content[7000:7030]
        stream.seek(-10, 2)
        assert stream.read() == content[-10:]


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
