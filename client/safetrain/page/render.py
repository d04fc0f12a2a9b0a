"""Renders the page's templates, in the language of a request, as pages and as pieces of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response, StreamingResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from safetrain.page.access import ACTION_HEADER, Keys
from safetrain.views.answer import numbers, source
from safetrain.views.labels import PHASES, word
from safetrain_proto.v1.answers_pb2 import AskEvent
from safetrain_shared.errors import SafetrainError
from safetrain_shared.i18n import (
    LANGUAGES,
    format_text,
    integer,
    language,
    marked,
    percent,
    size,
    translate,
    using,
)
from safetrain_shared.printable import printable

_TEMPLATES = Path(__file__).parent / "templates"
_PIECE = '<hx-partial hx-target="#{target}" hx-swap="{swap}">{body}</hx-partial>'

_CUT = marked("cut at its longest")
_STATUSES = {
    "passed": marked("passed"),
    "warning": marked("warning"),
    "failed": marked("failed"),
    "skipped": marked("not checked"),
    "info": marked("for information"),
}
_CHOICES = {
    "trust_remote_code": marked("the model's own code may run"),
    "allow_shorter": marked("sequences may be cut where memory runs out"),
    "wait": marked("waits for the GPU"),
    "thorough": marked("measures however long it takes"),
    "memory_budget": marked("uses up to {value}"),
}


class Renderer:
    """The templates of one dashboard. All text is escaped, and control characters are removed."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._environment = Environment(
            loader=FileSystemLoader(_TEMPLATES),
            autoescape=True,
            undefined=StrictUndefined,
            finalize=_plain,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.globals.update(
            _=translate,
            format_text=format_text,
            send=self._send,
            size=size,
            integer=integer,
            percent=percent,
            phase_word=lambda name: word(PHASES, name),
            status_word=lambda name: word(_STATUSES, name),
            choice_word=_choice,
        )

    def html(self, template: str, **values: Any) -> str:
        """Return a template filled in, in the language in use."""
        text = self._environment.get_template(template).render(lang=language(), **values)
        return text.strip()

    def page(self, template: str, status: int = 200, **values: Any) -> Response:
        """Return a whole page."""
        return HTMLResponse(self.html(template, **values), status)

    def piece(self, target: str, template: str, swap: str = "innerHTML", **values: Any) -> str:
        """Return what replaces or extends the element with the id `target`."""
        return piece(target, self.html(template, **values), swap)

    def message(self, error: SafetrainError | str) -> str:
        """Return the piece that shows an error."""
        return piece("message", str(escape(printable(str(error)))))

    def answer(self, event: AskEvent, text: str, state: str) -> str:
        """Return the piece of one message of an answer; `text`, `state`: ids of its elements."""
        match event.WhichOneof("body"):
            case "waiting":
                return piece(state, str(escape(f"{word(PHASES, event.waiting)} …")))
            case "source":
                known = " ".join(line.strip("[]") for line in source(event.source))
                return piece(state, str(escape(printable(known))))
            case "text":
                return piece(text, str(escape(printable(event.text))), "beforeend")
            case "done":
                cut, event.done.cut = event.done.cut, False
                told = numbers(event.done).strip("[]")
                end = f" · {told}" + (" · " + translate(_CUT) if cut else "")
                return piece(state, str(escape(end)), "beforeend")
        return ""

    def _send(self, path: str) -> Markup:
        """Return the attributes of an element that changes something at `path`."""
        headers = f'{{"{ACTION_HEADER}": "{self._keys.action(path)}"}}'
        return Markup('hx-post="{}" hx-headers="{}"').format(path, headers)


class InLanguage:
    """ASGI middleware: handles a request in the language that its browser chose."""

    def __init__(self, app: ASGIApp, keys: Keys) -> None:
        self._app = app
        self._cookie = language_cookie(keys)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        chosen = Request(scope).cookies.get(self._cookie, "")
        with using(chosen if chosen in LANGUAGES else language()):
            await self._app(scope, receive, send)


def language_cookie(keys: Keys) -> str:
    """Return the name of the cookie that holds the browser's language."""
    return f"{keys.cookie_name}_lang"


def piece(target: str, body: str, swap: str = "innerHTML") -> str:
    """Return HTML as a piece for the element with the id `target`.

    Pieces for other elements at the end of `body` follow it: within one they would not be seen.
    """
    body, own, others = body.partition("<hx-partial")
    return _PIECE.format(target=target, swap=swap, body=body) + own + others


def stream(messages: AsyncIterator[str]) -> Response:
    """Return pieces as server-sent events: each is swapped in when it arrives."""
    return StreamingResponse((event(text) async for text in messages), media_type=EVENT_STREAM)


EVENT_STREAM = "text/event-stream"


def event(data: str, name: str = "") -> str:
    """Return one server-sent event: https://html.spec.whatwg.org/multipage/server-sent-events.html."""
    head = f"event: {name}\n" if name else ""
    # Every line end that the format knows would end the field.
    lines = data.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return head + "".join(f"data: {line}\n" for line in lines) + "\n"


def _choice(field: str, value: str) -> str:
    """Return what was chosen against the recommendation, in a few words."""
    text = _CHOICES.get(field)
    return (
        translate(text).format(value=value) if text else f"{field.removeprefix('set.')} = {value}"
    )


def _plain(value: Any) -> Any:
    """Remove control characters from texts; markup of our own stays as it is."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value
