"""The routes of the live page: the page, static files, the live stream, questions."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import (
    FileResponse,
    HTMLResponse,
    JSONResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from safetrain.int64 import MOST
from safetrain.loopback import Guard
from safetrain.page import page_json
from safetrain.page.access import HEADERS, Keys, judge
from safetrain.page.ask_stream import answer_pieces, request_from
from safetrain.page.begin import Begin
from safetrain.page.data_preview import preview_of_job
from safetrain.page.forms import fields
from safetrain.page.job_feed import JobFeed, compact
from safetrain.page.render import InLanguage, Renderer, language_cookie
from safetrain.page.site import Site
from safetrain.page.texts import words
from safetrain_proto.v1.jobs_pb2 import JobRequest
from safetrain_shared.errors import InvalidInput, NotFound, SafetrainError
from safetrain_shared.history import History
from safetrain_shared.i18n import LANGUAGES, language, using

STATIC = Path(__file__).parent / "static"
_YEAR = 365 * 24 * 3600
TICK_SECONDS = 0.25  # between two checks for changes
_KEEP_ALIVE_TICKS = 60  # without changes, before a comment is sent to keep the stream open
_BODY_BYTES = 1 << 17


def application(feed: JobFeed, keys: Keys) -> Starlette:
    """Return the ASGI application of one feed, protected by `keys`."""

    async def page(_request: Request) -> Response:
        return FileResponse(STATIC / "index.html")

    async def live(request: Request) -> Response:
        wanted = request.query_params.get("job", "")
        tab = Tab(feed, _lang(request), int(wanted) if wanted.isdecimal() else 0)
        return StreamingResponse(_stream(tab), media_type="text/event-stream")

    async def ask(request: Request) -> Response:
        lang = _lang(request)
        try:
            question = request_from(await _json(request))
        except SafetrainError as error:
            return JSONResponse({"error": error.sentence(lang)}, 400)
        pieces = answer_pieces(feed.daemon.home, question, lang)
        lines = (compact(piece) + "\n" async for piece in pieces)
        return StreamingResponse(lines, media_type="application/x-ndjson")

    async def retry(request: Request) -> Response:
        lang = _lang(request)
        try:
            job = JobRequest(id=_job_of(await _json(request)))
            await asyncio.to_thread(feed.daemon.call, feed.daemon.jobs.Retry, job)
        except SafetrainError as error:
            return JSONResponse({"error": error.sentence(lang)}, 400)
        return JSONResponse({})

    async def preview(request: Request) -> Response:
        lang = _lang(request)
        try:
            number = _job_of(await _json(request))
            found = await asyncio.to_thread(preview_of_job, feed.daemon, number)
        except SafetrainError as error:
            return JSONResponse({"error": error.sentence(lang)}, 400)
        with using(lang):
            return JSONResponse(page_json.preview(found))

    site = Site(feed, keys, Renderer(keys))

    async def refused(_request: Request, error: Exception) -> Response:
        return HTMLResponse(site.render.message(str(error)), 400)

    routes = [
        Route("/", page),
        _language_choice(keys),
        *Begin(site).routes(),
        Route("/api/live", live),
        Route("/api/ask", ask, methods=["POST"]),
        Route("/api/retry", retry, methods=["POST"]),
        Route("/api/preview", preview, methods=["POST"]),
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


class Tab:
    """One browser tab: its language, its job, and what was last sent to it."""

    def __init__(self, feed: JobFeed, lang: str, wanted: int) -> None:
        self._feed = feed
        self._lang = lang
        self._wanted = wanted
        self._sent: dict[str, str] = {}

    def changes(self) -> Iterator[tuple[str, str]]:
        """Yield (event name, JSON) of everything that changed since it was last sent."""
        with using(self._lang):
            current = list(self._current())
        for name, text in current:
            if self._sent.get(name) != text:
                self._sent[name] = text
                yield name, text

    def _current(self) -> Iterator[tuple[str, str]]:
        feed = self._feed
        yield "words", compact(words())
        trouble = feed.trouble
        yield "link", compact({"trouble": str(trouble) if trouble else ""})
        jobs = feed.latest()
        if jobs is None:
            return
        chosen = page_json.pick(jobs, self._wanted)
        if chosen is None:
            yield "overview", compact(page_json.overview(jobs, None, History(), feed.info))
            return
        watch = feed.watch(chosen)
        with watch.lock:
            overview = page_json.overview(jobs, chosen, watch.history, feed.info)
            log = page_json.log(watch.log)
        yield "overview", compact(overview)
        yield "log", compact(log)
        yield "curves", watch.curves()


async def _stream(tab: Tab) -> AsyncIterator[str]:
    """Yield server-sent events: https://html.spec.whatwg.org/multipage/server-sent-events.html."""
    yield "retry: 1000\n\n"
    silent = 0
    while True:
        silent += 1
        for name, text in tab.changes():
            silent = 0
            yield f"event: {name}\ndata: {text}\n\n"
        if silent >= _KEEP_ALIVE_TICKS:
            silent = 0
            yield ": here\n\n"
        await asyncio.sleep(TICK_SECONDS)


def _lang(request: Request) -> str:
    wanted = request.query_params.get("lang", "")
    return wanted if wanted in LANGUAGES else language()


def _job_of(data: object) -> int:
    """Return the job's number in the body of a request. Raises NotFound."""
    number = data.get("job") if isinstance(data, dict) else None
    if type(number) is not int or not 0 < number <= MOST:
        raise NotFound("job.unknown", id=str(number))
    return number


async def _json(request: Request) -> object:
    """Parse the body as JSON; None where it is invalid. Raises InvalidInput if too long."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _BODY_BYTES:
            raise InvalidInput("message.too_large", size=len(body), limit=_BODY_BYTES)
    try:
        return json.loads(body)
    except ValueError:
        return None
