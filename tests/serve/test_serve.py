"""`safetrain serve` and OpenAI's own client, over a real daemon and a tiny model."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import openai
import pytest

from tests.harness import DaemonProcess
from tests.serve.served import LONG, QUESTION, Served, machine_in, roomy_model

SECRET = "uma pergunta que ninguém mais deve ler"
CLIENTS = 32


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    yield from machine_in(tmp_path_factory.mktemp("serve"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return roomy_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def served(machine: DaemonProcess, model: Path) -> Iterator[Served]:
    process = Served(machine, str(model))
    yield process
    process.end()


def test_the_model_is_listed_and_every_answer_names_who_gave_it(
    served: Served, model: Path
) -> None:
    assert [m.id for m in served.client.models.list()] == ["tiny"] == [served.model]
    assert served.client.models.retrieve("tiny").owned_by == "safetrain"
    answer = served.ask()
    assert (answer.model, answer.system_fingerprint) == ("tiny", "base")
    assert answer.safetrain == {
        "model": str(model),
        "job": None,
        "adapter": None,
        "adapter_sha256": None,
        "training": False,
        "step": None,
    }
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 8
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 8


def test_a_stream_brings_the_same_answer_piece_by_piece(served: Served) -> None:
    whole = served.ask(max_tokens=24)
    *pieces, last = served.ask(max_tokens=24, stream=True, stream_options={"include_usage": True})
    texts = [piece.choices[0].delta.content or "" for piece in pieces]
    assert len(texts) > 5
    assert "".join(texts) == whole.choices[0].message.content
    assert pieces[0].choices[0].delta.role == "assistant"
    assert [piece.choices[0].finish_reason for piece in pieces[-2:]] == [None, "length"]
    assert (last.choices, last.usage) == ([], whole.usage)
    assert {piece.system_fingerprint for piece in pieces} == {"base"}
    assert len({piece.id for piece in [*pieces, last]}) == 1


def test_seed_stop_and_conversations_do_what_they_mean(served: Served) -> None:
    drawn = [served.text(temperature=1.0, top_p=0.9, seed=seed) for seed in (1, 2, 1)]
    assert drawn[0] == drawn[2] != drawn[1]

    text = served.text(max_tokens=40)
    stop = next(text[n : n + 2] for n in range(12, 40) if text[n : n + 2].isalnum())
    before = text.partition(stop)[0]
    ended = served.ask(max_tokens=40, stop=[stop, "não ocorre"])
    assert ended.choices[0].message.content == before
    assert ended.choices[0].finish_reason == "stop"
    pieces = served.ask(max_tokens=40, stop=stop, stream=True)
    assert "".join(p.choices[0].delta.content or "" for p in pieces) == before

    turns = [
        {"role": "system", "content": "Responde em português."},
        *QUESTION,
        {"role": "assistant", "content": "Em Faro."},
        {"role": "user", "content": [{"type": "text", "text": "E as cores?"}]},
    ]
    longer = served.ask(turns)
    assert longer.usage.prompt_tokens > 2 * served.ask().usage.prompt_tokens
    turns[-1] = {"role": "user", "content": "E as cores?"}
    assert served.ask(turns).choices[0].message == longer.choices[0].message


def test_errors_are_those_that_the_client_knows(served: Served) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        served.ask(model="gpt-5")
    assert (unknown.value.code, unknown.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.BadRequestError) as wrong:
        served.ask(n=2)
    assert wrong.value.param == "n"
    with pytest.raises(openai.BadRequestError) as endless:
        served.ask([{"role": "user", "content": "Farense " * 5000}])
    assert (endless.value.code, endless.value.param) == ("context_length_exceeded", "messages")
    with pytest.raises(openai.BadRequestError) as unasked:
        served.ask([*QUESTION, {"role": "assistant", "content": "Em Faro."}])
    assert unasked.value.param == "messages"
    with pytest.raises(openai.APIStatusError) as large:
        served.ask([{"role": "user", "content": "x" * 1_000_000}])
    assert large.value.status_code == 413
    with pytest.raises(openai.AuthenticationError):
        served.client.with_options(api_key="wrong").models.list()


def test_nobody_else_is_answered(served: Served) -> None:
    path = "/v1/models"
    assert served.call(path)[0] == 200
    assert served.call(path, Host=f"localhost:{served.port}")[0] == 200
    for token in ("", "Bearer", f"Basic {served.token}", f"Bearer {served.token}x", "Bearer é"):
        status, headers, body = served.call(path, Authorization=token.encode().decode("latin-1"))
        assert (status, headers["www-authenticate"]) == (401, "Bearer")
        assert body["error"]["code"] == "invalid_api_key"
    for host in (f"evil.example:{served.port}", "127.0.0.1", f"127.0.0.1:{served.port + 1}", ""):
        assert served.call(path, Host=host)[0] == 403
    page = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
    status, headers, _body = served.call("/v1/chat/completions", "OPTIONS", **page)
    assert status == 405 and not [name for name in headers if name.startswith("access-control")]
    status, headers, body = served.call("/v1/chat/completions")
    assert (status, headers["allow"]) == (405, "POST")
    assert body["error"]["type"] == "invalid_request_error"
    assert served.call("/v1/embeddings", "POST", b"{}")[0] == 404
    assert served.call("/v1/chat/completions", "POST", b"{")[0] == 400


def test_many_clients_at_once_are_all_answered(served: Served) -> None:
    alone = served.text()
    with ThreadPoolExecutor(CLIENTS) as clients:
        answers = list(clients.map(lambda _: served.text(), range(CLIENTS)))
    assert answers == [alone] * CLIENTS


def test_a_client_that_hangs_up_ends_its_answer(served: Served) -> None:
    """Both that the daemon has at a time: the next question does not wait for theirs."""
    served.ask()  # the model is loaded
    began = time.monotonic()
    served.ask(max_tokens=100)
    short = time.monotonic() - began
    for stream in (True, False):
        connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=60)
        body = {"model": served.model, "messages": QUESTION, "stream": stream}
        body["max_tokens"] = LONG - 100
        headers = {"Authorization": f"Bearer {served.token}"}
        connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        if stream:
            assert connection.getresponse().readline().startswith(b"data: ")
        connection.close()
    began = time.monotonic()
    served.ask(max_tokens=100)
    assert time.monotonic() - began < 15 * short


def test_nothing_of_it_is_logged(machine: DaemonProcess, model: Path) -> None:
    quiet = Served(machine, str(model))
    answer = quiet.text(messages=[{"role": "user", "content": SECRET}], max_tokens=30)
    with pytest.raises(openai.BadRequestError):
        quiet.ask([{"role": "assistant", "content": SECRET}])
    assert quiet.end() == ""
    assert quiet.process.returncode == 0
    files = [file for file in machine.home.root.rglob("*") if file.is_file()]
    texts = [file.read_bytes().decode(errors="replace") for file in files]
    assert texts and not [t for t in texts if SECRET in t or answer in t or str(quiet.token) in t]


def test_the_users_own_token_is_taken_and_not_printed(machine: DaemonProcess, model: Path) -> None:
    token = "a-token-of-my-own"
    own = Served(machine, str(model), SAFETRAIN_SERVE_TOKEN=token)
    assert own.token is None
    assert [m.id for m in own.client.with_options(api_key=token).models.list()] == ["tiny"]
    with pytest.raises(openai.AuthenticationError):
        own.client.models.list()
    assert token not in own.end()
    with pytest.raises(AssertionError, match="at least 16"):
        Served(machine, str(model), SAFETRAIN_SERVE_TOKEN="short")
    with pytest.raises(AssertionError, match="There is no job 99"):
        Served(machine, "99")
