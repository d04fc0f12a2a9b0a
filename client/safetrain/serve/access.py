"""Who may ask: the holder of the bearer token, at a name that means this machine.

What it keeps out: other users of the machine and pages in a browser (the token; no CORS header is
ever sent, so that no page reads an answer), and names that are made to resolve to 127.0.0.1 (Host).
"""

from __future__ import annotations

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from safetrain.loopback import names, same
from safetrain.serve.api_errors import api_error
from safetrain_shared.errors import NotAllowed, SafetrainError

HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


class Guard:
    """Lets through what may pass, and adds `HEADERS` to every answer."""

    def __init__(self, app: ASGIApp, port: int, token: str) -> None:
        self._app = app
        self._names = names(port)
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return  # no websockets here: closed unanswered

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        refused = self._refusal(Headers(scope=scope))
        answer = refusal(refused) if refused else self._app
        await answer(scope, receive, send_guarded)

    def _refusal(self, headers: Headers) -> SafetrainError | None:
        if headers.get("host", "") not in self._names:
            return NotAllowed("serve.host", address=self._names[0])
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not same(token.strip(), self._token):
            return NotAllowed("serve.unauthorized")
        return None


def refusal(error: SafetrainError) -> Response:
    """Return an error as a response."""
    shown = api_error(error)
    return JSONResponse(shown.body, shown.status, shown.headers)
