"""A question's way to the daemon, in turn with the others, and its answer's way back.

Nothing is logged. A generator that is closed ends its question at once, waiting or answered.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import grpc.aio

from safetrain.connection import CHANNEL_OPTIONS, error_of
from safetrain_proto.v1.answers_pb2 import AskEvent, AskRequest
from safetrain_proto.v1.answers_pb2_grpc import AnswersStub
from safetrain_shared.errors import Busy
from safetrain_shared.paths import Home, socket_target

AT_ONCE = 2
"""Questions that the daemon has at a time: one is answered, one is ready.

The others wait here, so that `safetrain ask` and the page wait for two of them and not for all.
"""

MOST_WAITING = 64
"""Questions that wait here; one more is told to come back later."""


class Line:
    """First come, first served: at most `at_once` go in, and at most `waiting` stand outside."""

    def __init__(self, at_once: int = AT_ONCE, waiting: int = MOST_WAITING) -> None:
        self._inside = asyncio.Semaphore(at_once)  # wakes those that wait in their order
        self._limit = waiting
        self._waiting = 0

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a turn, and keep it for the block. Raises Busy where too many wait."""
        if self._waiting >= self._limit:
            raise Busy("serve.full", count=self._waiting)
        self._waiting += 1
        try:
            await self._inside.acquire()
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._inside.release()


class Answers:
    """The daemon of a home, asked over one channel. Made and used inside a running event loop."""

    def __init__(self, home: Home, line: Line | None = None) -> None:
        self._home = home
        self._line = line or Line()
        self._channel = grpc.aio.insecure_channel(
            socket_target(home.socket), options=CHANNEL_OPTIONS
        )
        self._stub = AnswersStub(self._channel)

    async def close(self) -> None:
        """Close the channel, and end the questions on it."""
        await self._channel.close(None)

    async def ask(self, request: AskRequest) -> AsyncGenerator[AskEvent, None]:
        """Yield the source, the pieces of text, and last the numbers. Raises SafetrainError.

        Busy where the GPU is not to be had, and where the worker had to leave in mid-answer.
        """
        async with self._line.turn():
            call = self._stub.Ask(request)
            try:
                async for event in call:
                    if event.HasField("done") and event.done.interrupted:
                        raise Busy("serve.interrupted")
                    if not event.HasField("waiting"):
                        yield event
            except grpc.aio.AioRpcError as error:
                raise error_of(error, self._home) from None
            finally:
                call.cancel()
