"""The live stream, over a real daemon with workers of play; questions, over a scripted one."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetrain_proto.v1.answers_pb2 import AnswerDone, AnswerSource, AskEvent
from safetrain_proto.v1.data_pb2 import PreviewPiece, PreviewResponse, PreviewSample
from safetrain_shared.errors import Busy
from safetrain_shared.jobs import JobState
from tests.client.builders import complete_run, event, job, step
from tests.client.fake import FakeDaemon
from tests.daemon.conftest import MakeSpec
from tests.daemon.fakes import let_go
from tests.dashboard.conftest import Serve, Served
from tests.harness import DaemonProcess, wait_for


def until(page: Served, name: str, holds: Callable[[Any], bool], query: str = "") -> Any:
    """The first event of that name for which it holds."""
    return next(data for event, data in page.live(query) if event == name and holds(data))


def test_a_training_is_seen_as_it_goes(
    playing: DaemonProcess, make_spec: MakeSpec, serve: Serve, tmp_path: Path
) -> None:
    playing.start()
    first = playing.submit(make_spec("one", name="hold=6", num_epochs=1)).job
    playing.submit(make_spec("two", num_epochs=1))
    seen: dict[str, list[Any]] = {}
    at_the_hold: set[str] = set()  # the two come apart: the worker is let go once both have
    for name, data in serve().live():
        seen.setdefault(name, []).append(data)
        if name == "curves" and len(data["loss"]) == 6:
            at_the_hold.add(name)
        if name == "overview" and data["chosen"] and data["chosen"]["share"] == 0.6:
            at_the_hold.add(name)
        if at_the_hold == {"curves", "overview"}:
            let_go(tmp_path / "one")
        if name == "overview" and data["chosen"] and data["chosen"]["state"] == "succeeded":
            break
    shares = [o["chosen"]["share"] for o in seen["overview"] if o["chosen"]["id"] == first.id]
    assert shares == sorted(shares) and 0.6 in shares
    waiting = [o["jobs"][1]["label"] for o in seen["overview"] if len(o["jobs"]) == 2]
    assert "queued" in waiting
    assert 6 in [len(c["loss"]) for c in seen["curves"]]
    assert any("checkpoint" in e["text"] for e in seen["log"][-1])


def test_nothing_is_lost_and_nothing_comes_twice_when_the_daemon_is_killed(
    playing: DaemonProcess, make_spec: MakeSpec, serve: Serve
) -> None:
    playing.start()
    id_ = playing.submit(make_spec(name="pace=0.1", num_epochs=2)).job.id
    page = serve()
    until(page, "curves", lambda c: len(c["loss"]) >= 3)
    playing.kill()
    assert until(page, "link", lambda sink: sink["trouble"])["trouble"]
    playing.start()
    assert until(page, "link", lambda sink: not sink["trouble"]) == {"trouble": ""}
    playing.wait_for_state(id_, JobState.SUCCEEDED)
    curves = until(page, "curves", lambda c: len(c["loss"]) >= 20)
    assert [step for step, _loss in curves["loss"]] == list(range(1, 21))
    log = until(page, "log", lambda entries: entries and entries[0]["text"] == "succeeded")
    saved = [entry["text"] for entry in log if "checkpoint" in entry["text"]]
    assert len(saved) == 4


def test_tabs_share_one_watch_of_a_job(scripted: FakeDaemon, serve: Serve) -> None:
    scripted.jobs, scripted.events = [job(1, last_seq=12)], complete_run()
    page = serve()
    for lang in ("en", "pt", "en"):
        until(page, "curves", lambda c: bool(c["loss"]), f"?lang={lang}")
    assert sum(type(r).__name__ == "WatchRequest" for r in scripted.requests) == 1


def test_a_job_is_followed_on_after_a_retry(scripted: FakeDaemon, serve: Serve) -> None:
    scripted.jobs, scripted.events = [job(1, JobState.FAILED, last_seq=12)], complete_run()
    scripted.ended.set()
    page = serve()
    assert len(until(page, "curves", lambda c: bool(c["loss"]))["loss"]) == 3
    scripted.ended.clear()
    scripted.events.append(event(13, step(40), attempt=2))
    scripted.jobs = [job(1, last_seq=13)]
    assert until(page, "curves", lambda c: len(c["loss"]) > 3)["loss"][-1][0] == 40


def test_every_figure_and_sentence_is_in_the_language_asked_for(
    scripted: FakeDaemon, serve: Serve
) -> None:
    scripted.jobs = [job(1, last_seq=12, step=30, total_steps=100, train_loss=1.25)]
    scripted.events = complete_run()
    page = serve("--lang", "pt")

    def loss(query: str) -> str:
        seen = until(page, "overview", lambda o: o["chosen"]["figures"]["memory"]["value"], query)
        return " ".join(f["value"] for f in seen["chosen"]["figures"].values())

    assert loss("?lang=en") == "1.250  3.0 GiB 250"
    assert loss("?lang=pt") == loss("") == loss("?lang=xx") == "1,250  3,0 GiB 250"
    assert until(page, "words", lambda words: True)["lang"] == "pt"


def test_the_job_that_is_asked_for_is_shown(scripted: FakeDaemon, serve: Serve) -> None:
    scripted.jobs = [job(1, JobState.SUCCEEDED), job(2), job(3, JobState.QUEUED, queue_position=1)]
    page = serve()
    chosen = {q: until(page, "overview", bool, q)["chosen"]["id"] for q in ("", "?job=1", "?job=9")}
    assert chosen == {"": 2, "?job=1": 1, "?job=9": 2}
    assert [card["id"] for card in until(page, "overview", bool)["jobs"]] == [2, 3, 1]


def test_a_home_without_jobs_is_an_empty_page(scripted: FakeDaemon, serve: Serve) -> None:
    assert until(serve(), "overview", bool)["chosen"] is None


def test_a_job_that_is_checked_says_what_is_done_and_a_failed_one_what_to_do(
    scripted: FakeDaemon, serve: Serve
) -> None:
    checked = job(2, JobState.CHECKING, phase="probing")
    checked.forecast.settings.batch_size = 4
    scripted.jobs = [job(1, JobState.FAILED), checked]
    page = serve()
    shown = until(page, "overview", bool)["chosen"]
    assert shown["doing"] == "measuring real training steps" and not shown["retry"]
    assert ["settings", "batch_size 4 × 0, 0 tokens"] in shown["facts"]
    failed = until(page, "overview", bool, "?job=1")["chosen"]
    assert failed["retry"]
    assert [command for _label, command in failed["next"]] == [
        "safetrain diagnose 1",
        "safetrain retry 1",
    ]
    assert ask(page, '{"job": 1}', path="/api/retry") == (200, [{}])
    assert any(type(r).__name__ == "JobRequest" and r.id == 1 for r in scripted.requests)
    for body in ("", "[]", '{"job": "1"}', '{"job": true}', '{"job": 0}', '{"job": 9}'):
        status, answer = ask(page, body, path="/api/retry")
        assert status == 400 and "There is no job" in answer[0]["error"], body


def test_the_data_as_the_model_sees_it(scripted: FakeDaemon, serve: Serve) -> None:
    scripted.jobs = [job(1, step=1, total_steps=3)]
    pieces = [PreviewPiece(text="<b>user"), PreviewPiece(text="Faro\x1b", learned=True)]
    scripted.preview = PreviewResponse(samples=[PreviewSample(pieces=pieces)], counted=1, longest=9)
    page = serve()
    status, (shown,) = ask(page, '{"job": 1}', path="/api/preview")
    assert status == 200
    assert shown["samples"] == [[["<b>user", False, False], ["Faro", True, False]]]
    assert "longest 9" in shown["lengths"]
    request = next(r for r in scripted.requests if type(r).__name__ == "PreviewRequest")
    spec = scripted.jobs[0].spec
    assert (request.path, request.model) == (spec.train, spec.model)
    status, (refused,) = ask(page, '{"job": 9}', path="/api/preview")
    assert status == 400 and "no job 9" in refused["error"]


def ask(
    page: Served, body: str, query: str = "", path: str = "/api/ask"
) -> tuple[int, list[dict[str, str]]]:
    """The pieces of an answer."""
    headers = {"Cookie": page.cookie(), "Origin": f"http://{page.host}"}
    answer = page.ask(f"{path}{query}", "POST", body, **headers)
    return answer.status, [json.loads(line) for line in answer.read().splitlines()]


def test_an_answer_comes_piece_by_piece_and_nothing_of_it_is_logged(
    scripted: FakeDaemon, serve: Serve
) -> None:
    scripted.answer = [
        AskEvent(waiting="loading"),
        AskEvent(source=AnswerSource(model="demo", job_id=2, step=7, training=True)),
        AskEvent(text="Em \x1b]0;Faro"),
        AskEvent(text="."),
        AskEvent(done=AnswerDone(tokens=3, seconds_to_first_token=0.5, cut=True)),
    ]
    page = serve()
    question = "Em que cidade joga o clube?"
    body = json.dumps({"question": question, "job": 2, "base": True})
    status, pieces = ask(page, body, "?lang=pt")
    assert status == 200
    assert [next(iter(piece)) for piece in pieces] == ["waiting", "source", "text", "text", "done"]
    assert pieces[2]["text"] == "Em ]0;Faro"
    request = next(r for r in scripted.requests if type(r).__name__ == "AskRequest")
    assert request.messages[0].content == question
    assert (request.job_id, request.base) == (2, True)
    said = page.end()
    assert question not in said and "Faro" not in said


def test_a_question_that_cannot_be_answered_gets_one_sentence(
    scripted: FakeDaemon, serve: Serve
) -> None:
    page = serve()
    for body in ("", "[]", "{}", '{"question": " "}', '{"question": 3}', "\x00"):
        assert ask(page, body) == (400, [{"error": "The question is empty."}]), body
    status, pieces = ask(page, json.dumps({"question": "a" * 20_000}))
    assert status == 400 and "error" in pieces[0]
    scripted.error = Busy("client.port_taken", port=1)
    status, pieces = ask(page, json.dumps({"question": "Olá?"}))
    assert pieces == [{"error": pieces[0]["error"]}] and "Port 1" in pieces[0]["error"]


def test_a_tab_that_is_closed_ends_its_question(scripted: FakeDaemon, serve: Serve) -> None:
    ended = threading.Event()

    def slow(request: Any, context: Any) -> Any:
        context.add_callback(ended.set)
        yield AskEvent(text="Em")
        ended.wait(20)

    scripted.Ask = slow  # type: ignore[method-assign]
    scripted.stop()
    scripted.start()
    page = serve()
    headers = {"Cookie": page.cookie(), "Origin": f"http://{page.host}"}
    answer = page.ask("/api/ask", "POST", json.dumps({"question": "Olá?"}), **headers)
    assert b"Em" in answer.readline()
    answer.close()
    assert wait_for(ended.is_set)
