"""What takes too long is broken off: a template that loops, a load that nobody waits for."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlx_lm.utils import load_tokenizer

from safetrain_shared.errors import Blocked, InvalidInput
from safetrain_shared.questions import Question
from safetraind.worker.inference import generation, serve
from safetraind.worker.time_limit import TimeLimitReached, broken_off
from safetraind.worker_messages.serve_messages import ServeRequest
from tests.tiny import make_tiny_model
from tests.trials import inputs


def spin(until: Callable[[], bool] = lambda: False) -> None:
    """Loop as a foreign program does, for ten seconds at the most."""
    end = time.monotonic() + 10
    while time.monotonic() < end and not until():
        pass


def test_a_template_that_loops_is_refused_and_the_worker_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generation, "_TEMPLATE_SECONDS", 0.2)
    tokenizer = load_tokenizer(make_tiny_model(tmp_path / "m", layers=1, hidden=32))
    tokenizer._tokenizer.chat_template = inputs.LOOPS
    with pytest.raises(InvalidInput) as caught:
        generation.encode_prompt(tokenizer, [{"role": "user", "content": "hi"}])
    assert caught.value.code == "ask.template_slow"


def test_a_block_is_broken_off_once_there_is_a_reason() -> None:
    before = signal.getsignal(signal.SIGALRM)
    with pytest.raises(TimeLimitReached), broken_off(lambda: True, first=0.01):
        spin()
    began = time.monotonic()
    with broken_off(lambda: False, first=0.01):
        spin(until=lambda: time.monotonic() > began + 0.05)
    assert signal.getsignal(signal.SIGALRM) is before


def test_a_model_that_takes_all_memory_is_refused() -> None:
    with pytest.raises(Blocked), broken_off(lambda: serve._is_over(1, "/m"), first=0.01):
        spin()


class Gone:
    """A client that has left while its model is being loaded."""

    question = Question(messages=({"role": "user", "content": "hi"},), model="/m")
    gone = True

    def send(self, reply: Any) -> bool:
        return True


def test_a_load_that_nobody_waits_for_is_broken_off(monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[str] = []

    def load(model: str, **_: Any) -> None:
        loads.append(model)
        spin()
        loads.append("loaded")

    monkeypatch.setattr(serve, "load", load)
    server = serve.Server(ServeRequest("/m"), None)  # type: ignore[arg-type]
    server._answer(Gone())  # type: ignore[arg-type]
    assert loads == ["/m"]
