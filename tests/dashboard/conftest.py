"""The live page as `safetrain dashboard` serves it, and what tests need to talk to it."""

from __future__ import annotations

import http.client
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from safetrain_shared.paths import Home
from tests.client.fake import FakeDaemon
from tests.daemon.conftest import make_spec, playing  # noqa: F401 (fixtures)

SAFETRAIN = (sys.executable, "-c", "import sys; from safetrain.cli import main; sys.exit(main())")
# What an element that changes something carries: the path, and the header with its token.
ACTION = re.compile(r'hx-post="([^"]+)" hx-headers="\{&#34;([\w-]+)&#34;: &#34;(\w+)&#34;\}"')
Response = tuple[int, dict[str, str], str]


class Served:
    """One `safetrain dashboard`."""

    def __init__(self, *options: str, home: Home | None = None, user: Path | None = None) -> None:
        named = {"SAFETRAIN_HOME": str(home.root)} if home else {}
        self.process = subprocess.Popen(
            [*SAFETRAIN, "dashboard", "--port", "0", "--json", "--no-autostart", *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **named, **({"HOME": str(user)} if user else {})},
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.end()
        self.url: str = json.loads(line)["url"]
        self.port: int = json.loads(line)["port"]
        self.host = f"127.0.0.1:{self.port}"

    def end(self) -> str:
        """Ends it as Ctrl-C does, and returns all that it said."""
        self.process.send_signal(2)
        out, said = self.process.communicate(timeout=60)
        return out + said

    def ask(
        self, path: str, method: str = "GET", body: str = "", **headers: str
    ) -> http.client.HTTPResponse:
        """One request, its answer not read yet. `Host`, `Cookie` and others as keywords."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body or None, {"Host": self.host, **named})
        return connection.getresponse()

    def get(self, path: str, **headers: str) -> Response:
        """Status, headers and text of one request."""
        answer = self.ask(path, **headers)
        return answer.status, dict(answer.getheaders()), answer.read().decode()

    def open(self, path: str, body: str = "", page: str = "/begin") -> http.client.HTTPResponse:
        """A change, asked for as `page` does; its answer is not read yet."""
        cookie = self.cookie()
        found = ACTION.findall(self.get(page, Cookie=cookie)[2])
        tokens = {at: {name: token} for at, name, token in found}
        sent = {"Origin": f"http://{self.host}", "HX-Request": "true", "Cookie": cookie}
        return self.ask(path, "POST", body, **sent, **tokens.get(path, {}))

    def post(self, path: str, body: str = "", page: str = "/begin") -> Response:
        """Status, headers and text of a change, asked for as `page` does."""
        answer = self.open(path, body, page)
        return answer.status, dict(answer.getheaders()), answer.read().decode()

    def cookie(self) -> str:
        """The cookie that the address is exchanged for."""
        status, headers, _text = self.get(self.url.partition(self.host)[2])
        assert status == 200
        return headers["set-cookie"].partition(";")[0]

    def live(self, job: int = 0, lang: str = "") -> Iterator[tuple[str, Any]]:
        """The live stream as pairs: an event's name or the id of an element, and what it brings."""
        cookie = "; ".join(
            [self.cookie(), *([f"safetrain_{self.port}_lang={lang}"] if lang else [])]
        )
        answer = self.ask(f"/live?job={job or ''}", Cookie=cookie)
        assert answer.status == 200
        name, data = "", []
        while line := answer.readline().decode():
            field, _, value = line.rstrip("\n").partition(": ")
            if field == "event":
                name = value
            elif field == "data":
                data.append(value)
            elif not field and data:
                whole = "\n".join(data)
                target = re.match(r'<hx-partial hx-target="#(\w+)', whole)
                yield name or (target[1] if target else ""), _loaded(name, whole)
                name, data = "", []


def _loaded(name: str, text: str) -> Any:
    return json.loads(text) if name == "curves" else text


Serve = Callable[..., Served]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Serves the page of the home in use; ended with the test."""
    served: list[Served] = []

    def one(*options: str) -> Served:
        served.append(Served(*options))
        return served[-1]

    yield one
    for page in served:
        if page.process.poll() is None:
            page.end()


@pytest.fixture
def scripted(home: Path) -> Iterator[FakeDaemon]:
    """A scripted daemon in the home."""
    fake = FakeDaemon(Home(home))
    fake.start()
    yield fake
    fake.ended.set()
    fake.stop()


def other_address() -> str | None:
    """An address of this machine that is not loopback, where it has one."""
    try:
        found = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None)}
    except OSError:
        return None
    outside = [str(a) for a in found if ":" not in str(a) and not str(a).startswith("127.")]
    return outside[0] if outside else None
