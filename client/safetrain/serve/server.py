"""Serves chat completions on loopback until Ctrl-C, to who holds the token."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass

from safetrain.loopback import listening, names, run
from safetrain.serve.routes import application
from safetrain.serve.served import Served
from safetrain_shared.errors import InvalidInput
from safetrain_shared.paths import Home

PORT = 8378
TOKEN_VARIABLE = "SAFETRAIN_SERVE_TOKEN"
_LEAST_CHARACTERS = 16


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server answers. `token`: one that was made for it; None: that of the environment."""

    port: int
    token: str | None
    model: str

    @property
    def base_url(self) -> str:
        """The address that programs call the base URL."""
        return f"http://{names(self.port)[0]}/v1"


def serve(home: Home, served: Served, port: int, *, on_ready: Callable[[Address], None]) -> None:
    """Serve until Ctrl-C or SIGTERM; `on_ready` is called with the address once it answers.

    `port` 0: any free one. Raises Busy, NotAllowed, InvalidInput.
    """
    given = token_from_environment()
    token = given or secrets.token_urlsafe(32)
    listener = listening(port)
    port = listener.getsockname()[1]
    address = Address(port, None if given else token, served.id)
    run(application(home, served, port, token), listener, lambda: on_ready(address))


def token_from_environment() -> str | None:
    """Return the token that the user has set, None without one.

    Raises InvalidInput for one that is easily guessed.
    """
    token = os.environ.get(TOKEN_VARIABLE)
    if token is None:
        return None
    if len(token) < _LEAST_CHARACTERS or not token.isascii() or not token.isprintable():
        raise InvalidInput("serve.token", variable=TOKEN_VARIABLE, least=_LEAST_CHARACTERS)
    return token
