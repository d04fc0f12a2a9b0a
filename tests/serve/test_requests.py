"""Requests checked field by field, errors in OpenAI's form, and questions in their order."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from safetrain.serve.answer_stream import Line
from safetrain.serve.api_errors import api_error
from safetrain.serve.completion_json import answered_by, fingerprint
from safetrain.serve.completion_request import MAX_TOKENS, parse_request
from safetrain_proto.v1.answers_pb2 import AnswerSource
from safetrain_shared.errors import Busy, Damaged, InvalidInput, NotFound, Unreachable

HELLO = {"role": "user", "content": "Olá"}


def asked(**fields: Any) -> Any:
    return parse_request(json.dumps({"model": "m", "messages": [HELLO], **fields}).encode())


def test_what_is_left_out_is_as_ask_has_it_but_for_the_length() -> None:
    plain = asked()
    assert (plain.model, plain.stream, plain.include_usage) == ("m", False, False)
    assert (plain.ask.temperature, plain.ask.top_p, plain.ask.max_tokens) == (0, 0, MAX_TOKENS)
    assert not plain.ask.HasField("seed") and not plain.ask.stop
    assert asked(temperature=None, n=None, stop=None, max_tokens=None) == plain


def test_every_field_reaches_the_question() -> None:
    found = asked(
        messages=[
            {"role": "developer", "content": "Sê breve."},
            {
                "role": "user",
                "content": [{"type": "text", "text": "O"}, {"type": "text", "text": "lá"}],
            },
            {"role": "assistant", "content": "Sim?"},
            HELLO,
        ],
        stream=True,
        stream_options={"include_usage": True},
        max_tokens=5,
        max_completion_tokens=7,
        temperature=0.5,
        top_p=0,
        seed=-1,
        stop="fim",
        user="eu",
        frequency_penalty=0.0,
        tools=[],
        response_format={"type": "text"},
    )
    assert [(m.role, m.content) for m in found.ask.messages] == [
        ("system", "Sê breve."),
        ("user", "Olá"),
        ("assistant", "Sim?"),
        ("user", "Olá"),
    ]
    assert found.stream and found.include_usage
    assert (found.ask.max_tokens, found.ask.temperature) == (7, 0.5)
    assert 0 < found.ask.top_p < 1e-5, "0 keeps one token; the daemon reads 0 as all"
    assert found.ask.seed >= 0 and list(found.ask.stop) == ["fim"]


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"model": ""}, "model"),
    ({"messages": []}, "messages"),
    ({"messages": "Olá"}, "messages"),
    ({"messages": [3]}, "messages[0]"),
    ({"messages": [HELLO, {"role": "tool", "content": "x"}]}, "messages[1].role"),
    ({"messages": [{"role": ["user"], "content": "x"}]}, "messages[0].role"),
    ({"messages": [{"role": "user"}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": "\ud800"}]}, "messages[0].content"),
    (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
        "messages[0].content[0]",
    ),
    (
        {"messages": [{"role": "assistant", "content": "", "tool_calls": [{}]}, HELLO]},
        "messages[0].tool_calls",
    ),
    ({"temperature": 2.5}, "temperature"),
    ({"temperature": True}, "temperature"),
    ({"temperature": float("nan")}, "temperature"),
    ({"top_p": -0.1}, "top_p"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_completion_tokens": 1.5}, "max_completion_tokens"),
    ({"max_tokens": 1 << 21}, "max_tokens"),
    ({"seed": 1 << 63}, "seed"),
    ({"stop": ""}, "stop"),
    ({"stop": ["a"] * 5}, "stop"),
    ({"stop": [1]}, "stop"),
    ({"stream": "yes"}, "stream"),
    ({"stream_options": []}, "stream_options"),
    ({"stream_options": [1]}, "stream_options"),
    ({"stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
    ({"n": 2}, "n"),
    ({"logprobs": True}, "logprobs"),
    ({"tools": [{"type": "function"}]}, "tools"),
    ({"response_format": {"type": "json_object"}}, "response_format"),
    ({"presence_penalty": 0.5}, "presence_penalty"),
    ({"top_k": 5}, "top_k"),
]


def test_a_field_that_is_wrong_or_would_be_passed_over_is_named() -> None:
    for fields, param in WRONG:
        with pytest.raises(InvalidInput) as refused:
            asked(**fields)
        shown = api_error(refused.value)
        assert (shown.status, shown.body["error"]["param"]) == (400, param), fields
        assert shown.body["error"]["type"] == "invalid_request_error"
    for body in (b"", b"[]", b"{", b"\xff", b"[" * 100_000):
        with pytest.raises(InvalidInput):
            parse_request(body)


def test_errors_have_the_status_that_tells_a_program_what_to_do() -> None:
    training = Busy("ask.busy_other_job", training=3)
    expected = [
        (InvalidInput("ask.prompt_too_long", tokens=9, limit=5), 400, "context_length_exceeded"),
        (InvalidInput("ask.no_question"), 400, "ask.no_question"),
        (NotFound("ask.no_adapter", id=1), 404, "ask.no_adapter"),
        (InvalidInput("adapter.unusable", path="/a", reason="?"), 500, "adapter.unusable"),
        (Damaged("database.damaged", path="/a", reason="?"), 500, "database.damaged"),
        (Unreachable("daemon.unreachable", socket="/s"), 503, "daemon.unreachable"),
        (training, 503, "serve.training"),
        (Busy("serve.full", count=64), 429, "rate_limit_exceeded"),
    ]
    for error, status, code in expected:
        shown = api_error(error)
        assert (shown.status, shown.body["error"]["code"]) == (status, code)
        assert ("Retry-After" in shown.headers) == (status in (429, 503))
        assert ("X-Should-Retry" in shown.headers) == (status == 500)
    assert "Job 3" in api_error(training).body["error"]["message"]
    assert "--" not in api_error(training).body["error"]["message"], "no option of another command"


def test_who_answers_is_named_in_short() -> None:
    base = AnswerSource(model="/models/demo")
    ours = AnswerSource(model="demo", job_id=3, adapter="/o/adapters", adapter_sha256="ab" * 32)
    live = AnswerSource(model="demo", job_id=4, training=True, step=12)
    assert [answered_by(s) for s in (base, ours, live)] == [
        "demo",
        "demo:job-3",
        "demo:job-4@step-12",
    ]
    assert [fingerprint(s) for s in (base, ours, live)] == [
        "base",
        "adapter-" + "ab" * 8,
        "job-4-step-12",
    ]


def test_questions_have_their_turn_in_the_order_in_which_they_came() -> None:
    turns: list[int] = []

    async def ask(line: Line, number: int) -> None:
        async with line.turn():
            turns.append(number)
            await asyncio.sleep(0)

    async def many() -> None:
        line = Line(at_once=2, waiting=40)
        tasks = [asyncio.create_task(ask(line, n)) for n in range(32)]
        await asyncio.sleep(0)
        for given_up in (tasks[5], tasks[9]):
            given_up.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(many())
    assert turns == [n for n in range(32) if n not in (5, 9)]


def test_one_question_too_many_is_told_to_come_back() -> None:
    async def three() -> list[object]:
        line, go = Line(at_once=1, waiting=1), asyncio.Event()

        async def ask() -> str:
            async with line.turn():
                await go.wait()
                return "answered"

        tasks = [asyncio.create_task(ask()) for _ in range(3)]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        go.set()
        return list(await asyncio.gather(*tasks, return_exceptions=True))

    *answered, refused = asyncio.run(three())
    assert answered == ["answered"] * 2
    assert isinstance(refused, Busy) and refused.code == "serve.full"
