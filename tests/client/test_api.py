"""The Python API does what the commands do, with values instead of text."""

from __future__ import annotations

import asyncio
import importlib.metadata
import inspect
import itertools
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import safetrain
import safetrain.api
from safetrain_proto.v1 import answers_pb2, data_pb2, preflight_pb2
from safetrain_proto.v1.jobs_pb2 import RemoveJobRequest, SubmitResponse
from safetrain_shared import errors, wire
from safetrain_shared.errors import InvalidInput, InvalidSetting, NotFound, Unreachable
from safetrain_shared.findings import Finding, Status
from safetrain_shared.jobs import JobState
from safetrain_shared.paths import Home
from tests.client.builders import complete_run, event, job, plan, step
from tests.client.fake import FakeDaemon


@pytest.fixture
def client(daemon: FakeDaemon) -> safetrain.Client:
    daemon.jobs = [job(1, JobState.SUCCEEDED, last_seq=12), job(2, name="farense")]
    daemon.events = complete_run()
    daemon.ended.set()
    return safetrain.connect(autostart=False)


def test_without_a_daemon_connect_raises(home: Home) -> None:
    with pytest.raises(Unreachable):
        safetrain.connect(autostart=False)


def test_an_error_is_a_sentence_in_the_language_of_the_locale(
    client: safetrain.Client,
) -> None:
    code = "import safetrain; safetrain.connect(autostart=False).job(9)"
    for locale, sentence in [("pt_PT", "Não existe o trabalho 9."), ("C", "There is no job 9.")]:
        env = {**os.environ, "LC_ALL": f"{locale}.UTF-8"}
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, capture_output=True, text=True, env=env)
        assert f"NotFound: {sentence}" in done.stderr


def test_two_clients_speak_two_languages(client: safetrain.Client) -> None:
    with safetrain.connect(autostart=False, lang="pt") as portuguese:
        with pytest.raises(safetrain.NotFound, match="trabalho 9"):
            portuguese.job(9)
        with pytest.raises(safetrain.NotFound, match="Não existe o trabalho"):
            portuguese.submit(after=-1)
        with pytest.raises(safetrain.NotFound, match="There is no job 9"):
            client.job(9)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda c: c.submit(modle="demo"), "'modle'. Did you mean 'model'"),
        (lambda c: c.ask("Qual?", max_token=5), "Did you mean 'max_tokens'"),
        (lambda c: c.preflight(num_epochs=1), "It is a setting: settings={'num_epochs': …}"),
        (lambda c: c.submit(nonsense=1), "unexpected keyword argument 'nonsense'"),
    ],
)
def test_a_typo_is_refused_with_a_suggestion(
    client: safetrain.Client, daemon: FakeDaemon, call: Callable[[Any], object], says: str
) -> None:
    with pytest.raises(TypeError, match=re.escape(says)):
        call(client)
    assert daemon.requests == []


def test_the_signature_names_every_argument() -> None:
    for function in (safetrain.submit, safetrain.Client.preflight, safetrain.AsyncClient.submit):
        assert {"model", "settings", "memory_budget"} <= set(inspect.signature(function).parameters)
    assert inspect.signature(safetrain.ask).parameters["max_tokens"].default == 256


def test_dir_and_version() -> None:
    assert safetrain.__all__ == safetrain.api.__all__
    assert set(safetrain.__all__) | {"__version__"} == set(dir(safetrain))
    assert safetrain.__version__ == importlib.metadata.version("safetrain")


def test_a_job_makes_no_call_until_it_is_refreshed(
    client: safetrain.Client, daemon: FakeDaemon
) -> None:
    found = client.job(2)
    calls = len(daemon.requests)
    told = repr(found), found.id, found.spec, found.state, found.plan, found.last_seq, found.status
    assert told[0] == f"Job(2, {found.state})" and len(daemon.requests) == calls
    daemon.jobs = [job(2, JobState.SUCCEEDED)]
    assert found.refresh().state is JobState.SUCCEEDED


def test_best_report_and_export(
    client: safetrain.Client, daemon: FakeDaemon, tmp_path: Path
) -> None:
    found = client.job(1)
    best = found.best()
    assert best is not None and best.loss == 2.25
    path = found.report(str(tmp_path / "page.html"))
    assert path == tmp_path / "page.html" and "<html" in path.read_text(encoding="utf-8")


def test_every_error_can_be_caught_by_its_name() -> None:
    for cls in (errors.SafetrainError, *errors.ERRORS):
        assert getattr(safetrain, cls.__name__) is cls


@pytest.mark.parametrize("number", [-1, 2**63])
def test_a_number_that_cannot_be_meant_is_refused(client: safetrain.Client, number: int) -> None:
    for call in (client.job, lambda n: client.submit(after=n), lambda n: client.ask("?", job=n)):
        with pytest.raises(NotFound):
            call(number)
    for option in ("seed", "max_tokens"):
        with pytest.raises(InvalidInput):
            client.ask("?", **{option: number})  # type: ignore[arg-type]


def test_another_home_can_be_named(daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAFETRAIN_HOME", "/nowhere")
    with safetrain.connect(str(daemon.home.root), autostart=False) as client:
        assert client.jobs() == []


def test_submit_describes_the_job_and_returns_it(
    client: safetrain.Client, daemon: FakeDaemon
) -> None:
    daemon.submitted = SubmitResponse(job=job(2))
    made = client.submit(
        model="demo",
        train="a.jsonl",
        valid="b.jsonl",
        settings={"num_epochs": 2, "learning_rate": 1e-4},
        memory_budget="6GB",
        after=client.job(1),
        fresh=True,
    )
    assert made.id == 2 and made.state is JobState.RUNNING
    request = daemon.requests[-1]
    assert request.spec.train == str(Path.cwd() / "a.jsonl")
    assert request.spec.settings.num_epochs == 2 and request.spec.memory_budget == 6 * 10**9
    assert request.after == 1 and request.fresh and request.idempotency_key


def test_a_wrong_setting_is_refused_before_the_daemon(
    client: safetrain.Client, daemon: FakeDaemon
) -> None:
    with pytest.raises(InvalidSetting):
        client.submit(model="demo", settings={"colour": 1})
    assert daemon.requests == []


def test_a_job_is_found_by_its_number(client: safetrain.Client) -> None:
    assert client.job(2).spec.name == "farense"
    assert [found.id for found in client.jobs()] == [1, 2]
    with pytest.raises(NotFound):
        client.job(9)


def test_the_steps_of_a_job_come_in_order(client: safetrain.Client) -> None:
    assert [s.step for s in client.job(1).steps()] == [10, 20, 30]
    assert [e.loss for e in client.job(1).evaluations()] == [2.25]
    assert [e.seq for e in client.job(1).events(after_seq=10)] == [11, 12]


def test_wait_returns_how_the_job_ended(client: safetrain.Client) -> None:
    assert client.job(1).wait() is JobState.SUCCEEDED


def test_metrics_are_one_row_a_step(client: safetrain.Client, daemon: FakeDaemon) -> None:
    daemon.events += [event(13, step(20, 9.0), attempt=2)]
    table = client.job(1).metrics()
    assert table.column("step") == [10, 20], "step 30 came before the kill"
    assert table.column("train_loss") == [3.0, 9.0]
    assert table.column("valid_loss") == [None, 2.25]
    assert table[0]["footprint"] == 3 << 30 and len(table[1:]) == 1
    assert table._repr_html_().count("<tr>") == 3


def test_metrics_have_the_columns_of_the_csv_file() -> None:
    from safetraind.worker.training import metrics_table

    assert safetrain.Metrics.columns == metrics_table.COLUMNS


def test_control_reaches_the_job(client: safetrain.Client, daemon: FakeDaemon) -> None:
    chosen = client.job(2)
    for act in (chosen.pause, chosen.resume, chosen.cancel, chosen.retry, chosen.move):
        act()
        assert daemon.requests[-1].id == 2
    daemon.kept = ["notes.txt"]
    assert chosen.remove(files=True) == ["notes.txt"]
    assert daemon.requests[-1] == RemoveJobRequest(id=2, files=True)


def test_ask_returns_the_answer_and_where_it_came_from(
    client: safetrain.Client, daemon: FakeDaemon
) -> None:
    source = answers_pb2.AnswerSource(model="demo", job_id=1, adapter="/a")
    daemon.answer = [
        answers_pb2.AskEvent(source=source),
        answers_pb2.AskEvent(text="O 5.º "),
        answers_pb2.AskEvent(text="lugar."),
        answers_pb2.AskEvent(done=answers_pb2.AnswerDone(tokens=4, tokens_per_second=8)),
    ]
    answer = client.ask("Qual?", job=1, seed=3, system="Fala de futebol.")
    assert str(answer) == "O 5.º lugar." and answer.job == 1 and answer.tokens_per_second == 8
    assert daemon.requests[-1].seed == 3 and daemon.requests[-1].max_tokens == 256
    assert list(client.ask_stream("Qual?")) == ["O 5.º ", "lugar."]
    assert not daemon.requests[-1].HasField("seed")
    with pytest.raises(InvalidInput):
        client.ask(" ")


def test_preflight_gives_findings_and_settings_and_prints_as_the_sheet(
    client: safetrain.Client, daemon: FakeDaemon
) -> None:
    finding = Finding("data.good", Status.PASSED, section="data")
    advice = preflight_pb2.Recommendation(plan=wire.plan_to_wire(plan(batch_size=2)), measured=True)
    summary = preflight_pb2.PreflightSummary(passed=1, config_path="/c.json")
    daemon.sheet = [
        preflight_pb2.PreflightEvent(section=preflight_pb2.SectionStarted(section="data")),
        preflight_pb2.PreflightEvent(finding=wire.finding_to_wire(finding)),
        preflight_pb2.PreflightEvent(recommendation=advice),
        preflight_pb2.PreflightEvent(summary=summary),
    ]
    sheet = client.preflight(model="demo")
    assert sheet.findings == [finding] and sheet.measured and sheet.passed == 1
    assert sheet.settings["batch_size"] == 2 and sheet.config_path == "/c.json"
    assert ">>> 4. DATA CHECK\n  ✓ Every line is in order" in str(sheet)


def test_validate_yields_what_is_wrong(client: safetrain.Client, daemon: FakeDaemon) -> None:
    finding = Finding("data.blank_line", Status.WARNING, args={"path": "/a", "line": 3})
    daemon.problems = [data_pb2.ValidateEvent(problem=wire.finding_to_wire(finding))]
    assert list(client.validate("a.jsonl")) == [finding]


def test_events_can_be_left_in_mid_stream(client: safetrain.Client) -> None:
    assert len(list(itertools.islice(client.job(1).events(), 2))) == 2
    assert client.job(1).wait() is JobState.SUCCEEDED


def test_the_same_with_asyncio(client: safetrain.Client, daemon: FakeDaemon) -> None:
    daemon.submitted = SubmitResponse(job=job(1))
    daemon.answer = [answers_pb2.AskEvent(text="O 5.º "), answers_pb2.AskEvent(text="lugar.")]

    async def everything() -> None:
        async with safetrain.AsyncClient(autostart=False) as client:
            made = await client.submit(model="demo")
            assert [s.step async for s in made.steps()] == [10, 20, 30]
            assert await made.wait() is JobState.SUCCEEDED
            assert (await made.metrics()).column("step") == [10, 20, 30]
            assert [found.id for found in await client.jobs()] == [1, 2]
            assert str(await client.ask("Qual?")) == "O 5.º lugar."
            assert [part async for part in client.ask_stream("Qual?")] == ["O 5.º ", "lugar."]

    asyncio.run(everything())


def test_an_asyncio_task_that_follows_a_job_can_be_cancelled(
    client: safetrain.Client, daemon: FakeDaemon
) -> None:
    daemon.ended.clear()

    async def follow_and_cancel() -> list[int]:
        async with safetrain.AsyncClient(autostart=False) as client:
            found, seen = await client.job(2), []

            async def follow() -> None:
                async for event in found.events():
                    seen.append(event.seq)  # noqa: PERF401 (what was seen before the end counts)

            task = asyncio.create_task(follow())
            while len(seen) < 12:
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                async with asyncio.timeout(60):
                    await task
            return seen

    assert asyncio.run(follow_and_cancel()) == list(range(1, 13))
