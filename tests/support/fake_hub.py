"""A Hugging Face hub on the loopback: the few routes that a download takes, over folders on disk."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_right"


@dataclass
class FakeHub:
    """`root`/OWNER/NAME/REVISION/ are the repositories' files. `requests` are (method, path, token) in order."""

    root: Path
    private: set[str] = field(default_factory=set)
    gated: set[str] = field(default_factory=set)
    broken: bool = False
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    url: str = ""

    def add(self, repository: str, files: dict[str, bytes], revision: str = "main") -> None:
        for name, content in files.items():
            path = self.root / repository / revision / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    def fetched(self) -> list[str]:
        """The files whose content was asked for, by name, sorted."""
        return sorted(
            path.rsplit("/", 1)[1] for method, path, _ in self.requests if method == "GET" and "/api/" not in path
        )

    def commit(self, repository: str, revision: str) -> str:
        return hashlib.sha1(f"{repository}@{revision}".encode()).hexdigest()

    def folder(self, repository: str, revision: str) -> Path | None:
        """The files of a branch, or of the commit that stands for it."""
        for folder in sorted((self.root / repository).iterdir()):
            if revision in (folder.name, self.commit(repository, folder.name)):
                return folder
        return None


@contextmanager
def serve(hub: FakeHub) -> Iterator[FakeHub]:
    """Runs the hub for as long as the context lasts; its `url` is what HF_ENDPOINT would be."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer(body=True)

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def log_message(self, format: str, *args: Any) -> None:
            del format, args

        def _answer(self, body: bool) -> None:
            path = unquote(urlsplit(self.path).path)
            token = self.headers.get("authorization", "").removeprefix("Bearer ") or None
            hub.requests.append((self.command, path, token))
            status, headers, content = _route(hub, path, token)
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            if body:
                self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)  # the wait for its end
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


Answer = tuple[int, dict[str, str], bytes]


def _route(hub: FakeHub, path: str, token: str | None) -> Answer:
    parts = path.strip("/").split("/")
    if hub.broken:
        return 503, {}, b""
    if token not in (None, TOKEN):
        return 401, {"X-Error-Message": "Invalid credentials in Authorization header"}, b""
    api = parts[:2] == ["api", "models"]
    owner, name, *rest = parts[2:] if api else parts
    repository = f"{owner}/{name}"
    if not (hub.root / repository).is_dir() or (repository in hub.private and token is None):
        return (401 if token is None else 404), {"X-Error-Code": "RepoNotFound"}, b""
    kind, revision, *inside = rest or ["revision", "main"]
    folder = hub.folder(repository, revision)
    if folder is None:
        return 404, {"X-Error-Code": "RevisionNotFound"}, b""
    commit = hub.commit(repository, folder.name)
    files = sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())
    if api and kind == "revision":
        siblings = [{"rfilename": file} for file in files]
        return _json({"id": repository, "modelId": repository, "sha": commit, "siblings": siblings})
    if api and kind == "tree":
        sizes = {file: (folder / file).stat().st_size for file in files}
        return _json(
            [{"type": "file", "path": file, "size": sizes[file], "oid": _digest(folder / file)} for file in files]
        )
    if repository in hub.gated:
        return (401 if token is None else 403), {"X-Error-Code": "GatedRepo", "X-Repo-Commit": commit}, b""
    file = "/".join(inside)
    if file not in files:
        return 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit}, b""
    return 200, {"X-Repo-Commit": commit, "ETag": f'"{_digest(folder / file)}"'}, (folder / file).read_bytes()


def _entry(folder: Path, file: str) -> dict[str, Any]:
    return {"type": "file", "path": file, "size": (folder / file).stat().st_size, "oid": _digest(folder / file)}


def _json(value: Any) -> Answer:
    return 200, {"Content-Type": "application/json"}, json.dumps(value).encode()


def _digest(path: Path) -> str:
    return hashlib.sha1(path.read_bytes()).hexdigest()
