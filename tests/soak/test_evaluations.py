"""Random kills and stops while a job evaluates: the same answers, the same verdict."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from safetrain_proto.v1 import evaluations_pb2, evaluations_pb2_grpc
from safetrain_shared.jobs import FINAL, JobSpec, JobState
from tests.evaluation.test_evaluation_jobs import SETTINGS, answered, questions
from tests.harness import DaemonProcess, wait_for
from tests.soak.left_over import left_over
from tests.soak.strikes import strike
from tests.tiny import make_chat_data, make_tiny_model

KILLS = max(1, int(os.environ.get("KILLS") or "20") // 5)
SEED = int(os.environ.get("SOAK_SEED") or time.time())
QUESTIONS = 120
STRIKES = [
    ("worker", signal.SIGKILL),
    ("keeper", signal.SIGKILL),
    ("daemon", signal.SIGKILL),
    ("daemon", signal.SIGSTOP),
]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60 * KILLS + 300)]


def test_random_kills_change_no_answer_and_no_verdict(
    daemon: DaemonProcess, tmp_path: Path
) -> None:
    rng, done = random.Random(SEED), Counter[str]()
    make_tiny_model(tmp_path / "model", layers=2)
    make_chat_data(tmp_path, train=12, valid=4)
    asked = questions(tmp_path / "questions.jsonl", QUESTIONS)
    files = [str(tmp_path / f"{name}.jsonl") for name in ("train", "valid")]
    output = tmp_path / "out"
    spec = JobSpec(str(tmp_path / "model"), *files, str(output), settings=SETTINGS)
    trained = daemon.submit(spec).job.id
    daemon.wait_for_state(trained, JobState.SUCCEEDED)

    calm = result(daemon, begun(daemon, trained, asked))
    assert len(calm["answers"]) == QUESTIONS
    runs = 0
    while done.total() < KILLS and runs < 4 * KILLS:
        runs += 1
        job = begun(daemon, trained, asked)
        disturb(daemon, job, KILLS - done.total(), rng, done)
        assert result(daemon, job) == calm
    print(f"\n{runs} evaluations of {QUESTIONS} questions, SOAK_SEED={SEED}: {dict(done)}")
    assert done.total() == KILLS
    daemon.terminate()
    assert left_over(daemon, output) == []
    daemon.start()


def begun(daemon: DaemonProcess, trained: int, asked: Path) -> int:
    """Queue an evaluation of a job; return its own job's number."""
    request = evaluations_pb2.EvaluateRequest(job_id=trained, questions=str(asked), max_tokens=60)
    stream = evaluations_pb2_grpc.EvaluationsStub(daemon.channel).Run(request, timeout=120)
    number = next(iter(stream)).progress.job_id
    stream.cancel()
    return int(number)


def disturb(
    daemon: DaemonProcess, job: int, most: int, rng: random.Random, done: Counter[str]
) -> None:
    """Strike at most so often, each time once it has answered something since."""
    seen = 0

    def goes_on() -> bool:
        return len(answered(daemon, job)) > seen or daemon.state(job) in FINAL

    for _ in range(most):
        wait_for(goes_on, 120, "the evaluation goes on")
        time.sleep(rng.uniform(0.0, 0.3))  # the moment itself is what is tried
        if daemon.state(job) in FINAL:
            return
        seen = len(answered(daemon, job))
        whom, number = rng.choice(STRIKES)
        struck = strike(daemon, whom, number, rng)
        if struck is not None:
            done[struck] += 1


def result(daemon: DaemonProcess, job: int) -> dict[str, Any]:
    """The answers and the verdict of an evaluation that has succeeded."""
    daemon.wait_for_state(job, JobState.SUCCEEDED, seconds=300)
    whole = json.loads(Path(daemon.job(job).evaluation.path).read_text(encoding="utf-8"))
    return {name: whole[name] for name in ("answers", "verdict")}
