"""Who may ask: the holder of the bearer token, at a name that means this machine.

What it keeps out: other users of the machine and pages in a browser (the token; no CORS header is
ever sent, so that no page reads an answer), and names that are made to resolve to 127.0.0.1 (Host).
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from safetrain.loopback import names, same
from safetrain.serve.api_errors import api_error
from safetrain_shared.errors import NotAllowed, SafetrainError

HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


class Access:
    """Judges the requests to one server, for `loopback.Guard`."""

    def __init__(self, port: int, token: str) -> None:
        self._names = names(port)
        self._token = token

    def __call__(self, request: Request) -> Response | None:
        """Return the refusal; None for a request that may pass."""
        headers = request.headers
        if headers.get("host", "") not in self._names:
            return refusal(NotAllowed("serve.host", address=self._names[0]))
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not same(token.strip(), self._token):
            return refusal(NotAllowed("serve.unauthorized"))
        return None


def refusal(error: SafetrainError) -> Response:
    """Return an error as a response."""
    shown = api_error(error)
    return JSONResponse(shown.body, shown.status, shown.headers)
