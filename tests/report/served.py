"""A daemon's face without a daemon: serves one made-up job and its story at a home's socket."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc

from safetrain_proto.v1 import (
    answers_pb2,
    answers_pb2_grpc,
    events_pb2,
    events_pb2_grpc,
    jobs_pb2,
    jobs_pb2_grpc,
)
from safetrain_shared.errors import NotFound
from safetrain_shared.events import Event
from safetrain_shared.jobs import Plan
from safetrain_shared.paths import Home, private, socket_target
from safetrain_shared.wire import (
    STATUS_DETAILS,
    error_to_wire,
    event_to_wire,
    plan_to_wire,
    settings_to_wire,
)
from tests.report import runs


def a_job(output: str, **changes: Any) -> jobs_pb2.Job:
    fields: dict[str, Any] = {
        "id": 3,
        "state": jobs_pb2.JOB_STATE_SUCCEEDED,
        "attempt": 2,
        "step": 636,
        "total_steps": 636,
        "created": runs.STARTED,
        "started": runs.STARTED + 7,
        "finished": runs.STARTED + 5400,
        "spec": jobs_pb2.JobSpec(
            model="mlx-community/Mistral-7B-Instruct-v0.3-4bit",
            train="/data/train.jsonl",
            valid="/data/valid.jsonl",
            output=output,
            name='leões <script>"&',
            settings=settings_to_wire({"learning_rate": 2e-4, "num_epochs": 3}),
            memory_budget=6 * runs.GB,
        ),
        "plan": plan_to_wire(a_plan()),
    }
    return jobs_pb2.Job(**{**fields, **changes})


def a_plan() -> Plan:
    return runs.plan(636, batch_size=1, gradient_accumulation=4, seed=7)


@contextmanager
def served(
    home: Home, job: jobs_pb2.Job, events: Sequence[Event], *others: jobs_pb2.Job
) -> Iterator[list[Any]]:
    """A server at the home's socket, until the block ends; gives the questions that it is asked.

    SampleQuestion `gone`, it refuses to answer.
    """
    private(home.root)
    server = grpc.server(ThreadPoolExecutor(4))
    asked: list[Any] = []
    jobs_pb2_grpc.add_JobsServicer_to_server(_Jobs(job, *others), server)
    events_pb2_grpc.add_EventsServicer_to_server(_Events(events), server)
    answers_pb2_grpc.add_AnswersServicer_to_server(_Answers(asked), server)
    before = os.umask(0o177)
    server.add_insecure_port(socket_target(home.socket))
    os.umask(before)
    server.start()
    try:
        yield asked
    finally:
        server.stop(None).wait()


class _Jobs(jobs_pb2_grpc.JobsServicer):
    def __init__(self, *jobs: jobs_pb2.Job) -> None:
        self.jobs = jobs

    def List(self, request: Any, context: Any) -> jobs_pb2.ListJobsResponse:  # noqa: N802
        waiting = jobs_pb2.Job(id=4, state=jobs_pb2.JOB_STATE_QUEUED, queue_position=1)
        return jobs_pb2.ListJobsResponse(jobs=[*self.jobs, waiting])

    def Get(self, request: Any, context: Any) -> jobs_pb2.Job:  # noqa: N802
        status = error_to_wire(NotFound("job.unknown", id=request.id))
        context.set_trailing_metadata([(STATUS_DETAILS, status.SerializeToString())])
        context.abort(grpc.StatusCode.NOT_FOUND, status.message)


class _Events(events_pb2_grpc.EventsServicer):
    def __init__(self, events: Sequence[Event]) -> None:
        self.events = events

    def Watch(self, request: Any, context: Any) -> Iterator[events_pb2.EventBatch]:  # noqa: N802
        assert not request.follow
        known = self.events if request.job_id == 3 else []
        for start in range(0, len(known), 256):
            part = known[start : start + 256]
            yield events_pb2.EventBatch(events=[event_to_wire(event) for event in part])


class _Answers(answers_pb2_grpc.AnswersServicer):
    def __init__(self, asked: list[Any]) -> None:
        self.asked = asked

    def Ask(self, request: Any, context: Any) -> Iterator[answers_pb2.AskEvent]:  # noqa: N802
        who = "base" if request.base else "adapter"
        question = request.messages[-1].content
        self.asked.append(request)
        if question == "gone":
            context.abort(grpc.StatusCode.UNAVAILABLE, "")
        yield answers_pb2.AskEvent(source=answers_pb2.AnswerSource(job_id=request.job_id))
        yield answers_pb2.AskEvent(text=f"The {who} says <b>\x1b[31m ")
        yield answers_pb2.AskEvent(text=f"to {question}\n\nFive.")
        yield answers_pb2.AskEvent(done=answers_pb2.AnswerDone(tokens=5))
