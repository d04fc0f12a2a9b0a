"""`safetrain.v1.Answers`: routes a question to a worker and streams the answer; logs neither."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
from collections.abc import AsyncGenerator, AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

from safetrain_proto.v1 import answers_pb2, answers_pb2_grpc
from safetrain_shared.codec import from_plain, to_plain
from safetrain_shared.errors import Busy, error_from_dict
from safetrain_shared.jobs import DEFAULT_MODEL
from safetrain_shared.questions import DEFAULT_MAX_TOKENS, AnswerReply, Question
from safetrain_shared.settings import TrainingSettings
from safetrain_shared.wire import finding_to_wire
from safetraind.answer_routing import Candidate, Route, ServerRoute, route
from safetraind.controller.controller import Controller
from safetraind.models.registry import Models
from safetraind.preflight.job_preflight import located
from safetraind.processes.inference_server import InferenceServer
from safetraind.scheduler.state import FREE
from safetraind.service.adapter_choice import candidate
from safetraind.service.error_mapping import guarded
from safetraind.service.stream_limit import Streams
from safetraind.storage.bounded_read import bounded
from safetraind.worker_messages.serve_messages import ServeRequest

_LINE_BYTES = 4 << 20
_RETRY_SECONDS = 0.25
_TRIES = 3
KEEP_ALIVE_SECONDS = 300.0


class AnswersService(answers_pb2_grpc.AnswersServicer):
    """Handles each question over one connection to a worker's socket."""

    def __init__(
        self, controller: Controller, models: Models, server: InferenceServer, streams: Streams
    ) -> None:
        self._controller = controller
        self._models = models
        self._server = server
        self._streams = streams

    @guarded
    async def Ask(  # noqa: N802
        self, request: answers_pb2.AskRequest, context: Any
    ) -> AsyncIterator[answers_pb2.AskEvent]:
        """Stream the source, the pieces of text, and last the timings.

        A worker may end between being chosen and being asked; the question is then routed again.
        """
        with self._streams.one():
            async with contextlib.aclosing(self._with_retries(request)) as events:
                async for event in events:
                    yield event

    async def _with_retries(
        self, request: answers_pb2.AskRequest
    ) -> AsyncGenerator[answers_pb2.AskEvent, None]:
        for tries_left in reversed(range(_TRIES)):
            answered = False
            try:
                async with contextlib.aclosing(self._ask_once(request)) as events:
                    async for event in events:
                        answered = answered or not event.HasField("waiting")
                        yield event
                return
            except Busy as error:
                if answered or not tries_left or error.code != "ask.worker_ended":
                    raise
            await asyncio.sleep(_RETRY_SECONDS)

    async def _ask_once(
        self, request: answers_pb2.AskRequest
    ) -> AsyncGenerator[answers_pb2.AskEvent, None]:
        reported = ""
        while True:
            phase, chosen, socket = "loading", None, None
            try:
                chosen = await self._route(request)
                socket = await self._socket(chosen)
            except Busy as error:
                if not request.wait or error.code == "ask.worker_ended":
                    raise
                phase = "queue"
            if chosen is not None and socket is not None:
                break
            if phase != reported:
                reported = phase
                yield answers_pb2.AskEvent(waiting=phase)
            await asyncio.sleep(_RETRY_SECONDS)
        name = self._name(chosen, request)
        question = await self._question(chosen, request)
        async for reply in _conversation(socket, question):
            event = _to_wire(reply, chosen, name)
            if event is not None:
                yield event

    async def _route(self, request: answers_pb2.AskRequest) -> Route:
        choose = partial(
            route,
            self._candidates(),
            job_id=request.job_id,
            checkpoint=request.checkpoint,
            base=request.base,
            model=request.model,
        )
        # Bounded: it reads output folders, which may be in iCloud.
        chosen = await bounded(self._place(request.job_id), choose)
        if isinstance(chosen, ServerRoute) and self._controller.scheduler.lease != FREE:
            raise Busy("job.lease_busy")  # a job is about to start
        return chosen

    def _place(self, job_id: int) -> str:
        """Return the folder that is read to route a question, for an error where it hangs."""
        if not job_id:
            return str(self._controller.home.root)
        return self._controller.record(job_id).output

    def _candidates(self) -> list[Candidate]:
        return [candidate(self._controller, job_id) for job_id in self._controller.scheduler.jobs]

    async def _socket(self, chosen: Route) -> Path | None:
        """Return the worker's socket; None while the training worker does not listen yet."""
        if isinstance(chosen, ServerRoute):
            model = await self._model(chosen.model)
            return await self._server.socket(ServeRequest(model))
        path = self._controller.home.run(chosen.job_id).socket
        return path if path.exists() else None

    def _name(self, chosen: Route, request: answers_pb2.AskRequest) -> str:
        """Return the model's name as the user gave it."""
        if chosen.job_id:
            return self._controller.record(chosen.job_id).spec.model
        return request.model or DEFAULT_MODEL

    async def _model(self, name: str) -> str:
        """Return a model's folder, or the hub's id, which the worker downloads."""
        if name and Path(name).is_absolute():
            return name

        def resolved() -> str:
            source = self._models.resolve(name or DEFAULT_MODEL)
            return str(located(source) or source.path)

        return await bounded(name, resolved)

    async def _question(self, chosen: Route, request: answers_pb2.AskRequest) -> Question:
        question = Question(
            messages=tuple({"role": m.role, "content": m.content} for m in request.messages),
            max_tokens=request.max_tokens or DEFAULT_MAX_TOKENS,
            temperature=request.temperature,
            top_p=request.top_p,
            seed=request.seed if request.HasField("seed") else None,
            base=request.base,
            thinking=self._thinking(chosen.job_id),
            stop=tuple(request.stop),
        )
        if not isinstance(chosen, ServerRoute):
            return question
        given = request.HasField("keep_alive_seconds")
        keep_alive = request.keep_alive_seconds if given else KEEP_ALIVE_SECONDS
        return dataclasses.replace(
            question, keep_alive=keep_alive, **await self._for_server(chosen)
        )

    def _thinking(self, job_id: int) -> str:
        """Return the job's setting of that name. Base and adapter are asked alike by it."""
        if not job_id:
            return TrainingSettings().thinking
        return self._controller.record(job_id).spec.complete_settings.thinking

    async def _for_server(self, chosen: ServerRoute) -> dict[str, Any]:
        """Return the fields of a question that only the inference server needs."""
        trusted = chosen.job_id and self._controller.record(chosen.job_id).spec.trust_remote_code
        return {
            "model": await self._model(chosen.model),
            "adapter": str(chosen.adapter or ""),
            "base": chosen.adapter is None,
            "trust_remote_code": bool(trusted),
        }


async def _conversation(socket: Path, question: Question) -> AsyncIterator[AnswerReply]:
    """Yield the worker's replies. Raises the worker's error; Busy where the worker ended."""
    try:
        reader, writer = await asyncio.open_unix_connection(str(socket), limit=_LINE_BYTES)
    except OSError as error:
        raise Busy("ask.worker_ended") from error
    try:
        writer.write(json.dumps(to_plain(question)).encode() + b"\n")
        await writer.drain()
        while line := await reader.readline():
            reply = from_plain(json.loads(line), AnswerReply)
            if reply.error is not None:
                raise error_from_dict(reply.error)
            yield reply
            if reply.done is not None:
                return
    except OSError as error:
        raise Busy("ask.worker_ended") from error
    finally:
        writer.close()
    raise Busy("ask.worker_ended")


def _to_wire(reply: AnswerReply, chosen: Route, name: str) -> answers_pb2.AskEvent | None:
    if reply.waiting is not None:
        return answers_pb2.AskEvent(waiting=reply.waiting)
    if reply.text is not None:
        return answers_pb2.AskEvent(text=reply.text)
    if reply.done is not None:
        return answers_pb2.AskEvent(done=answers_pb2.AnswerDone(**to_plain(reply.done)))
    if reply.source is None:
        return None
    named = dataclasses.replace(reply.source, model=name)
    source = answers_pb2.AnswerSource(job_id=chosen.job_id, **to_plain(named))
    if isinstance(chosen, ServerRoute) and chosen.note is not None:
        source.note.CopyFrom(finding_to_wire(chosen.note))
    return answers_pb2.AskEvent(source=source)
