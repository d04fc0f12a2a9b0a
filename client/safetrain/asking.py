"""Asks a question and goes on with its answer where the link to another machine broke."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

from safetrain.connection import Daemon, connection_lost
from safetrain_proto.v1.answers_pb2 import AnswerSource, AskEvent, AskRequest
from safetrain_shared.errors import SafetrainError

_ATTEMPTS_WITHOUT_PROGRESS = 5


def ask(daemon: Daemon, request: AskRequest, *, seconds: float | None = None) -> Iterator[AskEvent]:
    """Yield the events of one answer, each piece of its text once.

    On another machine the question is asked anew after a lost connection, and what came already is
    left out. Where the new answer differs, because the weights in training have moved on, `source`
    comes a second time: the answer begins anew. `seconds`: the deadline of each attempt. Raises
    SafetrainError.
    """
    if not daemon.host:
        yield from daemon.stream(daemon.answers.Ask, request, seconds=seconds)
        return
    repeatable, told, attempts = _repeatable(request), "", 0
    while True:
        again = _Repeated(told)
        try:
            for event in daemon.stream(daemon.answers.Ask, repeatable, seconds=seconds):
                yield from again.take(event)
            return
        except SafetrainError as error:
            attempts = 0 if len(again.told) > len(told) else attempts + 1
            if not connection_lost(error) or attempts > _ATTEMPTS_WITHOUT_PROGRESS:
                raise
            told = again.told
            daemon.recover(error)


class _Repeated:
    """An answer of which the beginning, `told`, has come already."""

    def __init__(self, told: str) -> None:
        self.told = told
        self._text = ""
        self._source: AskEvent | None = None

    def take(self, event: AskEvent) -> Iterator[AskEvent]:
        """Yield what of an event is new."""
        kind = event.WhichOneof("body")
        if kind == "source":
            self._source = event
            if not self.told:
                yield event
        elif kind == "text":
            self._text += event.text
            yield from self._new()
        elif kind == "done":
            if self._text != self.told:  # shorter than before
                yield from self._anew()
            yield event
        elif not self.told:
            yield event

    def _new(self) -> Iterator[AskEvent]:
        if self._text.startswith(self.told):
            fresh, self.told = self._text[len(self.told) :], self._text
            if fresh:
                yield AskEvent(text=fresh)
        elif not self.told.startswith(self._text):
            yield from self._anew()

    def _anew(self) -> Iterator[AskEvent]:
        yield self._source or AskEvent(source=AnswerSource())
        self.told = self._text
        if self._text:
            yield AskEvent(text=self._text)


def _repeatable(request: AskRequest) -> AskRequest:
    """Return the request with a seed where its answer is drawn: asked twice, it is the same."""
    found = AskRequest()
    found.CopyFrom(request)
    if request.temperature and not request.HasField("seed"):
        found.seed = secrets.randbits(31)
    return found
