"""The application of one dashboard: the routes of its stations, behind the guard."""

from __future__ import annotations

from pathlib import Path

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from safetrain.loopback import Guard
from safetrain.page.access import HEADERS, Keys, judge
from safetrain.page.after import After
from safetrain.page.begin import Begin
from safetrain.page.chat import Chat
from safetrain.page.forms import fields
from safetrain.page.job_feed import JobFeed
from safetrain.page.jobs import Jobs
from safetrain.page.render import InLanguage, Renderer, language_cookie
from safetrain.page.site import Site
from safetrain_shared.errors import NotFound, SafetrainError
from safetrain_shared.i18n import LANGUAGES

STATIC = Path(__file__).parent / "static"
_YEAR = 365 * 24 * 3600


def application(feed: JobFeed, keys: Keys) -> Starlette:
    """Return the ASGI application of one feed, protected by `keys`."""
    site = Site(feed, keys, Renderer(keys))

    async def refused(request: Request, error: Exception) -> Response:
        """Return an error as a page, or as the piece of one for a request of our own scripts."""
        status = 404 if isinstance(error, NotFound) else 400
        if "hx-request" in request.headers:
            return HTMLResponse(site.render.message(str(error)), status)
        return site.render.page("error.html", status, text=str(error))

    routes = [
        _language_choice(keys),
        *After(site).routes(),
        *Begin(site).routes(),
        *Chat(site).routes(),
        *Jobs(site).routes(),
        Mount("/static", StaticFiles(directory=STATIC)),
    ]
    middleware = [
        Middleware(InLanguage, keys=keys),
        Middleware(Guard, judge=lambda request: judge(request, keys), headers=HEADERS),
    ]
    return Starlette(
        routes=routes, middleware=middleware, exception_handlers={SafetrainError: refused}
    )


def _language_choice(keys: Keys) -> Route:
    async def speak(request: Request) -> Response:
        """Keep the chosen language in a cookie and load the page again."""
        chosen = (await fields(request)).get("lang", "")
        response = Response(headers={"HX-Refresh": "true"})
        if chosen in LANGUAGES:
            name = language_cookie(keys)
            response.set_cookie(name, chosen, httponly=True, samesite="strict", max_age=_YEAR)
        return response

    return Route("/language", speak, methods=["POST"])
