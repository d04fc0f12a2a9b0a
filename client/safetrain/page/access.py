"""Access control of the page: allowed host names, own origin, a secret cookie, a token per action.

Opening the address with the token sets a cookie; every other request needs that cookie, and one
that changes something needs the token of its own path too, which only our own pages hold. Excluded
are other pages in the same browser (Origin, Sec-Fetch-Site, SameSite, the actions' tokens), names
that resolve to 127.0.0.1 (Host), and other users of the machine (the secrets; the socket listens on
loopback). What is not covered: programs of the same user, which can talk to the daemon anyway, and
another user's server on 127.0.0.1 that this user opens: browsers send cookies to every port of a
host.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field

from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response

from safetrain.loopback import names, same
from safetrain_shared.i18n import translate as _

ACTION_HEADER = "X-Safetrain-Action"
_SAFE_METHODS = ("GET", "HEAD")
HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": (
        "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "object-src 'none'; require-trusted-types-for 'script'; trusted-types htmx"
    ),
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
# Not a redirect: after a link from another site it would not carry a SameSite=Strict cookie.
_ENTRY_PAGE = (
    '<!doctype html><meta charset="utf-8"><title>safetrain</title>'
    '<link rel="icon" href="/static/icon.svg">'
    '<meta http-equiv="refresh" content="0;url=/"><a href="/">safetrain</a>'
)


@dataclass
class Keys:
    """The secrets of one dashboard, new at each start.

    `token` opens the page any number of times. Each of `tickets` opens it once: the address on a
    browser's command line is visible to other users. `actions` is what the tokens of the actions
    are made of.
    """

    port: int
    token: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    cookie: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    actions: bytes = field(default_factory=lambda: secrets.token_bytes(32))
    tickets: set[str] = field(default_factory=set)

    @property
    def cookie_name(self) -> str:
        """The cookie's name, with the port: cookies are shared by all ports of a host."""
        return f"safetrain_{self.port}"

    @property
    def hosts(self) -> tuple[str, str]:
        """The allowed values of the Host header."""
        return names(self.port)

    def address(self, token: str = "") -> str:
        """Return the address that opens the page."""
        return f"http://{self.hosts[0]}/?token={token or self.token}"

    def ticket(self) -> str:
        """Return a new token for one use."""
        made = secrets.token_urlsafe(32)
        self.tickets.add(made)
        return made

    def opens(self, token: str) -> bool:
        """Whether the token is valid; a ticket becomes invalid."""
        if token in self.tickets:
            self.tickets.discard(token)
            return True
        return same(token, self.token)

    def action(self, path: str) -> str:
        """Return the token without which nothing is changed at `path`; it opens no other path."""
        return hmac.new(self.actions, path.encode(), hashlib.sha256).hexdigest()


def refusal(request: Request, keys: Keys) -> tuple[int, str] | None:
    """Return status and sentence of a refusal; None where the request is allowed.

    The token of the address is not checked here.
    """
    headers = request.headers
    host = headers.get("host", "")
    if host not in keys.hosts:
        return 403, _("This page answers only at {address}.").format(address=keys.hosts[0])
    origin = headers.get("origin")
    changes = request.method not in _SAFE_METHODS
    if (origin is not None and origin != f"http://{host}") or (origin is None and changes):
        return 403, _("This request came from another page.")
    if not same(request.cookies.get(keys.cookie_name, ""), keys.cookie):
        return 401, _("Open the page with the address that `safetrain dashboard` printed.")
    if headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
        return 403, _("This request came from another page.")
    action = keys.action(request.url.path)
    if changes and not same(headers.get(ACTION_HEADER, ""), action):
        return 403, _("This page is out of date. Load it again.")
    return None


def judge(request: Request, keys: Keys) -> Response | None:
    """Return the refusal, or the response that sets the cookie; None: pass the request on."""
    refused = refusal(request, keys)
    token = request.query_params.get("token", "")
    if token and request.url.path == "/" and request.headers.get("host") in keys.hosts:
        if keys.opens(token):
            return _entered(keys)
        return PlainTextResponse(_("This address has been used up or is of another run."), 401)
    return PlainTextResponse(refused[1], refused[0]) if refused else None


def _entered(keys: Keys) -> Response:
    response = HTMLResponse(_ENTRY_PAGE)
    response.set_cookie(keys.cookie_name, keys.cookie, httponly=True, samesite="strict", path="/")
    return response
