"""The first guess of a step's time: of a model that is warm, not of its first token's compiling."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import mlx.core as mx
import pytest

from safetraind.worker.probe import probe

PROMPT = [1, 2, 3, 4, 5]


def guessed(monkeypatch: pytest.MonkeyPatch, *seconds: float) -> tuple[float, list[int]]:
    """Seconds a token, and the length of each prompt, of passes that take `seconds`."""
    now, taking, prompts = 0.0, iter(seconds), list[int]()

    def generate(prompt: mx.array, _: Any, max_tokens: int) -> Iterator[tuple[int, None]]:
        nonlocal now
        now += next(taking)
        prompts.append(prompt.size)
        yield max_tokens, None

    monkeypatch.setattr(probe, "generate_step", generate)
    monkeypatch.setattr(probe, "time", SimpleNamespace(monotonic=lambda: now))
    tokenizer = SimpleNamespace(encode=lambda _: PROMPT, decode=str)
    clock = probe.Clock(120.0)
    probe._first_token(SimpleNamespace(tokenizer=tokenizer, model=None), clock)  # type: ignore[arg-type]
    return clock.seconds_a_token, prompts


def test_a_quick_model_is_judged_by_a_longer_prompt_once_it_is_warm(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seconds, prompts = guessed(monkeypatch, 2.0, 0.65)
    assert seconds == pytest.approx(3 * 0.65 / 65)
    assert prompts == [5, 64]


def test_a_slow_model_is_not_asked_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds, prompts = guessed(monkeypatch, 100.0)
    assert seconds == pytest.approx(3 * 100 / 6)
    assert prompts == [5]
