"""Each verb sends the right request, says the right thing and exits with the right code."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys

import pytest

from safetrain.cli import COMMANDS, main
from safetrain_proto.v1 import answers_pb2, data_pb2, jobs_pb2, models_pb2
from safetrain_shared import errors, wire
from safetrain_shared.events import StateChanged
from safetrain_shared.findings import Finding, Status
from safetrain_shared.jobs import JobState
from tests.client.builders import complete_run, event, job
from tests.client.fake import FakeDaemon

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _two_jobs(daemon: FakeDaemon) -> None:
    daemon.jobs = [
        job(1, JobState.SUCCEEDED, started=10, finished=70),
        job(2, name="farense", step=40, total_steps=100, train_loss=0.5, eta_seconds=90),
        job(3, JobState.QUEUED, queue_position=1, start_eta_seconds=90),
    ]


def test_status_shows_the_job_at_work_and_the_queue_behind(capsys: Capture) -> None:
    assert main(["status"]) == 0
    out = capsys.readouterr().out
    assert "Job 2 · farense · running" in out
    assert "40% · step 40 of 100" in out
    assert "waiting behind: 3 (starts in 2 min)" in out


def test_when_a_waiting_job_starts_is_told_as_a_range_or_not_at_all(
    daemon: FakeDaemon, capsys: Capture
) -> None:
    eta = {"start_eta_seconds": 600, "start_eta_low_seconds": 300, "start_eta_high_seconds": 900}
    daemon.jobs = [
        job(2),
        job(3, JobState.QUEUED, queue_position=1, after=2, **eta),
        job(4, JobState.QUEUED, queue_position=2, after=9),
    ]
    assert main(["jobs"]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert "starts in 5 min to 15 min" in rows[2]
    assert "after job 9" in rows[3]


def test_status_of_a_job_by_its_number(capsys: Capture) -> None:
    assert main(["status", "1"]) == 0
    assert "took 1 min" in capsys.readouterr().out


def test_status_of_an_unknown_job_says_where_to_look(capsys: Capture) -> None:
    assert main(["status", "9"]) == 66
    assert (
        capsys.readouterr().err
        == "safetrain: There is no job 9. See them all with: safetrain jobs\n"
    )


def test_without_any_job_status_says_how_to_begin(daemon: FakeDaemon, capsys: Capture) -> None:
    daemon.jobs = []
    assert main(["status"]) == 66
    assert "safetrain submit" in capsys.readouterr().err


def test_jobs_aligns_its_columns(capsys: Capture) -> None:
    assert main(["jobs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert {line.find("/out/") for line in lines[1:]} == {lines[0].find("output")}


@pytest.mark.parametrize("arguments", [["--json", "jobs"], ["jobs", "--json"]])
def test_json_is_understood_before_and_after_the_command(
    arguments: list[str], capsys: Capture
) -> None:
    assert main(arguments) == 0
    found = json.loads(capsys.readouterr().out)
    assert [j["state"] for j in found] == ["succeeded", "running", "queued"]
    assert found[1]["spec"]["name"] == "farense" and found[1]["step"] == 40


@pytest.mark.parametrize("verb", ["pause", "resume", "cancel", "retry", "move"])
def test_control_verbs_name_their_job_and_show_it(
    verb: str, daemon: FakeDaemon, capsys: Capture
) -> None:
    assert main([verb, "2"]) == 0
    assert daemon.requests[-1].id == 2
    assert "Job 2" in capsys.readouterr().out


def test_move_knows_both_ends(daemon: FakeDaemon) -> None:
    assert main(["move", "3", "--last"]) == 0
    assert daemon.requests[-1] == jobs_pb2.MoveJobRequest(id=3, first=False)


def test_remove_names_the_files_it_left(daemon: FakeDaemon, capsys: Capture) -> None:
    daemon.kept = ["/out/1/notes.txt"]
    assert main(["remove", "1", "--files"]) == 0
    assert daemon.requests[-1] == jobs_pb2.RemoveJobRequest(id=1, files=True)
    assert "/out/1/notes.txt" in capsys.readouterr().out


def test_a_wait_tells_the_end_in_words(daemon: FakeDaemon, capsys: Capture) -> None:
    daemon.jobs = [job(7, JobState.SUCCEEDED)]
    daemon.submitted = jobs_pb2.SubmitResponse(job=job(7))
    daemon.ended.set()
    assert main(["submit", "--wait"]) == 0
    assert capsys.readouterr().err.endswith("Job 7: succeeded\n")


@pytest.mark.parametrize("cls", errors.ERRORS)
def test_every_error_of_the_daemon_has_its_exit_code(
    cls: type[errors.SafetrainError], daemon: FakeDaemon, capsys: Capture
) -> None:
    daemon.error = cls("job.finished", id=2, state="failed")
    assert main(["pause", "2"]) == cls.exit_code
    assert capsys.readouterr().err == "safetrain: Job 2 has already ended (failed).\n"


def test_with_json_an_error_is_json_too(daemon: FakeDaemon, capsys: Capture) -> None:
    daemon.error = errors.AlreadyFinished("job.finished", id=2, state="failed")
    assert main(["pause", "2", "--json"]) == 3
    said = json.loads(capsys.readouterr().err)
    assert said["exit_code"] == 3
    assert said["error"]["code"] == "job.finished"
    assert said["error"]["args"] == {"id": 2, "state": "failed"}
    assert said["error"]["text"] == "Job 2 has already ended (failed)."


def test_a_code_of_a_newer_daemon_falls_back_to_its_english_sentence(
    daemon: FakeDaemon, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "sentence", lambda code, args, lang: "The moon is in the way.")
    daemon.error = errors.Conflict("moon.in_the_way", phase=3)
    assert main(["pause", "2"]) == 73
    assert capsys.readouterr().err == "safetrain: The moon is in the way.\n"


def test_a_call_the_daemon_does_not_know_asks_for_a_restart(
    daemon: FakeDaemon, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    import grpc

    def unknown(request: object, context: grpc.ServicerContext) -> None:
        context.abort(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")

    monkeypatch.setattr(daemon, "_note", unknown)
    assert main(["pause", "2"]) == 76
    assert "safetraind restart" in capsys.readouterr().err


def test_ask_streams_the_answer_and_names_who_answers(daemon: FakeDaemon, capsys: Capture) -> None:
    source = answers_pb2.AnswerSource(model="demo", job_id=2, adapter="/a", step=40, training=True)
    done = answers_pb2.AnswerDone(tokens=5, tokens_per_second=10, seconds_to_first_token=0.25)
    daemon.answer = [
        answers_pb2.AskEvent(waiting="loading"),
        answers_pb2.AskEvent(source=source),
        answers_pb2.AskEvent(text="O 5.º "),
        answers_pb2.AskEvent(text="lugar\x1b[2J."),
        answers_pb2.AskEvent(done=done),
    ]
    assert main(["ask", "Qual?", "--system", "Fala de futebol.", "--seed", "7"]) == 0
    said = capsys.readouterr()
    assert said.out == "O 5.º lugar[2J.\n"
    assert "job 2 · in training, after step 40" in said.err
    assert "5 tokens · first after 0.25 s · 10 tokens/s" in said.err
    request = daemon.requests[-1]
    assert [m.role for m in request.messages] == ["system", "user"]
    assert request.seed == 7 and request.max_tokens == 256


def test_compare_asks_the_base_then_the_adapter(daemon: FakeDaemon, capsys: Capture) -> None:
    daemon.answer = [answers_pb2.AskEvent(text="Sim."), answers_pb2.AskEvent(done={})]
    assert main(["ask", "Qual?", "--compare", "--json"]) == 0
    assert [request.base for request in daemon.requests] == [True, False]
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [answer["answer"] for answer in answers] == ["Sim.", "Sim."]


def test_an_empty_question_is_refused_before_the_daemon(daemon: FakeDaemon) -> None:
    assert main(["ask", "  "]) == 65
    assert daemon.requests == []


def test_a_chat_remembers_what_was_said_until_it_begins_anew(
    daemon: FakeDaemon, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon.answer = [answers_pb2.AskEvent(text="Sim."), answers_pb2.AskEvent(done={})]
    monkeypatch.setattr("sys.stdin", io.StringIO("Um?\n\nDois?\n/new\nTrês?\n"))
    assert main(["chat", "--system", "S"]) == 0
    said = [[m.content for m in request.messages] for request in daemon.requests]
    assert said == [["S", "Um?"], ["S", "Um?", "Sim.", "Dois?"], ["S", "Três?"]]
    assert capsys.readouterr().out == "Sim.\n" * 3


def test_a_chat_goes_on_after_a_question_that_was_refused(
    daemon: FakeDaemon, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon.error = errors.Busy("ask.busy_other_job", training=2)
    monkeypatch.setattr("sys.stdin", io.StringIO("Um?\nDois?\n"))
    assert main(["chat"]) == 0
    assert capsys.readouterr().err.count("safetrain: Job 2 is training") == 2


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_the_shells_script(shell: str, capsys: Capture) -> None:
    assert main(["completion", shell]) == 0
    assert "_SAFETRAIN_COMPLETE" in capsys.readouterr().out


def test_the_shell_is_told_commands_and_options(monkeypatch: pytest.MonkeyPatch) -> None:
    def told(words: str, place: int) -> set[str]:
        done = subprocess.run(
            [sys.executable, "-m", "safetrain"],
            env={
                **os.environ,
                "_SAFETRAIN_COMPLETE": "bash_complete",
                "COMP_WORDS": words,
                "COMP_CWORD": str(place),
            },
            capture_output=True,
            text=True,
        )
        return {line.rpartition(",")[2] for line in done.stdout.splitlines()}

    assert told("safetrain su", 1) == {"submit"}
    assert {"--model", "--memory-budget"} <= told("safetrain submit --m", 2)


def _problem(status: Status) -> data_pb2.ValidateEvent:
    finding = Finding("data.blank_line", status, args={"path": "/d/a.jsonl", "line": 7})
    return data_pb2.ValidateEvent(problem=wire.finding_to_wire(finding))


@pytest.mark.parametrize(
    ("status", "mark", "code"), [(Status.FAILED, "✗", 1), (Status.WARNING, "⚠", 0)]
)
def test_validate_exits_1_for_errors_and_0_for_warnings(
    status: Status, mark: str, code: int, daemon: FakeDaemon, capsys: Capture
) -> None:
    summary = data_pb2.FileSummary(path="/d/a.jsonl", lines=9, samples=8, problems=1)
    daemon.problems = [_problem(status), data_pb2.ValidateEvent(summary=summary)]
    assert main(["validate", "a.jsonl"]) == code
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"/d/a.jsonl:7: {mark} A blank line"
    assert lines[1].startswith(f"{mark} /d/a.jsonl: ?, lines: 9, samples: 8, problems: 1")
    assert daemon.requests[-1].paths[0].startswith("/")


def test_validate_shows_the_first_problems_of_each_kind_and_counts_the_others(
    daemon: FakeDaemon, capsys: Capture
) -> None:
    def problem(line: int, code: str = "data.blank_line") -> data_pb2.ValidateEvent:
        args = {"path": "/d/a.jsonl", "line": line}
        finding = Finding(code, Status.WARNING, args=args)
        return data_pb2.ValidateEvent(problem=wire.finding_to_wire(finding))

    summary = data_pb2.FileSummary(path="/d/a.jsonl", lines=2000, samples=500, problems=1006)
    many = [problem(line) for line in range(1, 1003)]
    few = [problem(line, "data.byte_order_mark") for line in range(1, 5)]
    daemon.problems = [*many, *few, data_pb2.ValidateEvent(summary=summary)]
    assert main(["--lang", "en", "validate", "a.jsonl"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 + 3 + 2 + 1
    assert "/d/a.jsonl:4: ⚠ and 999 more of this kind, up to line 1,002" in lines
    assert lines[-2].startswith("/d/a.jsonl:4: ⚠") and "more of this" not in lines[-2]
    assert main(["--json", "validate", "a.jsonl"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1007


def test_models_shows_the_licence(daemon: FakeDaemon, capsys: Capture) -> None:
    daemon.models = [
        models_pb2.Model(
            name="demo", licence="Apache-2.0", bytes=1 << 28, installed=True, path="/m"
        )
    ]
    assert main(["models", "add", "demo"]) == 0
    assert main(["models", "list"]) == 0
    assert capsys.readouterr().out.count("✓ demo · Apache-2.0 · 256.0 MiB · /m") == 2


def test_models_suggest_tells_what_fits_class_by_class(daemon: FakeDaemon, capsys: Capture) -> None:
    small = models_pb2.SuggestedModel(
        name="a/small",
        size_class="small",
        licence="MIT",
        bytes=2 << 30,
        languages=8,
        portuguese="pt",
        read="2026-11",
        fits=True,
        peak=3 << 30,
        expected_seconds=7500,
    )
    large = models_pb2.SuggestedModel(
        name="b/large",
        size_class="large",
        licence="MIT",
        bytes=8 << 30,
        portuguese="pt-PT",
        read="2026-11",
        peak=9 << 30,
    )
    daemon.suggested = models_pb2.SuggestModelsResponse(
        models=[small, large], room=4 << 30, samples=848, longest=512, speed_of="demo"
    )
    assert main(["models", "suggest", "--train", "d.jsonl", "--memory-budget", "6GiB"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:6] == [
        "1 to 3 GiB of weights",
        "  ✓ a/small · 2.0 GiB · MIT · 8 languages, Portuguese too",
        "      3.0 GiB at the peak, about 2 h 05 min",
        "7 GiB of weights and more",
        "  – b/large · 8.0 GiB · MIT · made for the Portuguese of Portugal",
        "      does not fit: it takes 9.0 GiB, and 4.0 GiB can be had",
    ]
    assert "848 samples" in lines[6] and "demo" in lines[7]
    asked = daemon.requests[-1]
    assert asked.train.endswith("/d.jsonl") and asked.memory_budget == 6 << 30
    assert main(["models", "suggest", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [model["fits"] for model in told["models"]] == [True, False]
    assert told["models"][0]["expected_seconds"] == 7500
    assert daemon.requests[-1].train == ""


def test_watch_prints_one_line_an_event_and_exits_as_the_job_ended(
    daemon: FakeDaemon, capsys: Capture
) -> None:
    daemon.events = complete_run()
    daemon.ended.set()
    assert main(["watch", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 12
    assert (
        "step 10 of 100 · loss 3.0000 · learning rate 0.0002 · 250 tokens/s · 2.0 GiB · 2 min left"
        in lines[4]
    )
    assert lines[6].endswith("step 20 · validation loss 2.2500 · the best so far")
    assert lines[7].endswith("saved checkpoint_epoch_0_step_20 (5.0 MiB)")


@pytest.mark.parametrize(
    ("state", "code"), [(JobState.SUCCEEDED, 0), (JobState.FAILED, 1), (JobState.CANCELLED, 5)]
)
def test_the_exit_code_of_watch_tells_how_the_job_ended(
    state: JobState, code: int, daemon: FakeDaemon
) -> None:
    daemon.jobs = [job(4, state)]
    daemon.ended.set()
    assert main(["watch"]) == code


def test_watch_as_json_gives_every_event_its_number(daemon: FakeDaemon, capsys: Capture) -> None:
    daemon.events = complete_run()
    daemon.ended.set()
    assert main(["watch", "1", "--json"]) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [event["seq"] for event in events] == list(range(1, 13))
    assert events[4]["kind"] == "step" and events[4]["loss"] == 3.0
    assert events[8]["finding"]["text"].startswith("3 samples were left out")
    assert events[2]["plan"]["reasons"][0]["text"].startswith("Stopped early")
    assert events[0]["cause"] is None


@pytest.mark.parametrize("command", [*COMMANDS, "models add"])
def test_every_command_has_help_with_an_example(command: str, capsys: Capture) -> None:
    assert main([*command.split(), "--help"]) == 0
    out = capsys.readouterr().out
    assert f"safetrain {command}" in out.partition("Example:")[2]
    for option in ("--json", "--lang", "--no-autostart"):
        assert option in out


def test_wrong_usage_exits_2_with_the_way_to_the_help(capsys: Capture) -> None:
    assert main(["pause", "two"]) == 2
    assert "safetrain pause --help" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["models"]])
def test_without_a_command_the_help_is_shown(arguments: list[str], capsys: Capture) -> None:
    assert main(arguments) == 2
    assert capsys.readouterr().err.startswith("Usage: safetrain")


def test_status_says_first_what_interrupted_the_job_meanwhile(
    daemon: FakeDaemon, capsys: Capture
) -> None:
    daemon.jobs = [job(1, attempt=2)]
    panic = Finding("job.kernel_panic", Status.WARNING, args={"path": "/x.panic"})
    bodies = [StateChanged(JobState.INTERRUPTED, panic), StateChanged(JobState.RUNNING)]
    daemon.events = [event(seq, body) for seq, body in enumerate(bodies, 1)]
    daemon.ended.set()
    assert main(["status"]) == 0
    said = capsys.readouterr().out.splitlines()[1]
    assert said.startswith("Interrupted on the way: kernel panic (")
