"""distant://, an fsspec file system in memory that answers late, counts what it is asked, and fails when told to."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import fsspec
from fsspec.asyn import AsyncFileSystem


def _name(url: str) -> str:
    return url.removeprefix("distant://").rstrip("/")


class HttpError(Exception):
    """As gcsfs has it: no OSError."""

    def __init__(self, code: int) -> None:
        super().__init__(f"status {code}\nand more")
        self.code = code


class DistantFiles(AsyncFileSystem):
    """All instances share their files; `calls` counts requests, `failures` are raised one a request.

    `most_at_once` is the largest number of requests that were under way at one time.
    """

    protocol = "distant"
    cachable = False
    latency = 0.05  # seconds
    contents: dict[str, bytes]
    versions: Counter[str]
    calls: Counter[str]
    failures: list[Exception]
    under_way: int
    most_at_once: int
    read_only = False

    async def _request(self, name: str) -> None:
        self.calls[name] += 1
        cls = type(self)
        cls.under_way += 1
        cls.most_at_once = max(cls.most_at_once, cls.under_way)
        await asyncio.sleep(self.latency)
        cls.under_way -= 1
        if self.failures:
            raise self.failures.pop(0)

    async def _info(self, path: str, **_) -> dict[str, Any]:
        await self._request("info")
        path = _name(path)
        if path in self.contents:
            etag = self.versions[path]
            return {"name": path, "size": len(self.contents[path]), "type": "file", "etag": f"v{etag}"}
        if any(name.startswith(f"{path}/") for name in self.contents):
            return {"name": path, "size": 0, "type": "directory"}
        raise FileNotFoundError(path)

    async def _ls(self, path: str, detail: bool = True, **_) -> list:
        await self._request("ls")
        path = _name(path)
        found = {}
        for name, content in self.contents.items():
            head, slash, _rest = name.removeprefix(f"{path}/").partition("/")
            if name.startswith(f"{path}/"):
                kind = "directory" if slash else "file"
                found[f"{path}/{head}"] = {"name": f"{path}/{head}", "size": len(content), "type": kind}
        return list(found.values()) if detail else list(found)

    async def _cat_file(self, path: str, start: int | None = None, end: int | None = None, **_) -> bytes:
        await self._request("read")
        path = _name(path)
        if path not in self.contents:
            raise FileNotFoundError(path)
        return self.contents[path][start:end]

    async def _pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **_) -> None:
        await self._request("write")
        if self.read_only:
            raise PermissionError("this bucket is read-only")
        self.store(_name(path), value)

    @classmethod
    def store(cls, name: str, content: bytes) -> None:
        cls.contents[name] = content
        cls.versions[name] += 1


@contextmanager
def distant_files(latency: float = 0.0) -> Iterator[type[DistantFiles]]:
    """The file system, registered and empty."""
    fsspec.register_implementation("distant", DistantFiles, clobber=True)
    DistantFiles.latency, DistantFiles.read_only = latency, False
    DistantFiles.contents, DistantFiles.failures = {}, []
    DistantFiles.versions, DistantFiles.calls = Counter(), Counter()
    DistantFiles.under_way = DistantFiles.most_at_once = 0
    yield DistantFiles
