"""Evaluations as jobs: at the end of a training, on their own, killed, shown, and promoted."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import grpc
import pytest

import safetrain
from safetrain_proto.v1 import evaluations_pb2, evaluations_pb2_grpc
from safetrain_shared.errors import InvalidInput, NotFound, Unreachable
from safetrain_shared.evaluations import EvaluationSpec
from safetrain_shared.events import Judged, Notice, Outcome, QuestionsAnswered
from safetrain_shared.jobs import JobSpec, JobState
from safetraind.storage.manifest import sha256
from tests.harness import DaemonProcess, kill_all, wait_for
from tests.tiny import make_chat_data, make_tiny_model

SETTINGS = {
    "batch_size": 2,
    "max_seq_length": 64,
    "num_epochs": 2,
    "lora_layers": 2,
    "save_steps": 3,
    "eval_steps": 3,
    "keep_checkpoints": 4,
}


def questions(path: Path, count: int) -> Path:
    lines = (
        {"question": f"Quem marcou o golo número {n} do torneio de inverno?", "answer": f"J. {n}"}
        for n in range(count)
    )
    path.write_text("\n".join(json.dumps({**line, "match": "contains"}) for line in lines))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluated")
    make_tiny_model(folder / "model", layers=2)
    make_chat_data(folder, train=12, valid=4)
    questions(folder / "asked.jsonl", 100)
    return folder


@pytest.fixture(scope="module")
def serving(folder: Path) -> Iterator[DaemonProcess]:
    process = DaemonProcess(folder / "home")
    try:
        yield process.start()
    finally:
        process.end()


@pytest.fixture(scope="module")
def trained(serving: DaemonProcess, folder: Path) -> int:
    """A job whose worker was killed while it was evaluated at the end of its training."""
    files = [str(folder / f"{name}.jsonl") for name in ("train", "valid")]
    asked = EvaluationSpec(questions=str(folder / "asked.jsonl"), max_tokens=24)
    model, output = str(folder / "model"), str(folder / "out")
    spec = JobSpec(model, *files, output, settings=SETTINGS, evaluation=asked)
    job = serving.submit(spec).job.id
    wait_for(lambda: answered(serving, job), 120)
    kill_all([*serving.workers(), *serving.keepers()])
    assert serving.wait_for_state(job) is JobState.SUCCEEDED
    return int(job)


def answered(serving: DaemonProcess, job: int) -> list[QuestionsAnswered]:
    bodies = [event.body for event in serving.watch(job)]
    return [body for body in bodies if isinstance(body, QuestionsAnswered)]


def run(serving: DaemonProcess, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "safetrain", *arguments]
    environment = serving.environment()
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


def test_a_training_ends_with_the_verdict(
    serving: DaemonProcess, trained: int, folder: Path
) -> None:
    bodies = [event.body for event in serving.watch(trained)]
    (judged,) = [body for body in bodies if isinstance(body, Judged)]
    assert judged.evaluation.verdict.questions == 100 and not judged.evaluation.answers
    assert serving.job(trained).attempt == 2, "it went on after the kill"
    assert isinstance(bodies[bodies.index(judged) + 1], Outcome)
    summary = json.loads((folder / "out" / "training_summary.json").read_text())
    assert summary["outcome"] == "succeeded"
    assert summary["evaluation"]["verdict"]["judgement"] == judged.evaluation.verdict.judgement
    whole = json.loads((folder / "out" / "evaluation" / "evaluation.json").read_text())
    assert len(whole["answers"]) == 100


def test_every_place_that_shows_the_job_shows_the_verdict(
    serving: DaemonProcess, trained: int
) -> None:
    said = "cannot be told with 100 questions"
    assert said in run(serving, "status", str(trained)).stdout
    assert said in "".join(run(serving, "watch", str(trained)).stdout.splitlines()[-3:])
    with safetrain.connect(str(serving.home.root), autostart=False) as client:
        found = client.job(trained).evaluation
        report = client.job(trained).report().read_text(encoding="utf-8")
    assert found is not None and (found.judgement, found.questions) == ("unclear", 100)
    assert said in report and said in str(found)


def test_the_command_queues_a_job_tells_how_far_it_is_and_ends_with_the_verdict(
    serving: DaemonProcess, trained: int, folder: Path
) -> None:
    done = run(serving, "evaluate", "--max-tokens", "4")  # the questions beside the training file
    assert done.returncode == 6, done.stderr
    assert "cannot be told with 100 questions" in done.stdout
    assert "… waiting for the GPU" in done.stderr and "… asking the model" in done.stderr
    with safetrain.connect(str(serving.home.root), autostart=False, lang="pt") as client:
        again = client.job(trained).evaluate(str(folder / "asked.jsonl"), max_tokens=4)
        assert (again.judgement, again.questions, len(again.answers)) == ("unclear", 100, 100)
        assert "Com 100 perguntas não se consegue dizer" in str(again)
        assert "<table>" in again._repr_html_()
        own = client.jobs()[-1]
    assert own.spec.evaluates == trained
    for command in ("status", "report", "diagnose", "watch"):
        shown = run(serving, command, str(own.id))
        assert shown.returncode == 0 and not shown.stderr.count("Traceback"), shown.stderr
    assert "out/plots/report.html" in run(serving, "report").stdout, "of the training, not of this"


def test_an_evaluation_is_a_job_that_survives_the_death_of_its_worker_and_of_the_daemon(
    serving: DaemonProcess, trained: int, folder: Path
) -> None:
    many = questions(folder / "many.jsonl", 60)
    request = evaluations_pb2.EvaluateRequest(job_id=trained, questions=str(many), max_tokens=60)
    stream = evaluations_pb2_grpc.EvaluationsStub(serving.channel).Run(request, timeout=120)
    job = next(iter(stream)).progress.job_id
    wait_for(lambda: answered(serving, job))
    kill_all([*serving.workers(), *serving.keepers()])
    serving.kill()
    with pytest.raises(grpc.RpcError):
        list(stream)
    serving.start()
    assert serving.wait_for_state(job) is JobState.SUCCEEDED
    view = serving.job(job)
    assert view.attempt == 2 and view.spec.evaluation.job == trained
    last = answered(serving, job)[-1]
    assert last.answered == last.total
    assert view.evaluation.verdict.questions == 60
    assert serving.job(trained).evaluation.verdict.questions == 60
    jobs = run(serving, "jobs").stdout
    assert f"evaluation of job {trained}" in jobs


def test_checkpoints_are_compared_and_the_best_is_promoted_and_put_back(
    serving: DaemonProcess, trained: int, folder: Path
) -> None:
    output = folder / "out"
    published = output / "adapters" / "adapters.safetensors"
    before = sha256(published)
    with safetrain.connect(str(serving.home.root), autostart=False) as client:
        job = client.job(trained)
        with pytest.raises(NotFound):
            job.promote()  # nothing was compared yet
        found = job.evaluate(str(folder / "asked.jsonl"), checkpoints=True, max_tokens=4)
        assert len(found.checkpoints) > 1 and found.questions == 50
        names = [one["checkpoint"] for one in found.checkpoints]
        assert sum(one["best_loss"] for one in found.checkpoints) == 1
        other = next(n for n in names if sha256(output / n / published.name) != before)
        assert job.promote(other) == other
        assert sha256(published) == sha256(output / other / published.name)
        state = json.loads((output / "training_state.json").read_text())
        assert state["promoted"] == other
        assert json.loads((output / "training_summary.json").read_text())["promoted"] == other
        with pytest.raises(NotFound):
            job.promote("checkpoint_epoch_9_step_9")
    done = run(serving, "evaluate", str(trained), "--promote", "best-loss")
    assert done.returncode == 0 and f"--promote {other}" in done.stdout
    assert sha256(published) == before
    assert json.loads((output / "training_state.json").read_text())["promoted"] == ""
    done = run(serving, "evaluate", str(trained), "--promote", "--max-tokens", "4")
    assert "chosen on" in done.stdout and sha256(published) == sha256(
        output / names[0] / published.name
    )
    done = run(serving, "evaluate", str(trained), "--max-tokens", "4")
    assert "50 questions that chose this adapter are left out" in done.stdout


def test_questions_of_the_training_data_end_the_evaluation_with_their_name(
    serving: DaemonProcess, trained: int, folder: Path
) -> None:
    with safetrain.connect(str(serving.home.root), autostart=False) as client:
        job = client.job(trained)
        with pytest.raises(InvalidInput) as caught:
            job.evaluate(str(folder / "train.jsonl"))
        assert caught.value.code == "evaluate.leaked"
        if find_spec("lm_eval") is None:
            with pytest.raises(Unreachable, match="safetrain\\[tasks\\]"):
                job.evaluate(tasks=["hellaswag"])


def test_a_training_succeeds_whatever_becomes_of_its_evaluation(
    serving: DaemonProcess, folder: Path
) -> None:
    """It asks the validation file's questions, which stand in the training data: a warning before,
    no evaluation after.
    """
    train, valid = folder / "train.jsonl", folder / "repeated.jsonl"
    valid.write_text("".join(train.read_text().splitlines(keepends=True)[:4]))
    files = [str(train), str(valid)]
    settings, asked = {**SETTINGS, "num_epochs": 1}, EvaluationSpec(max_tokens=4)
    output = str(folder / "other")
    spec = JobSpec(str(folder / "model"), *files, output, settings=settings, evaluation=asked)
    job = serving.submit(spec).job.id
    assert serving.wait_for_state(job) is JobState.SUCCEEDED
    told = [e.body.finding.code for e in serving.watch(job) if isinstance(e.body, Notice)]
    assert "evaluate.leaked" in told
    with safetrain.connect(str(serving.home.root), autostart=False) as client:
        assert client.job(job).evaluation is None
