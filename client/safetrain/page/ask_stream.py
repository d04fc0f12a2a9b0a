"""Forwards a question from the page to the daemon and streams the answer. Nothing is logged.

Asynchronous, unlike the rest of the client: closing a tab must cancel its question at once.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc.aio

from safetrain.connection import error_of
from safetrain.views.answer import numbers, source
from safetrain.views.labels import PHASES, word
from safetrain_proto.v1.answers_pb2 import AskEvent, AskRequest, Message
from safetrain_proto.v1.answers_pb2_grpc import AnswersStub
from safetrain_shared.errors import InvalidInput
from safetrain_shared.i18n import translate as _
from safetrain_shared.i18n import using
from safetrain_shared.paths import Home, socket_target
from safetrain_shared.printable import printable

QUESTION_CHARACTERS = 16_000


def request_from(data: Any) -> AskRequest:
    """Return the request for the page's JSON. Raises InvalidInput."""
    if not isinstance(data, dict) or not isinstance(data.get("question"), str):
        raise InvalidInput("client.question_empty")
    question = data["question"].strip()
    if not question:
        raise InvalidInput("client.question_empty")
    if len(question) > QUESTION_CHARACTERS:
        raise InvalidInput("message.too_large", size=len(question), limit=QUESTION_CHARACTERS)
    job = data.get("job")
    return AskRequest(
        messages=[Message(role="user", content=question)],
        job_id=job if isinstance(job, int) and 0 < job < 1 << 63 else 0,
        base=data.get("base") is True,
    )


async def answer_pieces(
    home: Home, request: AskRequest, lang: str
) -> AsyncIterator[dict[str, str]]:
    """Yield the answer in pieces: `waiting`, `source`, `text`, `done` or `error`, each a text."""
    async with grpc.aio.insecure_channel(
        socket_target(home.socket), options=[("grpc.enable_http_proxy", 0)]
    ) as channel:
        call = AnswersStub(channel).Ask(request)
        try:
            async for event in call:
                with using(lang):
                    piece = _piece(event)
                yield piece
        except grpc.aio.AioRpcError as error:
            yield {"error": error_of(error, home).sentence(lang)}
        finally:
            call.cancel()


def _piece(event: AskEvent) -> dict[str, str]:
    match event.WhichOneof("body"):
        case "waiting":
            return {"waiting": word(PHASES, event.waiting)}
        case "source":
            return {"source": " ".join(line.strip("[]") for line in source(event.source))}
        case "text":
            return {"text": printable(event.text)}
        case "done":
            cut, event.done.cut = event.done.cut, False
            text = numbers(event.done).strip("[]")
            return {"done": text + (" · " + _("cut at its longest") if cut else "")}
    return {}
