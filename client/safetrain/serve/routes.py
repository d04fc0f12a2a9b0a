"""The routes: the models, and chat completions in one piece or as a stream."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from contextlib import aclosing, asynccontextmanager
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Send

from safetrain.loopback import Guard
from safetrain.serve import completion_json
from safetrain.serve.access import HEADERS, Access, refusal
from safetrain.serve.answer_stream import Answers
from safetrain.serve.api_errors import api_error
from safetrain.serve.completion_json import Completion, event
from safetrain.serve.completion_request import CompletionRequest, parse_request
from safetrain.serve.served import Served
from safetrain.views.answer import Answer
from safetrain_proto.v1.answers_pb2 import AnswerSource, AskEvent
from safetrain_shared.errors import Broken, InvalidInput, NotFound, SafetrainError
from safetrain_shared.paths import Home

BODY_BYTES = 1 << 18
"""The largest request. Some 60,000 words: far more than a context holds."""

_READ_BYTES = 1 << 25  # of a larger one, read and dropped so that its sender hears the answer
T = TypeVar("T")


class Api:
    """The interface of one server."""

    def __init__(self, home: Home, served: Served) -> None:
        self._home = home
        self._served = served
        self._began = int(time.time())
        self._answers: Answers

    @asynccontextmanager
    async def running(self, _app: Starlette) -> AsyncIterator[None]:
        """Hold the channel to the daemon while the server runs."""
        self._answers = Answers(self._home)
        try:
            yield
        finally:
            await self._answers.close()

    async def models(self, _request: Request) -> Response:
        """Return the one model that is served, in a list."""
        found = completion_json.model(self._served, self._began)
        return JSONResponse({"object": "list", "data": [found]})

    async def model(self, request: Request) -> Response:
        """Return the model of that name. Raises NotFound."""
        self._check_served(request.path_params["name"])
        return JSONResponse(completion_json.model(self._served, self._began))

    async def complete(self, request: Request) -> Response:
        """Return the answer to a conversation. An error before its first word has its own status.

        A client that hangs up ends its question.
        """
        parsed = parse_request(await _body(request))
        self._check_served(parsed.model)
        events = self._answers.ask(self._served.address(parsed.ask))
        if not parsed.stream:
            answer = await _unless_gone(request, _whole(events))
            return JSONResponse(_begun(answer.source).whole("".join(answer.parts), answer.done))
        completion = _begun(await _unless_gone(request, _source(events)))
        return _Stream(_chunks(completion, events, parsed), media_type="text/event-stream")

    def _check_served(self, name: str) -> None:
        if name != self._served.id:
            model = name[:200]
            raise NotFound(
                "serve.model_unknown", field="model", model=model, served=self._served.id
            )


class _Stream(StreamingResponse):
    """A stream whose generator is closed with it, also where the client hangs up."""

    async def stream_response(self, send: Send) -> None:
        assert isinstance(self.body_iterator, AsyncGenerator)
        async with aclosing(self.body_iterator):
            await super().stream_response(send)


def application(home: Home, served: Served, port: int, token: str) -> Starlette:
    """Return the interface on a port, open to the holder of the token."""
    api = Api(home, served)
    routes = [
        Route("/v1/models", api.models),
        Route("/v1/models/{name:path}", api.model),
        Route("/v1/chat/completions", api.complete, methods=["POST"]),
    ]
    return Starlette(
        routes=routes,
        middleware=[Middleware(Guard, judge=Access(port, token), headers=HEADERS)],
        exception_handlers={
            SafetrainError: _refused,
            HTTPException: _no_route,
            ClientDisconnect: _gone,
            Exception: _broken,
        },
        lifespan=api.running,
    )


def _begun(source: AnswerSource) -> Completion:
    return Completion(f"chatcmpl-{secrets.token_hex(12)}", int(time.time()), source)


async def _whole(events: AsyncGenerator[AskEvent, None]) -> Answer:
    answer = Answer()
    async with aclosing(events):
        async for piece in events:
            answer.take(piece)
    return answer


async def _source(events: AsyncGenerator[AskEvent, None]) -> AnswerSource:
    """Return who answers, which is the first event."""
    return (await anext(events)).source


async def _chunks(
    completion: Completion,
    events: AsyncGenerator[AskEvent, None],
    parsed: CompletionRequest,
) -> AsyncGenerator[str, None]:
    """Yield an answer as server-sent events; an error in its midst is one, and the last."""
    async with aclosing(events):
        try:
            yield event(completion.first())
            async for piece in events:
                if piece.HasField("text"):
                    yield event(completion.piece(piece.text))
                elif piece.HasField("done"):
                    yield event(completion.last(piece.done))
                    if parsed.include_usage:
                        yield event(completion.used(piece.done))
            yield completion_json.END
        except SafetrainError as error:
            yield event(api_error(error).body)


async def _unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Return the result. Cancels the work, with ClientDisconnect, where the client hangs up."""
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(_hung_up(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        for one in (task, gone):
            one.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _hung_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _body(request: Request) -> bytes:
    """Return the body of a request. Raises InvalidInput where it is too large."""
    body, size = bytearray(), 0
    async for chunk in request.stream():
        size += len(chunk)
        if size <= BODY_BYTES:
            body += chunk
        elif size > _READ_BYTES:
            break
    if size > BODY_BYTES:
        raise InvalidInput("message.too_large", size=size, limit=BODY_BYTES)
    return bytes(body)


async def _refused(_request: Request, error: Exception) -> Response:
    assert isinstance(error, SafetrainError)
    return refusal(error)


async def _no_route(request: Request, error: Exception) -> Response:
    """Return the router's 404 or 405 in OpenAI's form."""
    assert isinstance(error, HTTPException)
    path = request.url.path[:200]
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        return refusal(InvalidInput("serve.method", path=path, allowed=allowed))
    return refusal(NotFound("serve.no_route", path=path))


async def _gone(_request: Request, _error: Exception) -> Response:
    """Return what nobody is there to read."""
    return Response(status_code=499)


async def _broken(_request: Request, error: Exception) -> Response:
    """Return the error for a defect of ours, without its text, which may quote the question."""
    return refusal(Broken("ask.failed", reason=type(error).__name__))
