"""What a newcomer met in the first two hours: silent defaults, weak sentences, dead ends."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest

import safetrain_shared
from safetrain.bundle import collect
from safetrain.bundle.scrub import Scrubber
from safetrain.cli import main
from safetrain.views import charts
from safetrain.views.answer import numbers
from safetrain.views.curves import curves_of
from safetrain.views.job import summary, table
from safetrain_proto.v1 import answers_pb2, data_pb2
from safetrain_proto.v1.jobs_pb2 import SubmitResponse
from safetrain_shared import wire
from safetrain_shared.errors import NotAllowed
from safetrain_shared.events import Evaluated
from safetrain_shared.findings import Finding, Status
from safetrain_shared.jobs import JobState
from safetrain_shared.paths import Home
from tests.client.builders import complete_run, event, job, step
from tests.client.fake import FakeDaemon

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    monkeypatch.chdir(folder)


def test_submit_says_which_data_it_took_and_how_to_watch(
    daemon: FakeDaemon, capsys: Capture
) -> None:
    daemon.submitted = SubmitResponse(job=job(3))
    assert main(["submit"]) == 0
    err = capsys.readouterr().err
    assert "the sample that comes with safetrain" in err and "safetrain watch 3" in err


def test_data_of_the_current_folder_that_was_not_named_is_said(
    daemon: FakeDaemon, capsys: Capture
) -> None:
    data = Path("data")
    data.mkdir()
    for name in ("farense_train.jsonl", "farense_valid.jsonl"):
        (data / name).write_text("{}\n")
    daemon.submitted = SubmitResponse(job=job(3))
    assert main(["submit"]) == 0
    assert f"training with {data.resolve()}/farense_train.jsonl" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["submit", "--output", ""], 65, "A path is empty"),
        (["submit", "--memory-budget", "6"], 78, "as in 6GB"),
        (["submit", "--set", "num_epoch=1"], 78, "Did you mean num_epochs?"),
        (["explain", "num_epoch"], 78, "Did you mean num_epochs?"),
        (["statuss"], 2, "Did you mean status?"),
        (["ask", "Qual", "foi", "a", "melhor"], 65, 'safetrain ask "Qual foi a melhor"'),
    ],
)
def test_a_slip_gets_a_sentence_with_the_way_out(
    arguments: list[str], code: int, says: str, daemon: FakeDaemon, capsys: Capture
) -> None:
    assert main(["--lang", "en", *arguments]) == code
    assert says in capsys.readouterr().err
    assert daemon.requests == []


def test_compared_answers_are_labelled_in_a_file_too(daemon: FakeDaemon, capsys: Capture) -> None:
    daemon.answer = [answers_pb2.AskEvent(text="O 5.º lugar.")]
    assert main(["ask", "--compare", "Qual?"]) == 0
    out = capsys.readouterr().out
    assert out.index("Base model:") < out.index("With the adapter:")


def test_a_model_in_training_is_not_called_one_without_an_adapter(
    daemon: FakeDaemon, capsys: Capture
) -> None:
    source = answers_pb2.AnswerSource(model="/m", job_id=1, training=True, step=7)
    daemon.answer = [answers_pb2.AskEvent(source=source), answers_pb2.AskEvent(text="Sim.")]
    assert main(["ask", "Qual?"]) == 0
    err = capsys.readouterr().err
    assert "with the weights as they are" in err and "without an adapter" not in err


def test_chat_ends_at_bye(daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("/bye\nQual?\n"))
    assert main(["chat"]) == 0
    assert not [r for r in daemon.requests if isinstance(r, answers_pb2.AskRequest)]


def test_jobs_shows_the_validation_loss_where_there_is_one() -> None:
    overfitted = job(1, JobState.SUCCEEDED, step=30, train_loss=0.010, best_loss=2.25)
    head, row = table([overfitted])
    assert "validation loss" in head and "2.250" in row and "0.010" not in row
    assert "0.010 (training)" in table([job(2, step=3, train_loss=0.010)])[1]


def test_a_job_that_ended_says_what_comes_next_and_not_who_waits() -> None:
    waiting = job(2, JobState.QUEUED, queue_position=1)
    done = "\n".join(summary(job(1, JobState.SUCCEEDED), [waiting]))
    assert "safetrain ask --job 1" in done and "safetrain report 1" in done
    assert "waiting behind" not in done
    failed = "\n".join(summary(job(1, JobState.FAILED), [waiting]))
    assert "safetrain diagnose 1" in failed and "safetrain retry 1" in failed


def test_watch_ends_with_what_comes_next(daemon: FakeDaemon, capsys: Capture) -> None:
    daemon.jobs = [job(1, JobState.SUCCEEDED, last_seq=12)]
    daemon.events = complete_run()
    daemon.ended.set()
    assert main(["watch"]) == 0
    assert "safetrain export 1" in capsys.readouterr().err


def test_an_answer_that_the_end_of_the_training_cut_does_not_ask_for_more_tokens() -> None:
    done = answers_pb2.AnswerDone(tokens=3, cut=True, interrupted=True)
    assert "--max-tokens" not in numbers(done) and "ask again" in numbers(done)
    assert "--max-tokens" in numbers(answers_pb2.AnswerDone(tokens=3, cut=True))


@pytest.mark.parametrize(("rate", "said"), [(0.044, "0.044"), (7.31, "7.3"), (1234.5, "1,234")])
def test_a_slow_answer_has_a_speed(rate: float, said: str) -> None:
    done = answers_pb2.AnswerDone(tokens=3, tokens_per_second=rate)
    assert f" {said} tokens/s" in numbers(done)


def test_no_time_is_left_while_the_last_evaluation_runs() -> None:
    last = job(1, eta_seconds=0.0, eta_low_seconds=0.0, eta_high_seconds=0.0)
    assert "left" not in "\n".join(summary(last))
    assert "left" in "\n".join(summary(job(1, eta_seconds=90.0)))


def test_a_chart_of_one_evaluation_names_one_step_and_only_lines_that_are_there() -> None:
    one = [wire.event_from_wire(event(1, step(10))), wire.event_from_wire(event(2, step(20)))]
    chart = charts.loss(curves_of(one))
    assert [line.label for line in chart.lines] == ["training"]
    best = Evaluated(20, 0, 20, loss=2.028, samples=4, best=True)
    caption = charts.loss(curves_of([*one, wire.event_from_wire(event(3, best))])).caption
    assert "Validation loss is 2.028 at step 20." in caption


def test_validating_a_file_that_is_not_there_exits_as_every_missing_file(
    daemon: FakeDaemon, capsys: Capture
) -> None:
    missing = wire.finding_to_wire(Finding("path.missing", Status.FAILED, args={"path": "/no"}))
    daemon.problems = [data_pb2.ValidateEvent(problem=missing)]
    assert main(["validate", "/no"]) == 66


def test_a_training_file_that_is_missing_is_named_before_its_validation_file(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["submit", "--train", "/no/gone.jsonl"]) == 66
    assert "/no/gone.jsonl does not exist." in capsys.readouterr().err


def test_a_bundle_for_a_folder_that_cannot_be_written_is_a_sentence(
    home: Home, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotAllowed) as caught:
        collect.write(tmp_path / "file" / "bundle.zip", home, {})
    assert caught.value.code == "path.unwritable"


def test_a_bundle_holds_the_job_that_was_diagnosed(home: Home) -> None:
    for number in (1, 2, 3, 4):
        home.run(number).root.mkdir(parents=True)
    names = [name for name, _ in collect.files(home, {}, Scrubber(), 1)]
    assert {name.split("/")[1] for name in names if name.startswith("runs/")} == {"1"}


def test_the_catalogue_has_one_portuguese_word_for_each_thing() -> None:
    """What a reader of the language struck out does not come back."""
    struck = re.compile(
        r"salv[ao]s?\b|preflight check|muitas vezes mais|por predefinição|completamento",
        re.IGNORECASE,
    )
    file = Path(safetrain_shared.__file__).parent / "locale/pt/LC_MESSAGES/safetrain.po"
    lines = file.read_text("utf-8").replace('"\n"', "").splitlines()
    said = [line for line in lines if line.startswith("msgstr")]
    assert len(said) > 500 and not [text for text in said if struck.search(text)]


def test_json_errors_of_slips_are_json(daemon: FakeDaemon, capsys: Capture) -> None:
    assert main(["--json", "--lang", "en", "explain", "num_epoch"]) == 78
    error = json.loads(capsys.readouterr().err)["error"]
    assert error["args"] == {"name": "num_epoch", "near": "num_epochs"}
