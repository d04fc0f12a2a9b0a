"""What the routes of every station share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response

from safetrain.connection import Daemon
from safetrain.page.access import Keys
from safetrain.page.job_feed import JobFeed
from safetrain.page.render import Renderer, stream
from safetrain_shared.errors import SafetrainError


@dataclass(frozen=True)
class Site:
    """One dashboard."""

    feed: JobFeed
    keys: Keys
    render: Renderer

    async def call(self, method: Any, message: Any, **options: Any) -> Any:
        """Call a unary method of the daemon. Raises SafetrainError."""
        call: Any = self.daemon.call
        return await asyncio.to_thread(call, method, message, **options)

    def streamed(self, messages: AsyncIterator[str]) -> Response:
        """Return pieces as a stream, which ends with the sentence of the error that ended it."""

        async def guarded() -> AsyncIterator[str]:
            yield self.render.message("")
            try:
                async for text in messages:
                    yield text
            except SafetrainError as error:
                yield self.render.message(error)

        return stream(guarded())

    @property
    def daemon(self) -> Daemon:
        """The connection to the daemon."""
        return self.feed.daemon
