"""`safetrain serve` as a process of its own, and OpenAI's client for it."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai

from tests.harness import DaemonProcess
from tests.tiny import make_tiny_model

LONG = 4000  # tokens: as long as an answer can be


def roomy_model(folder: Path) -> Path:
    """A tiny model that takes as many tokens as the service allows."""
    make_tiny_model(folder, layers=2)
    config = json.loads((folder / "config.json").read_text())
    config["max_position_embeddings"] = 1 << 20
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def machine_in(folder: Path) -> Iterator[DaemonProcess]:
    """A daemon for a whole file of tests."""
    process = DaemonProcess(folder / "home", env={"XDG_STATE_HOME": str(folder / "state")})
    try:
        yield process.start()
    finally:
        process.end()


QUESTION = [{"role": "user", "content": "Em que cidade joga o clube?"}]


class Served:
    """One `safetrain serve` of a daemon's home."""

    def __init__(self, daemon: DaemonProcess, *target: str, **environment: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "safetrain", "serve", *target, "--port", "0", "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**daemon.environment(), **environment},
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.end()
        told = json.loads(line)
        self.token: str | None = told["token"]
        self.port: int = told["port"]
        self.model: str = told["model"]
        self.client = openai.OpenAI(
            base_url=told["base_url"], api_key=self.token or "none", max_retries=0, timeout=120
        )

    def end(self) -> str:
        """Ends it as Ctrl-C does, and returns all that it said."""
        if self.process.poll() is None:
            self.process.send_signal(2)
        out, said = self.process.communicate(timeout=60)
        return out + said

    def ask(self, messages: Any = QUESTION, **options: Any) -> Any:
        """An answer of a few tokens, or with `stream=True` its chunks."""
        given = {"max_tokens": 8, "temperature": 0, "model": self.model, **options}
        return self.client.chat.completions.create(messages=messages, **given)

    def text(self, **options: Any) -> str:
        """The text of one answer."""
        content: str = self.ask(**options).choices[0].message.content
        return content

    def call(
        self, path: str, method: str = "GET", body: bytes = b"", **headers: str
    ) -> tuple[int, dict[str, str], Any]:
        """Status, headers and JSON of one request, with the right token and host."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        named = {"Authorization": f"Bearer {self.token}", **headers}
        connection.request(method, path, body or None, named)
        answer = connection.getresponse()
        found = {name.lower(): value for name, value in answer.getheaders()}
        return answer.status, found, json.loads(answer.read() or b"null")
