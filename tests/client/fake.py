"""A scripted daemon: the services with given answers, on a real socket, for the client's tests.

It keeps the requests it was given. What the real daemon does is tested elsewhere.
"""

# ruff: noqa: N802 (the services name their methods)
from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import grpc

from safetrain_proto.v1 import (
    answers_pb2,
    answers_pb2_grpc,
    data_pb2,
    data_pb2_grpc,
    events_pb2,
    events_pb2_grpc,
    jobs_pb2,
    jobs_pb2_grpc,
    models_pb2,
    models_pb2_grpc,
    preflight_pb2,
    preflight_pb2_grpc,
)
from safetrain_shared.errors import NotFound, SafetrainError
from safetrain_shared.paths import Home, private, socket_target
from safetrain_shared.wire import STATUS_DETAILS, error_to_wire


class FakeDaemon(
    jobs_pb2_grpc.JobsServicer,
    events_pb2_grpc.EventsServicer,
    preflight_pb2_grpc.PreflightServicer,
    answers_pb2_grpc.AnswersServicer,
    data_pb2_grpc.DataServicer,
    models_pb2_grpc.ModelsServicer,
):
    """Answers from its attributes. `error`, where set, is raised by every call.

    `Watch` delivers `events`, then stays until `ended` is set, and delivers what was added.
    """

    def __init__(self, home: Home) -> None:
        self.home = home
        self.requests: list[Any] = []
        self.error: SafetrainError | None = None
        self.jobs: list[jobs_pb2.Job] = []
        self.events: list[events_pb2.Event] = []
        self.sheet: list[preflight_pb2.PreflightEvent] = []
        self.answer: list[answers_pb2.AskEvent] = []
        self.hold_answer: threading.Event | None = None  # an answer ends once it is set
        self.problems: list[data_pb2.ValidateEvent] = []
        self.prepared: list[data_pb2.PrepareEvent] = []
        self.preview = data_pb2.PreviewResponse()
        self.submitted = jobs_pb2.SubmitResponse()
        self.kept: list[str] = []
        self.models: list[models_pb2.Model] = []
        self.suggested = models_pb2.SuggestModelsResponse()
        self.ended = threading.Event()
        self.watching = threading.Event()
        self._server: grpc.Server | None = None

    def start(self) -> None:
        """Serves at the home's socket."""
        private(self.home.root)
        self.home.socket.unlink(missing_ok=True)
        self._server = grpc.server(futures.ThreadPoolExecutor(8))
        for add in (
            jobs_pb2_grpc.add_JobsServicer_to_server,
            events_pb2_grpc.add_EventsServicer_to_server,
            preflight_pb2_grpc.add_PreflightServicer_to_server,
            answers_pb2_grpc.add_AnswersServicer_to_server,
            data_pb2_grpc.add_DataServicer_to_server,
            models_pb2_grpc.add_ModelsServicer_to_server,
        ):
            add(self, self._server)
        before = os.umask(0o177)
        self._server.add_insecure_port(socket_target(self.home.socket))
        os.umask(before)
        self._server.start()

    def stop(self) -> None:
        """Stop at once, as a killed daemon does."""
        if self._server is not None:
            self._server.stop(None).wait()
        self._server = None

    def Submit(self, request: Any, context: Any) -> Any:
        self._note(request, context)
        return self.submitted

    def Get(self, request: Any, context: Any) -> Any:
        self._note(request, context)
        return self._job(request.id, context)

    def List(self, request: Any, context: Any) -> Any:
        self._note(request, context)
        if isinstance(request, models_pb2.ListModelsRequest):
            return models_pb2.ListModelsResponse(models=self.models)
        return jobs_pb2.ListJobsResponse(jobs=self.jobs)

    def Pause(self, request: Any, context: Any) -> Any:
        self._note(request, context)
        return self._job(request.id, context)

    Resume = Cancel = Retry = Move = Pause

    def Remove(self, request: Any, context: Any) -> Any:
        self._note(request, context)
        if isinstance(request, models_pb2.RemoveModelRequest):
            return models_pb2.RemoveModelResponse()
        return jobs_pb2.RemoveJobResponse(kept=self.kept)

    def Watch(self, request: Any, context: Any) -> Iterator[Any]:
        self._note(request, context)
        sent, last = 0, False
        while not last:
            last = self.ended.is_set()
            new, sent = self.events[sent:], len(self.events)
            fresh = [e for e in new if e.seq == 0 or e.seq > request.after_seq]
            if fresh:
                yield events_pb2.EventBatch(events=fresh, up_to_date=True)
            self.watching.set()
            self.ended.wait(0.01)
            if not context.is_active():
                return

    def Run(self, request: Any, context: Any) -> Iterator[Any]:
        self._note(request, context)
        yield from self.sheet

    def Ask(self, request: Any, context: Any) -> Iterator[Any]:
        self._note(request, context)
        yield from self.answer
        if self.hold_answer is not None:
            self.hold_answer.wait(60)

    def Suggest(self, request: Any, context: Any) -> Any:
        self._note(request, context)
        return self.suggested

    def Validate(self, request: Any, context: Any) -> Iterator[Any]:
        self._note(request, context)
        yield from self.problems

    def Prepare(self, request: Any, context: Any) -> Iterator[Any]:
        self._note(request, context)
        yield from self.prepared

    def Preview(self, request: Any, context: Any) -> Any:
        self._note(request, context)
        return self.preview

    def Add(self, request: Any, context: Any) -> Iterator[Any]:
        self._note(request, context)
        for model in self.models:
            yield models_pb2.AddModelEvent(model=model)

    def _job(self, wanted: int, context: Any) -> jobs_pb2.Job:
        for job in self.jobs:
            if job.id == wanted:
                return job
        self._refuse(NotFound("job.unknown", id=wanted), context)
        raise AssertionError("abort raises")

    def _note(self, request: Any, context: Any) -> None:
        self.requests.append(request)
        if self.error is not None:
            self._refuse(self.error, context)

    def _refuse(self, error: SafetrainError, context: Any) -> Any:
        status = error_to_wire(error)
        context.set_trailing_metadata([(STATUS_DETAILS, status.SerializeToString())])
        context.abort(getattr(grpc.StatusCode, error.grpc_status), status.message)
