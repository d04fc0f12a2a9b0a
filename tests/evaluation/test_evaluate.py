"""An evaluation from questions to a verdict: the worker, and the command with the daemon."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import safetrain
from safetrain_shared.errors import InvalidInput
from safetrain_shared.jobs import JobSpec, JobState
from safetraind.storage import documents
from safetraind.worker.evaluation import evaluate
from safetraind.worker.evaluation.question_set import read_questions
from safetraind.worker_messages.evaluate_messages import EvaluateRequest, Evaluation
from tests.harness import DaemonProcess
from tests.tiny import make_chat_data, make_tiny_model

QUESTIONS = [
    {"question": f"Quem marcou o golo número {n} do torneio de inverno?", "answer": f"Jogador {n}"}
    for n in range(20)
]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluated")
    make_tiny_model(folder / "model", layers=2)
    make_chat_data(folder, train=12, valid=4)
    lines = "\n".join(json.dumps({**q, "match": "contains"}) for q in QUESTIONS)
    (folder / "questions.jsonl").write_text(lines, encoding="utf-8")
    return folder


def run(tiny: Path, folder: Path, **changes: Any) -> Evaluation:
    asked = EvaluateRequest(
        model=str(tiny / "model"),
        adapter="",
        questions=str(tiny / "questions.jsonl"),
        train=str(tiny / "train.jsonl"),
        folder=str(folder),
        max_tokens=6,
    )
    asked = dataclasses.replace(asked, **changes)
    return evaluate.Evaluator(asked, lambda _: None).run()


def test_the_same_weights_cannot_be_told_apart(tiny: Path, tmp_path: Path) -> None:
    result = run(tiny, tmp_path / "e")
    assert result.verdict.judgement == "unclear" and not result.weak
    assert [a.base for a in result.answers] == [a.adapter for a in result.answers]
    assert documents.read(tmp_path / "e" / "evaluation.json", Evaluation) == result


def test_one_that_was_killed_goes_on_and_ends_the_same(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(tiny, tmp_path / "whole")
    answered, calls = evaluate.answered, 0

    def dying(*args: Any) -> list[str]:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return answered(*args)

    monkeypatch.setattr(evaluate, "answered", dying)
    with pytest.raises(KeyboardInterrupt):
        run(tiny, tmp_path / "killed")
    calls = 3
    again = run(tiny, tmp_path / "killed")
    assert again == whole
    assert calls - 3 == 2 * 3 - 2, "answered batches are not asked again"


def test_a_question_of_the_training_data_is_refused(tiny: Path, tmp_path: Path) -> None:
    leaked = tmp_path / "leaked.jsonl"
    lines = (tiny / "train.jsonl").read_text(encoding="utf-8").splitlines()[:2]
    leaked.write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(InvalidInput) as caught:
        run(tiny, tmp_path / "e", questions=str(leaked))
    assert caught.value.code == "evaluate.leaked" and not (tmp_path / "e").exists()


@pytest.mark.parametrize(
    "line",
    [
        "not JSON",
        "[]",
        '{"question": "Q?"}',
        '{"question": "", "answer": "A."}',
        '{"question": "Q?", "answer": "A.", "match": "telepathy"}',
        '{"question": "Q?", "answer": null}',
        '{"messages": [{"role": "assistant", "content": "A."}], "answer": "A."}',
        '{"question": "Q?", "answer": {"a": 1}, "match": "exact"}',
    ],
)
def test_a_line_that_is_no_question_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text('{"question": "Q?", "answer": "A."}\n' + line + "\n")
    with pytest.raises(InvalidInput, match="line 2"):
        read_questions(str(path))


def test_training_data_can_be_asked_and_the_limit_spreads(tmp_path: Path) -> None:
    path = tmp_path / "valid.jsonl"
    turns = [{"role": "user", "content": "Q?"}, {"role": "assistant", "content": "A."}]
    records = [{"messages": turns}, {"prompt": "P?", "completion": "C."}] * 5
    path.write_text("\n".join(map(json.dumps, records)))
    asked = read_questions(str(path))
    assert (asked[0].text, asked[0].expected, asked[0].match) == ("Q?", ("A.",), "similarity")
    assert (asked[1].text, asked[1].expected) == ("P?", ("C.",))
    assert len(read_questions(str(path), 3)) == 3


def test_the_command_ends_with_the_verdict(
    daemon: DaemonProcess, tiny: Path, tmp_path: Path
) -> None:
    files = [str(tiny / f"{name}.jsonl") for name in ("train", "valid")]
    settings = {"batch_size": 2, "max_seq_length": 64, "num_epochs": 1, "lora_layers": 2}
    spec = JobSpec(str(tiny / "model"), *files, str(tmp_path / "out"), settings=settings)
    job = daemon.submit(spec).job.id
    assert daemon.wait_for_state(job) is JobState.SUCCEEDED
    arguments = ["evaluate", "--questions", str(tiny / "questions.jsonl"), "--max-tokens", "6"]
    done = subprocess.run(
        [sys.executable, "-m", "safetrain", *arguments],
        env=daemon.environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 6, done.stderr
    assert "cannot be told with 20 questions" in done.stdout
    assert (tmp_path / "out" / "evaluation" / "evaluation.json").is_file()
    with safetrain.connect(str(daemon.home.root), autostart=False, lang="pt") as client:
        again = client.job(job).evaluate(str(tiny / "questions.jsonl"), max_tokens=6)
    assert (again.judgement, again.questions, len(again.answers)) == ("unclear", 20, 20)
    assert "Com 20 perguntas não se consegue dizer" in str(again)
