"""HTTP servers for this machine alone: a socket on loopback, a guard, uvicorn, secrets."""

from __future__ import annotations

import asyncio
import errno
import secrets
import socket
from collections.abc import Callable, Mapping

import uvicorn
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from safetrain_shared.errors import Busy, NotAllowed

HOST = "127.0.0.1"
_GRACE_SECONDS = 1  # for answers in progress at the end; a stream that has no end is cut


def names(port: int) -> tuple[str, str]:
    """Return the values of a request's Host header that mean this machine.

    Any other is the name of a site that was made to resolve to 127.0.0.1 (DNS rebinding).
    """
    return f"{HOST}:{port}", f"localhost:{port}"


def same(given: str, secret: str) -> bool:
    """Whether two secrets are equal, in a time that does not depend on where they differ."""
    return secrets.compare_digest(given.encode(errors="replace"), secret.encode())


class Guard:
    """ASGI middleware: `judge` answers in place of the application, or returns None to pass a
    request on; `headers` are added to every response.
    """

    def __init__(
        self,
        app: ASGIApp,
        judge: Callable[[Request], ASGIApp | None],
        headers: Mapping[str, str],
    ) -> None:
        self._app = app
        self._judge = judge
        self._headers = headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return  # websockets are not served: closed unanswered

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(self._headers)
            await send(message)

        answer = self._judge(Request(scope)) or self._app
        await answer(scope, receive, send_guarded)


def listening(port: int) -> socket.socket:
    """Return a socket that listens on loopback only; `port` 0: any free one.

    Raises Busy, NotAllowed.
    """
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise Busy("client.port_taken", port=port) from None
        raise NotAllowed("client.port_refused", port=port, reason=error.strerror) from None
    listener.listen()
    return listener


def run(application: ASGIApp, listener: socket.socket, started: Callable[[], None]) -> None:
    """Serve until Ctrl-C or SIGTERM, and log nothing. `started` is called once it answers."""
    server = uvicorn.Server(
        uvicorn.Config(
            application,
            access_log=False,
            log_level="critical",
            server_header=False,
            http="h11",
            loop="asyncio",
            ws="none",
            timeout_graceful_shutdown=_GRACE_SECONDS,
        )
    )

    async def main() -> None:
        serving = asyncio.ensure_future(server.serve(sockets=[listener]))
        while not server.started and not serving.done():
            await asyncio.sleep(0.01)
        started()
        await serving

    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        pass  # the way to end it
