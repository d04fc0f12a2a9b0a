"""A hub of one model or data set on this machine, for tests of downloading without the network."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

REPOSITORY = "org/tiny"
_SHA = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def serving(folder: Path, sizes: dict[str, int] | None = None) -> Iterator[dict[str, str]]:
    """Serves the files of `folder` as REPOSITORY; yields the environment that names this hub.

    `sizes`: what it says of a file's size, where that is not the truth.
    """
    handler = partial(_Handler, folder, sizes or {})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield {
            "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_OFFLINE": "0",
            "NO_PROXY": "*",
        }
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    def __init__(self, folder: Path, sizes: dict[str, int], *arguments: Any) -> None:
        self._folder, self._sizes = folder, sizes
        super().__init__(*arguments)

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def _answer(self, *, body: bool) -> None:
        path = self.path.split("?")[0].replace("/api/datasets/", "/api/models/")
        path = path.removeprefix("/datasets")
        if path.startswith(f"/api/models/{REPOSITORY}/tree/"):
            files = [self._entry(file) for file in self._files()]
            return self._send(json.dumps(files).encode(), {}, body)
        if path.startswith(f"/api/models/{REPOSITORY}"):
            names = [{"rfilename": self._name(file)} for file in self._files()]
            info = {"id": REPOSITORY, "sha": _SHA, "siblings": names}
            return self._send(json.dumps(info).encode(), {}, body)
        file = self._folder / path.removeprefix(f"/{REPOSITORY}/resolve/").partition("/")[2]
        if path.startswith("/api/models/"):
            return self._send(b"{}", {"X-Error-Code": "RepoNotFound"}, body, status=404)
        if not path.startswith(f"/{REPOSITORY}/resolve/") or not file.is_file():
            return self.send_error(404)
        about = {"ETag": f'"{_digest(file)}"', "X-Repo-Commit": _SHA}
        if file.name in self._sizes:
            about["X-Linked-Size"] = str(self._sizes[file.name])
        return self._send(file.read_bytes(), about, body)

    def _send(
        self, content: bytes, about: dict[str, str], body: bool, *, status: int = 200
    ) -> None:
        self.send_response(status)
        for name, value in about.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)

    def _entry(self, file: Path) -> dict[str, object]:
        size = self._sizes.get(file.name, file.stat().st_size)
        return {"type": "file", "path": self._name(file), "size": size, "oid": _digest(file)}

    def _files(self) -> list[Path]:
        return sorted(path for path in self._folder.rglob("*") if path.is_file())

    def _name(self, file: Path) -> str:
        return file.relative_to(self._folder).as_posix()

    def log_message(self, *_: object) -> None:
        pass


def _digest(file: Path) -> str:
    return hashlib.sha1(file.read_bytes()).hexdigest()
