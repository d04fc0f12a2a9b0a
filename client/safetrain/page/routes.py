"""The routes of the live page: the page, its files, the live stream, questions."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from safetrain.page import page_json
from safetrain.page.access import Guard, Keys
from safetrain.page.ask_stream import answered, refused, request_from
from safetrain.page.job_feed import JobFeed, compact
from safetrain.page.texts import words
from safetrain_shared.errors import InvalidInput, SafetrainError
from safetrain_shared.history import History
from safetrain_shared.i18n import LANGUAGES, language, using

STATIC = Path(__file__).parent / "static"
TICK_SECONDS = 0.25  # how often a tab looks for news
_SILENCE_TICKS = 60  # after so many without news a tab is told that we are there
_BODY_BYTES = 1 << 17


def application(hub: JobFeed, keys: Keys) -> Starlette:
    """The page of one hub, open to who holds the keys."""

    async def page(_request: Request) -> Response:
        return FileResponse(STATIC / "index.html")

    async def live(request: Request) -> Response:
        wanted = request.query_params.get("job", "")
        tab = Tab(hub, _lang(request), int(wanted) if wanted.isdecimal() else 0)
        return StreamingResponse(_stream(tab), media_type="text/event-stream")

    async def ask(request: Request) -> Response:
        lang = _lang(request)
        try:
            asked = request_from(await _json(request))
        except SafetrainError as error:
            return JSONResponse(refused(error, lang), 400)
        pieces = answered(hub.daemon.home, asked, lang)
        lines = (compact(piece) + "\n" async for piece in pieces)
        return StreamingResponse(lines, media_type="application/x-ndjson")

    routes = [
        Route("/", page),
        Route("/api/live", live),
        Route("/api/ask", ask, methods=["POST"]),
        Mount("/static", StaticFiles(directory=STATIC)),
    ]
    return Starlette(routes=routes, middleware=[Middleware(Guard, keys=keys)])


class Tab:
    """One tab: its language, the job it looks at, and what it has been sent."""

    def __init__(self, hub: JobFeed, lang: str, wanted: int) -> None:
        self._hub = hub
        self._lang = lang
        self._wanted = wanted
        self._sent: dict[str, str] = {}

    def news(self) -> Iterator[tuple[str, str]]:
        """What is not as it was when last sent: a name and its JSON."""
        with using(self._lang):
            now = list(self._now())
        for name, text in now:
            if self._sent.get(name) != text:
                self._sent[name] = text
                yield name, text

    def _now(self) -> Iterator[tuple[str, str]]:
        hub = self._hub
        yield "words", compact(words())
        trouble = hub.trouble
        yield "link", compact({"trouble": str(trouble) if trouble else ""})
        jobs = hub.look()
        if jobs is None:
            return
        chosen = page_json.pick(jobs, self._wanted)
        if chosen is None:
            yield "overview", compact(page_json.overview(jobs, None, History(), hub.info))
            return
        watch = hub.watch(chosen)
        with watch.lock:
            overview = page_json.overview(jobs, chosen, watch.history, hub.info)
            log = page_json.log(watch.log)
        yield "overview", compact(overview)
        yield "log", compact(log)
        yield "curves", watch.curves()


async def _stream(tab: Tab) -> AsyncIterator[str]:
    """Server-sent events, https://html.spec.whatwg.org/multipage/server-sent-events.html."""
    yield "retry: 1000\n\n"
    silent = 0
    while True:
        silent += 1
        for name, text in tab.news():
            silent = 0
            yield f"event: {name}\ndata: {text}\n\n"
        if silent >= _SILENCE_TICKS:
            silent = 0
            yield ": here\n\n"
        await asyncio.sleep(TICK_SECONDS)


def _lang(request: Request) -> str:
    asked = request.query_params.get("lang", "")
    return asked if asked in LANGUAGES else language()


async def _json(request: Request) -> object:
    """The body as JSON. Raises InvalidInput where it is none or too long."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _BODY_BYTES:
            raise InvalidInput("message.too_large", size=len(body), limit=_BODY_BYTES)
    try:
        return json.loads(body)
    except ValueError:
        raise InvalidInput("client.question_empty") from None
