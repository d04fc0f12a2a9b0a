"""The live stream, over a real daemon with workers of play; questions, over a scripted one."""

from __future__ import annotations

import html
import json
import re
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from urllib.parse import urlencode

from safetrain.connection import Daemon
from safetrain.page.chat import CONVERSATION_CHARACTERS
from safetrain.page.job_feed import ENDED_SHOWN, JobFeed
from safetrain_proto.v1.answers_pb2 import AnswerDone, AnswerSource, AskEvent
from safetrain_proto.v1.control_pb2 import InfoResponse
from safetrain_proto.v1.data_pb2 import PreviewPiece, PreviewResponse, PreviewSample
from safetrain_proto.v1.jobs_pb2 import ListJobsResponse
from safetrain_shared.errors import Busy, NotFound
from safetrain_shared.jobs import JobState
from tests.client.builders import complete_run, event, job, step
from tests.client.fake import FakeDaemon
from tests.daemon.conftest import MakeSpec
from tests.daemon.fakes import let_go
from tests.dashboard.conftest import Serve, Served
from tests.harness import DaemonProcess, wait_for


def until(page: Served, name: str, holds: Callable[[Any], bool], number: int = 0) -> Any:
    """The first event, or content of the element, of that name for which it holds."""
    return next(data for event, data in page.live(number) if event == name and holds(data))


def test_a_training_is_seen_as_it_goes(
    playing: DaemonProcess, make_spec: MakeSpec, serve: Serve, tmp_path: Path
) -> None:
    playing.start()
    first = playing.submit(make_spec("one", name="hold=6", num_epochs=1)).job
    playing.submit(make_spec("two", num_epochs=1))
    seen: dict[str, list[Any]] = {}
    at_the_hold: set[str] = set()  # the two come apart: the worker is let go once both have
    for name, data in serve().live(first.id):
        seen.setdefault(name, []).append(data)
        if name == "curves" and len(data["loss"]) == 6:
            at_the_hold.add(name)
        if name == "job" and 'value="60"' in data:
            at_the_hold.add(name)
        if at_the_hold == {"curves", "job"}:
            let_go(tmp_path / "one")
        if name == "log" and "<span>succeeded</span>" in data:
            break
    shares = [
        int(share) for text in seen["job"] for share in re.findall(r'max="100" value="(\d+)"', text)
    ]
    assert shares == sorted(shares) and 60 in shares
    assert any("queued" in text for text in seen["queue"])
    assert 6 in [len(c["loss"]) for c in seen["curves"]]
    assert "checkpoint" in seen["log"][-1]


def test_nothing_is_lost_and_nothing_comes_twice_when_the_daemon_is_killed(
    playing: DaemonProcess, make_spec: MakeSpec, serve: Serve
) -> None:
    playing.start()
    id_ = playing.submit(make_spec(name="pace=0.1", num_epochs=2)).job.id
    page = serve()
    until(page, "curves", lambda c: len(c["loss"]) >= 3)
    playing.kill()
    assert until(page, "link", lambda state: state != "live") == "away"
    playing.start()
    assert until(page, "link", lambda state: state == "live")
    playing.wait_for_state(id_, JobState.SUCCEEDED)
    curves = until(page, "curves", lambda c: len(c["loss"]) >= 20)
    assert [step for step, _loss in curves["loss"]] == list(range(1, 21))
    log = until(page, "log", lambda text: "<span>succeeded</span>" in text)
    assert len(re.findall(r"saved \S+", log)) == 4


def test_tabs_share_one_watch_of_a_job(scripted: FakeDaemon, serve: Serve) -> None:
    scripted.jobs, scripted.events = [job(1, last_seq=12)], complete_run()
    page = serve()
    for _tab in range(3):
        until(page, "curves", lambda c: bool(c["loss"]))
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
    for lang, loss, memory, word in (
        ("en", "1.250", "3.0 GiB", "running"),
        ("pt", "1,250", "3,0 GiB", "em curso"),
        ("xx", "1,250", "3,0 GiB", "em curso"),
    ):
        stream = page.live(lang=lang)
        shown = next(data for name, data in stream if name == "job" and "GiB" in data)
        assert loss in shown and memory in shown, lang
        cookie = f"{page.cookie()}; safetrain_{page.port}_lang={lang}"
        text = page.get("/jobs/1", Cookie=cookie)[2]
        assert word in text and loss in text


def test_the_job_that_is_asked_for_is_shown(scripted: FakeDaemon, serve: Serve) -> None:
    scripted.jobs = [job(1, JobState.SUCCEEDED), job(2), job(3, JobState.QUEUED, queue_position=1)]
    page = serve()
    for number, shown in ((0, 2), (1, 1)):
        assert f"Job {shown}<" in until(page, "heading", bool, number)
    queue = until(page, "queue", bool)
    assert re.findall(r'href="/jobs/(\d)"', queue) == ["2", "3", "1"]
    assert page.get("/jobs/9", Cookie=page.cookie())[0] == 404
    for wrong in ("/jobs/0", "/jobs/x", "/jobs/" + "9" * 30):
        assert page.get(wrong, Cookie=page.cookie())[0] == 404, wrong


def test_a_home_without_jobs_begins_one(scripted: FakeDaemon, serve: Serve) -> None:
    page = serve()
    status, headers, _text = page.get("/", Cookie=page.cookie())
    assert (status, headers["location"]) == (303, "/begin")


def test_a_job_that_is_checked_says_what_is_done_and_a_failed_one_what_to_do(
    scripted: FakeDaemon, serve: Serve
) -> None:
    checked = job(2, JobState.CHECKING, phase="probing")
    checked.forecast.settings.batch_size = 4
    scripted.jobs = [job(1, JobState.FAILED), checked]
    page = serve()
    assert "measuring real training steps" in until(page, "heading", bool)
    assert "batch_size 4 × 0, 0 tokens" in until(page, "facts", bool)
    failed = until(page, "job", bool, 1)
    assert "safetrain diagnose 1" in failed and "/jobs/1/retry" in failed
    assert page.post("/jobs/1/retry", page="/jobs/1")[0] == 200
    assert any(type(r).__name__ == "JobRequest" and r.id == 1 for r in scripted.requests)


def test_the_data_as_the_model_sees_it(scripted: FakeDaemon, serve: Serve) -> None:
    scripted.jobs = [job(1, step=1, total_steps=3)]
    pieces = [PreviewPiece(text="<b>user"), PreviewPiece(text="Faro\x1b", learned=True)]
    scripted.preview = PreviewResponse(samples=[PreviewSample(pieces=pieces)], counted=1, longest=9)
    page = serve()
    text = page.get("/jobs/1/samples", Cookie=page.cookie())[2]
    assert "<span>&lt;b&gt;user</span><mark>Faro</mark>" in text and "longest 9" in text
    request = next(r for r in scripted.requests if type(r).__name__ == "PreviewRequest")
    spec = scripted.jobs[0].spec
    assert (request.path, request.model) == (spec.train, spec.model)
    assert page.get("/jobs/9/samples", Cookie=page.cookie())[0] == 404


def test_an_old_job_that_a_tab_shows_is_there_whoever_fetches_the_jobs() -> None:
    class Listing:
        jobs, control = SimpleNamespace(List="List", Get="Get"), SimpleNamespace(Info="Info")

        def call(self, method: str, request: Any, *, seconds: float) -> Any:
            del seconds
            if method == "List":
                return ListJobsResponse(jobs=[job(9)])
            return job(request.id) if method == "Get" else InfoResponse(pid=1)

    feed = JobFeed(cast(Daemon, Listing()))
    assert [one.id for one in feed.now(1)] == [9, 1]
    feed._fetch()  # as the thread does that fetches them again and again
    assert [one.id for one in feed.jobs or ()] == [9, 1]


def test_only_the_jobs_that_are_shown_are_asked_for(scripted: FakeDaemon, serve: Serve) -> None:
    scripted.jobs = [job(n, JobState.SUCCEEDED, name=f"run {n}") for n in range(1, 80)]
    page = serve()
    until(page, "queue", bool)
    older = page.get("/jobs/older?shown=30", Cookie=page.cookie())[2]
    shown = [int(number) for number in re.findall(r'href="/jobs/(\d+)"', older)]
    assert len(shown) == ENDED_SHOWN and shown == sorted(shown, reverse=True)
    asked = [r for r in scripted.requests if type(r).__name__ == "ListJobsRequest"]
    assert {(r.ended_limit, r.page_size) for r in asked} == {(ENDED_SHOWN, 0), (60, 100)}


def test_a_place_in_the_queue_is_given_by_moves(scripted: FakeDaemon, serve: Serve) -> None:
    scripted.jobs = [job(n, JobState.QUEUED, queue_position=n) for n in (1, 2, 3, 4)]
    page = serve()
    for number, place, moves in ((4, 2, [4, 1]), (1, 4, [-1]), (3, 1, [3])):
        before = len(scripted.requests)
        assert page.post(f"/jobs/{number}/place", f"place={place}", page="/")[0] == 200
        asked = [r for r in scripted.requests[before:] if type(r).__name__ == "MoveJobRequest"]
        assert [r.id if r.first else -r.id for r in asked] == moves


def ask(page: Served, question: str, number: int = 2) -> tuple[int, str]:
    """The stream of an answer."""
    path = f"/jobs/{number}/ask"
    status, _headers, text = page.post(path, f"question={question}&base=on", page=f"/jobs/{number}")
    return status, text


def test_an_answer_comes_piece_by_piece_and_nothing_of_it_is_logged(
    scripted: FakeDaemon, serve: Serve
) -> None:
    scripted.jobs = [job(2)]
    scripted.answer = [
        AskEvent(waiting="loading"),
        AskEvent(source=AnswerSource(model="demo", job_id=2, step=7, training=True)),
        AskEvent(text="Em \x1b]0;<img src=x>"),
        AskEvent(text=" Faro\ndata: <script>."),
        AskEvent(done=AnswerDone(tokens=3, seconds_to_first_token=0.5, cut=True)),
    ]
    page = serve()
    status, text = ask(page, "Em+que+<b>cidade</b>")
    assert status == 200
    targets = re.findall(r'hx-target="#(\w+)', text)
    parts = ["state", "state", "answer", "answer", "state"]
    assert targets == ["message", "answers", *parts, "said"]
    assert "Em ]0;&lt;img src=x&gt;<" in text and "data: data: &lt;script&gt;.<" in text
    assert "Em que &lt;b&gt;cidade" in text and "<b>" not in text and "<script>" not in text
    request = next(r for r in scripted.requests if type(r).__name__ == "AskRequest")
    assert request.messages[0].content == "Em que <b>cidade</b>"
    assert (request.job_id, request.base) == (2, True)
    said = page.end()
    assert "cidade" not in said and "Faro" not in said


def test_a_conversation_counts_and_what_carries_it_has_limits(
    scripted: FakeDaemon, serve: Serve
) -> None:
    scripted.jobs = [job(2)]
    scripted.answer = [
        AskEvent(text="Em\x1b "),
        AskEvent(text='"Faro".'),
        AskEvent(done=AnswerDone()),
    ]
    page = serve()

    def chat(said: object) -> tuple[int, str]:
        text = said if isinstance(said, str) else json.dumps(said)
        form = urlencode({"said": text, "question": "E onde?"})
        return page.post("/jobs/2/ask", form, page="/jobs/2")[::2]

    before = ["Olá <b>", "Olá! €"] * 300
    status, text = chat(before)
    assert status == 200
    asked = [r for r in scripted.requests if type(r).__name__ == "AskRequest"][-1]
    assert [m.content for m in asked.messages] == [*before, "E onde?"]
    assert [m.role for m in asked.messages] == [*["user", "assistant"] * 300, "user"]
    carried = re.findall(r'name="said" value="([^"]*)"', text)
    assert len(carried) == 1 and "\x1b" not in text
    assert json.loads(html.unescape(carried[0])) == [*before, "E onde?", 'Em\x1b "Faro".']
    too_long = ["a", "€" * CONVERSATION_CHARACTERS]
    assert chat(too_long)[0] == 400 and "Begin anew." in chat(too_long)[1]
    for wrong in ("[", "{}", '["a"]', '["a", 1]', "[" * 50_000):
        assert chat(wrong)[0] == 400, wrong
    scripted.error = NotFound("ask.no_adapter", id=2)
    status, text = chat(before)
    assert status == 200 and 'name="said"' not in text
    assert "Not answered; this question is forgotten." in text and "no adapter" in text


def test_a_question_that_cannot_be_answered_gets_one_sentence(
    scripted: FakeDaemon, serve: Serve
) -> None:
    scripted.jobs = [job(2)]
    page = serve()
    for empty in ("", "+", "%0A"):
        status, text = ask(page, empty)
        assert status == 400 and "The question is empty." in text
    status, text = ask(page, "a" * 20_000)
    assert status == 400 and "too large" in text
    assert ask(page, "a" * 200_000)[0] == 400

    def busy(request: Any, context: Any) -> Any:
        scripted._refuse(Busy("client.port_taken", port=1), context)
        yield AskEvent()

    scripted.Ask = busy  # type: ignore[method-assign]
    scripted.stop()
    scripted.start()
    status, text = ask(page, "Ol%C3%A1")
    assert status == 200 and "Port 1" in text


def test_a_tab_that_is_closed_ends_its_question(scripted: FakeDaemon, serve: Serve) -> None:
    ended = threading.Event()
    scripted.jobs = [job(2)]

    def slow(request: Any, context: Any) -> Any:
        context.add_callback(ended.set)
        yield AskEvent(text="Em")
        ended.wait(20)

    scripted.Ask = slow  # type: ignore[method-assign]
    scripted.stop()
    scripted.start()
    page = serve()
    answer = page.open("/jobs/2/ask", "question=Ol%C3%A1", page="/jobs/2")
    while b"Em" not in answer.readline():
        pass
    answer.close()
    assert wait_for(ended.is_set)
