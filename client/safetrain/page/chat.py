"""The conversation on a job's page: the page itself carries what was said; nothing is kept here."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from safetrain.page.daemon_stream import events
from safetrain.page.forms import checked, fields, job_id
from safetrain.page.render import piece
from safetrain.page.site import Site
from safetrain.views.answer import Answer
from safetrain_proto.v1.answers_pb2 import AskRequest, Message
from safetrain_proto.v1.answers_pb2_grpc import AnswersStub
from safetrain_shared.errors import InvalidInput, SafetrainError
from safetrain_shared.i18n import translate as _

QUESTION_CHARACTERS = 16_000
CONVERSATION_CHARACTERS = 64_000  # of questions and answers; no model here reads more
_BODY_BYTES = 16 * (QUESTION_CHARACTERS + CONVERSATION_CHARACTERS)  # a form has up to 16 for each
_ROLES = ("user", "assistant")
_numbers = itertools.count(1)  # of answers on the page, for their elements' ids


class Chat:
    """The routes of the conversation."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._render = site.render

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [Route("/jobs/{id}/ask", self.ask, methods=["POST"])]

    async def ask(self, request: Request) -> Response:
        """Ask a job's model, which is told what was said before, and stream the answer."""
        found = await fields(request, _BODY_BYTES)
        text = question(found.get("question", ""))
        turns = [*turns_of(found.get("said", "")), text]
        wanted = AskRequest(
            messages=[
                Message(role=_ROLES[number % 2], content=turn) for number, turn in enumerate(turns)
            ],
            job_id=job_id(request),
            base=checked(found, "base"),
        )
        return self._site.streamed(self._answered(turns, wanted))

    async def _answered(self, turns: list[str], wanted: AskRequest) -> AsyncIterator[str]:
        number, answer = next(_numbers), Answer()
        shown: dict[str, Any] = {"question": turns[-1], "number": number}
        yield self._render.piece("answers", "exchange.html", "beforeend", **shown)
        home = self._site.daemon.home
        try:
            async for event in events(home, lambda c: AnswersStub(c).Ask(wanted)):
                answer.take(event)
                yield self._render.answer(event, f"answer-{number}", f"state-{number}")
        except SafetrainError:
            yield piece(f"state-{number}", _("Not answered; this question is forgotten."))
            raise
        said = json.dumps([*turns, "".join(answer.parts)])
        yield self._render.piece("said", "said.html", said=said)


def question(text: str) -> str:
    """Return a question without blanks around it, its lines ended as they were written: a form ends
    them otherwise. Raises InvalidInput.
    """
    text = text.replace("\r\n", "\n").strip()
    if not text:
        raise InvalidInput("client.question_empty")
    if len(text) > QUESTION_CHARACTERS:
        raise InvalidInput("message.too_large", size=len(text), limit=QUESTION_CHARACTERS)
    return text


def turns_of(said: str) -> list[str]:
    """Return what the page carries as questions and answers in turn; [] for a new conversation.

    Raises InvalidInput for what is none, and for one that has become too long.
    """
    try:
        turns = json.loads(said or "[]")
    except (ValueError, RecursionError):
        turns = None
    if not isinstance(turns, list) or len(turns) % 2 or not all(isinstance(t, str) for t in turns):
        raise InvalidInput("request.malformed", reason="said")
    if sum(map(len, turns)) > CONVERSATION_CHARACTERS:
        raise InvalidInput("page.conversation_too_long", limit=CONVERSATION_CHARACTERS)
    return turns
