"""`safetrain plot` and `safetrain report`, against a served story."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from safetrain.cli import main
from safetrain.sample_questions import SampleQuestion, evenly_spaced
from safetrain_proto.v1 import jobs_pb2
from safetrain_shared.paths import Home
from tests.report import runs
from tests.report.served import a_job, served

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The output folder of the one job that is served."""
    folder = tmp_path / "out"
    monkeypatch.setenv("SAFETRAIN_HOME", str(tmp_path / "home"))
    with served(Home(tmp_path / "home"), a_job(str(folder)), runs.eventful()):
        yield folder


@pytest.fixture
def validated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """What is asked about a job that has validation data."""
    monkeypatch.setenv("SAFETRAIN_HOME", str(tmp_path / "mine"))
    job = _with_data(tmp_path)
    with served(Home(tmp_path / "mine"), job, runs.eventful()) as asked:
        yield asked


def run(*arguments: str) -> int:
    return main([*arguments, "--no-autostart", "--lang", "en"])


def test_plot_writes_the_pictures_and_prints_their_paths(
    output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("plot") == 0
    names = ["loss.png", "learning_rate.png", "memory_usage.png"]
    assert capsys.readouterr().out.splitlines() == [str(output / "plots" / n) for n in names]
    assert sorted(path.name for path in (output / "plots").iterdir()) == sorted(names)
    assert all((output / "plots" / name).read_bytes().startswith(PNG) for name in names)


def test_plot_says_what_is_missing_before_the_first_step(
    output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("plot", "4") == 66
    assert "Job 4 has not logged a step yet" in capsys.readouterr().err


def test_plot_without_matplotlib_says_how_to_get_it(
    output: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec

    def without(name: str, package: str | None = None) -> object:
        return None if name == "matplotlib" else find(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", without)
    assert run("plot") == 69
    said = capsys.readouterr().err.strip()
    assert "pip install 'safetrain[plots]'" in said
    assert "\n" not in said


def test_an_unknown_job_is_named(output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for verb in ("plot", "report"):
        assert run(verb, "9") == 66
        assert "no job 9" in capsys.readouterr().err


def test_a_folder_that_cannot_be_made_is_named(
    output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output.write_text("a file where the folder should be")
    assert run("report") == 77
    assert str(output) in capsys.readouterr().err
    assert output.read_text() == "a file where the folder should be"


def test_report_goes_to_the_job_or_where_it_is_told(
    output: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("report") == 0
    assert capsys.readouterr().out.strip() == str(output / "plots" / "report.html")
    assert run("report", "3", "--json", "--output", str(tmp_path / "mine.html")) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == {"id": 3, "file": str(tmp_path / "mine.html")}
    first, second = output / "plots" / "report.html", tmp_path / "mine.html"
    assert first.read_text("utf-8").startswith("<!doctype html>")
    assert abs(first.stat().st_size - second.stat().st_size) < 100
    assert [path.name for path in first.parent.iterdir()] == ["report.html"]


def test_report_asks_base_and_adapter(output: Path) -> None:
    assert run("report", "--ask", "Who & why?", "--ask", "When?") == 0
    text = (output / "plots" / "report.html").read_text("utf-8")
    assert text.count("The base says &lt;b&gt;") == 2
    assert "The adapter says &lt;b&gt;[31m to Who &amp; why?</p><p>Five.</p>" in text
    assert text.count("\x1b") == 0


def test_report_asks_a_few_questions_of_the_validation_data(
    validated: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("report") == 0
    said = [(request.messages[-1].content, request.base) for request in validated]
    assert said == [(f"Question {n}?", base) for n in (0, 4, 9) for base in (True, False)]
    assert [m.role for m in validated[0].messages] == ["system", "user"]
    text = _page(tmp_path / "out")
    assert "In the data: Answer 4 &lt;b&gt;" in text and "The adapter says" in text
    assert "Asking: Question 4?" in capsys.readouterr().err


def test_report_asks_nothing_where_it_is_told_so(validated: list[Any], tmp_path: Path) -> None:
    assert run("report", "--no-answers") == 0
    assert validated == [] and 'id="answers"' not in _page(tmp_path / "out")


def test_report_asks_nothing_while_something_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAFETRAIN_HOME", str(tmp_path / "home"))
    other = a_job("/other", id=5, state=jobs_pb2.JOB_STATE_RUNNING)
    job = _with_data(tmp_path)
    with served(Home(tmp_path / "home"), job, runs.eventful(), other) as asked:
        assert run("report", "3") == 0
    assert asked == [] and _page(tmp_path / "out")


def test_a_report_comes_without_the_answers_that_cannot_be_had(
    output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("report", "--ask", "When?", "--ask", "gone", "--ask", "Never?") == 0
    assert "No more sample answers: No safetraind answers" in capsys.readouterr().err
    text = _page(output)
    assert "The base says" in text and "Never?" not in text


def test_a_file_that_asks_nothing_gives_no_questions(tmp_path: Path) -> None:
    file = tmp_path / "valid.jsonl"
    lines = ['{"text": "a"}', "{", "[1]", '{"messages": []}', '{"messages": [{"role": "user"}]}']
    file.write_text("\n".join([*lines, '{"messages": 3}', f'{{"prompt": "{"x" * 500}"}}']))
    assert evenly_spaced(str(file), 3) == evenly_spaced(str(tmp_path / "none"), 3) == []
    file.write_text('{"prompt": "Q", "completion": "A"}\n' * 2)
    assert evenly_spaced(str(file), 3) == [SampleQuestion("Q", "", "A")]


def _page(output: Path) -> str:
    return (output / "plots" / "report.html").read_text("utf-8")


def _with_data(folder: Path) -> jobs_pb2.Job:
    """The job, its validation file with ten questions, in `folder`."""
    job = a_job(str(folder / "out"))
    job.spec.valid = str(folder / "valid.jsonl")
    turns = [("system", "S"), ("user", "Question {}?"), ("assistant", "Answer {} <b>")]
    samples = [
        {"messages": [{"role": role, "content": text.format(n)} for role, text in turns]}
        for n in range(10)
    ]
    Path(job.spec.valid).write_text("".join(json.dumps(sample) + "\n" for sample in samples))
    return job


def test_report_knows_which_checkpoints_are_left(output: Path) -> None:
    assert run("report") == 0
    text = (output / "plots" / "report.html").read_text("utf-8")
    assert text.count("<td>no</td></tr>") == 6


def test_a_job_that_only_waits_is_passed_over(
    output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("report", "--json") == 0
    assert json.loads(capsys.readouterr().out)["id"] == 3
