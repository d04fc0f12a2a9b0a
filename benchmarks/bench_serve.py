"""`python -m benchmarks.bench_serve`: `safetrain serve` against `ask`'s own call, on a warm model.

The time to the first token is taken inside a client that is already connected: from the request to
the first text, over HTTP and over the gRPC call that `safetrain ask` makes. Each question goes both
ways, and never twice in a row, so that no answer finds its own prompt in the cache. Then as many
clients as the service promises ask at once, against the same number of questions one by one.
"""

from __future__ import annotations

import argparse
import http.client
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.bench_ask import _QUESTIONS as QUESTIONS
from benchmarks.bench_ask import _environment, _safetraind
from safetrain.connection import Daemon
from safetrain_proto.v1.answers_pb2 import AskRequest, Message
from safetrain_shared.paths import Home, home

CLIENTS = 32
TOKENS = 8


class Served:
    """A running `safetrain serve`."""

    def __init__(self, model: Path, environment: dict[str, str]) -> None:
        command = [sys.executable, "-m", "safetrain", "serve", str(model), "--port", "0", "--json"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        assert self.process.stdout is not None
        self.told = json.loads(self.process.stdout.readline())

    def first_token(self, question: str) -> float:
        """Seconds from the request to the first piece of text, over HTTP."""
        connection = http.client.HTTPConnection("127.0.0.1", self.told["port"])
        connection.connect()
        began = time.perf_counter()
        self._ask(connection, question)
        answer = connection.getresponse()
        first = next(time.perf_counter() - began for line in answer if _has_text(line))
        answer.read()
        connection.close()
        return first

    def whole(self, question: str) -> float:
        """Seconds that one answer took, the wait for its turn included."""
        began = time.perf_counter()
        connection = http.client.HTTPConnection("127.0.0.1", self.told["port"])
        self._ask(connection, question)
        answer = connection.getresponse()
        text = answer.read()
        assert answer.status == 200 and text.endswith(b"[DONE]\n\n"), text
        connection.close()
        return time.perf_counter() - began

    def _ask(self, connection: http.client.HTTPConnection, question: str) -> None:
        body: dict[str, Any] = {"model": self.told["model"], "stream": True, "max_tokens": TOKENS}
        body["messages"] = [{"role": "user", "content": question}]
        headers = {"Authorization": f"Bearer {self.told['token']}"}
        connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)


def main() -> None:
    """Prints both times to the first token, their ratio, and what many clients take."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=home().models / "demo")
    parser.add_argument("--rounds", type=int, default=2)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        environment = _environment(Path(folder) / "home")
        model = chosen.model.resolve()
        _safetraind("start", environment=environment)
        served = Served(model, environment)
        try:
            with Daemon(Home(Path(folder) / "home")) as daemon:
                _measure(served, _asker(daemon, model), chosen.rounds)
        finally:
            served.process.terminate()
            served.process.wait()
            _safetraind("stop", "--now", environment=environment)


def _measure(served: Served, ask: Callable[[str], float], rounds: int) -> None:
    served.first_token("Good morning.")  # loads the model
    pairs = []
    for _ in range(rounds):
        for one, other in zip(QUESTIONS[::2], QUESTIONS[1::2], strict=False):
            asked_one, served_other = ask(one), served.first_token(other)
            served_one, asked_other = served.first_token(one), ask(other)
            pairs += [(served_one, asked_one), (served_other, asked_other)]
    print(f"\nTo the first token, {len(pairs)} questions each way, seconds:")
    print(f"  serve {_spread([s for s, _ in pairs])}, ask {_spread([a for _, a in pairs])}")
    print(f"  ratio {_spread([s / a for s, a in pairs])}×")
    fastest = min(s for s, _ in pairs) / min(a for _, a in pairs)
    print(f"  ratio of the fastest, which other programs disturb least: {fastest:.3f}×")
    extra = statistics.median(s - a for s, a in pairs)
    print(f"  median of the differences {1000 * extra:.1f} ms")
    _crowd(served)


def _crowd(served: Served) -> None:
    questions = [f"{n}: {QUESTIONS[n % len(QUESTIONS)]}" for n in range(CLIENTS)]
    began = time.perf_counter()
    for question in questions:
        served.whole(question)
    alone = time.perf_counter() - began
    began = time.perf_counter()
    with ThreadPoolExecutor(CLIENTS) as clients:
        waits = list(clients.map(served.whole, questions))
    together = time.perf_counter() - began
    print(f"{CLIENTS} clients at once, all answered: {together:.1f} s, one by one {alone:.1f} s")
    print(f"  each waited {_spread(waits)} s for its whole answer")


def _asker(daemon: Daemon, model: Path) -> Callable[[str], float]:
    def first_token(question: str) -> float:
        message = Message(role="user", content=question)
        request = AskRequest(messages=[message], model=str(model), max_tokens=TOKENS)
        began = time.perf_counter()
        first = 0.0
        for event in daemon.stream(daemon.answers.Ask, request):
            if event.HasField("text") and not first:
                first = time.perf_counter() - began
        return first

    return first_token


def _has_text(line: bytes) -> bool:
    if not line.startswith(b"data: {"):
        return False
    (choice,) = json.loads(line.removeprefix(b"data: "))["choices"]
    return bool(choice["delta"].get("content"))


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.3f} ({min(values):.3f} to {max(values):.3f})"


if __name__ == "__main__":
    main()
