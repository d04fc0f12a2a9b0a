"""Streams of the daemon for the page, asynchronous: a tab that closes ends its call at once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

import grpc.aio

from safetrain.connection import error_of
from safetrain_shared.paths import Home, socket_target

_OPTIONS = [("grpc.enable_http_proxy", 0), ("grpc.max_receive_message_length", 64 << 20)]
Event = TypeVar("Event")


async def events(
    home: Home, call: Callable[[grpc.aio.Channel], grpc.aio.UnaryStreamCall[Any, Event]]
) -> AsyncIterator[Event]:
    """Yield the messages of a call. Closing the iterator cancels it. Raises SafetrainError."""
    async with grpc.aio.insecure_channel(socket_target(home.socket), options=_OPTIONS) as channel:
        stream = call(channel)
        try:
            async for event in stream:
                yield event
        except grpc.aio.AioRpcError as error:
            raise error_of(error, home) from None
        finally:
            stream.cancel()
