"""The station Begin: model, data, samples, preflight with its ways out, settings, start."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from safetrain.page import begin_form
from safetrain.page.begin_check import CheckPieces
from safetrain.page.daemon_stream import events
from safetrain.page.forms import checked, fields
from safetrain.page.render import piece
from safetrain.page.site import Site
from safetrain.page.uploads import MOST_BYTES, NAME_HEADER, Source, pointed_at, received, sample
from safetrain.views.prepare import dropped
from safetrain.views.preview import lengths_line
from safetrain.views.suggestions import suggestion_costs, suggestion_facts, suggestion_notes
from safetrain_proto.v1.data_pb2 import PrepareEvent, PrepareGuess, PreviewRequest
from safetrain_proto.v1.data_pb2_grpc import DataStub
from safetrain_proto.v1.jobs_pb2 import SubmitRequest
from safetrain_proto.v1.models_pb2 import AddModelRequest, ListModelsRequest, SuggestModelsRequest
from safetrain_proto.v1.models_pb2_grpc import ModelsStub
from safetrain_proto.v1.preflight_pb2 import PreflightRequest
from safetrain_proto.v1.preflight_pb2_grpc import PreflightStub
from safetrain_shared.i18n import format_text, percent
from safetrain_shared.i18n import translate as _
from safetrain_shared.messages import say
from safetrain_shared.wire import finding_from_wire

_FIRST_MODEL = "demo"  # chosen where no model is here yet: small, and no account is needed
_FILES = ("train", "valid", "questions")
_PROBLEMS_SHOWN = 5
_SAMPLES_SHOWN = 2
_PREVIEW_SECONDS = 300.0  # a tokenizer is loaded, of a hub model perhaps downloaded
_SUBMIT_SECONDS = 300.0  # the daemon reads the data files first
_TEXT_SHOWN = 600  # characters of a sample's message


class Begin:
    """The routes of the station."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._render = site.render

    def routes(self) -> list[Route]:
        """Return the routes."""
        post = ["POST"]
        return [
            Route("/begin", self.page),
            Route("/begin/models", self.models),
            Route("/begin/upload", self.upload, methods=post),
            Route("/begin/point", self.point, methods=post),
            Route("/begin/sample", self.sample, methods=post),
            Route("/begin/data", self.data, methods=post),
            Route("/begin/preview", self.preview, methods=post),
            Route("/begin/get", self.get_model, methods=post),
            Route("/begin/check", self.check, methods=post),
            Route("/begin/start", self.start, methods=post),
        ]

    async def page(self, _request: Request) -> Response:
        """Return the page; models are asked for by the page itself, so that it stands at once."""
        return self._render.page(
            "begin.html",
            key=uuid.uuid4().hex,
            most=MOST_BYTES,
            name_header=NAME_HEADER,
            roles=begin_form.ROLES,
            valid_share=percent(begin_form.VALID_SHARE, digits=0),
            questions_share=percent(begin_form.QUESTIONS_SHARE, digits=0),
        )

    async def models(self, request: Request) -> Response:
        """Return the models on this machine, and those worth training on it."""
        daemon, train = self._site.daemon, request.query_params.get("train", "")
        here = await asyncio.to_thread(
            daemon.call, daemon.models.List, ListModelsRequest(), again=True
        )
        installed = (model.name for model in here.models if model.installed)
        wanted = SuggestModelsRequest(train=train)
        found = await asyncio.to_thread(daemon.call, daemon.models.Suggest, wanted, again=True)
        return HTMLResponse(
            self._render.html(
                "begin_models.html",
                here=here.models,
                suggested=list(found.models),
                room=found.room,
                facts=suggestion_facts,
                costs=suggestion_costs,
                notes=list(suggestion_notes(found)),
                default=request.query_params.get("model") or next(installed, _FIRST_MODEL),
            )
        )

    async def upload(self, request: Request) -> Response:
        """Take a dropped file."""
        return self._chosen(await received(self._site.daemon, request))

    async def point(self, request: Request) -> Response:
        """Take a file or folder by its path."""
        path = (await fields(request)).get("path", "")
        return self._chosen(await asyncio.to_thread(pointed_at, self._site.daemon, path))

    async def sample(self, _request: Request) -> Response:
        """Take the sample data that come with safetrain."""
        return self._chosen(await asyncio.to_thread(sample, self._site.daemon))

    def _chosen(self, source: Source) -> Response:
        place = begin_form.place_of(self._site.daemon)
        name = begin_form.free_name(source.path, place)
        return HTMLResponse(
            self._render.piece("source", "begin_source.html", source=source, name=name, place=place)
            + self._render.message("")
        )

    async def data(self, request: Request) -> Response:
        """Make training files of the source, and stream how it is read and what came of it."""
        return self._site.streamed(self._data(await fields(request)))

    async def _data(self, found: Mapping[str, str]) -> AsyncIterator[str]:
        ready = {name: found.get(name, "") for name in _FILES}
        if found.get("digest"):
            wanted = begin_form.prepare_request(found, begin_form.place_of(self._site.daemon))
            problems = 0
            async for event in events(self._home, lambda c: DataStub(c).Prepare(wanted)):
                problems += event.HasField("problem")
                if text := self._prepared(event, problems):
                    yield text
                if event.HasField("prepared"):
                    ready = _files(event)
            yield self._render.piece("ready", "begin_ready.html", **ready)
        yield self._samples({**found, **ready}) if ready["train"] else ""

    def _prepared(self, event: PrepareEvent, problems: int) -> str:
        """Return the piece for one message of `prepare`; empty where nothing is shown of it."""
        match event.WhichOneof("body"):
            case "guess":
                shown: dict[str, Any] = {
                    "guess": event.guess,
                    "samples": list(_conversations(event.guess)),
                }
                return self._render.piece("read", "begin_guess.html", **shown)
            case "problem" if problems <= _PROBLEMS_SHOWN:
                finding = finding_from_wire(event.problem)
                text = say(finding, fallback=event.problem.text)
                shown = {"line": finding.args.get("line", ""), "text": text}
                return self._render.piece("problems", "begin_problem.html", "beforeend", **shown)
            case "progress":
                text = _("{count:int} {count:|row|rows} read")
                return piece("reading", format_text(text, {"count": event.progress.rows}))
            case "prepared":
                counts = [(name, count) for name, count in event.prepared.counts.items() if count]
                gone = [(dropped(code), n) for code, n in sorted(event.prepared.dropped.items())]
                shown = {"counts": sorted(counts, key=_order), "dropped": gone, "more": problems}
                text = self._render.piece("made", "begin_made.html", **shown)
                return text + piece("reading", "")
        return ""

    async def preview(self, request: Request) -> Response:
        """Return samples as the chosen model will see them."""
        found = await fields(request)
        if not found.get("train"):
            return Response(status_code=204)
        return HTMLResponse(await self._previewed(found))

    def _samples(self, found: Mapping[str, str]) -> str:
        """Return the piece that asks for the preview by itself."""
        return self._render.piece("samples", "begin_samples_wait.html")

    async def _previewed(self, found: Mapping[str, str]) -> str:
        daemon = self._site.daemon
        wanted = PreviewRequest(
            path=found["train"],
            model=begin_form.model(found),
            samples=_SAMPLES_SHOWN,
            trust_remote_code=checked(found, "trust_remote_code"),
        )
        seen = await asyncio.to_thread(
            daemon.call, daemon.data.Preview, wanted, seconds=_PREVIEW_SECONDS
        )
        return self._render.piece(
            "samples", "samples.html", samples=seen.samples, lengths=lengths_line(seen, 0)
        )

    async def get_model(self, request: Request) -> Response:
        """Get a model, and stream how far it is."""
        return self._site.streamed(self._got(begin_form.model(await fields(request))))

    async def _got(self, name: str) -> AsyncIterator[str]:
        call = AddModelRequest(name=name)
        async for event in events(self._home, lambda c: ModelsStub(c).Add(call)):
            if event.HasField("progress"):
                progress = event.progress
                shown: dict[str, Any] = {"phase": progress.phase, "done": progress.done}
                yield self._render.piece("getting", "progress.html", **shown)
        yield self._render.piece("getting", "begin_got.html", name=name)

    async def check(self, request: Request) -> Response:
        """Run the preflight, and stream its sections as they finish."""
        return self._site.streamed(self._checked(await fields(request)))

    async def _checked(self, found: Mapping[str, str]) -> AsyncIterator[str]:
        spec = begin_form.job(found, begin_form.place_of(self._site.daemon))
        wanted = PreflightRequest(
            spec=spec, wait=checked(found, "wait"), thorough=checked(found, "thorough")
        )
        pieces = CheckPieces(self._render, begin_form.choices(found))
        yield pieces.opening()
        async for event in events(self._home, lambda c: PreflightStub(c).Run(wanted)):
            yield pieces.of(event)

    async def start(self, request: Request) -> Response:
        """Queue the training and go to its page."""
        found, daemon = await fields(request), self._site.daemon
        spec = begin_form.job(found, begin_form.place_of(daemon))
        key = found.get("key") or uuid.uuid4().hex
        wanted = SubmitRequest(spec=spec, idempotency_key=key)
        answer = await asyncio.to_thread(
            daemon.call, daemon.jobs.Submit, wanted, seconds=_SUBMIT_SECONDS, again=True
        )
        return Response(headers={"HX-Redirect": f"/jobs/{answer.job.id}"})

    @property
    def _home(self) -> Any:
        return self._site.daemon.home


def _files(event: PrepareEvent) -> dict[str, str]:
    """Return the training files that were written, by what they are for; empty for none."""
    prepared = event.prepared
    return {
        name: f"{prepared.output}/{name}.jsonl" if prepared.counts.get(f"{name}.jsonl") else ""
        for name in _FILES
    }


def _order(file: tuple[str, int]) -> int:
    """Sort key of the files that were written: what is trained on first."""
    return _FILES.index(file[0].removesuffix(".jsonl"))


def _conversations(guess: PrepareGuess) -> Iterator[list[tuple[str, str]]]:
    """Yield the first samples as (role, text)."""
    for text in guess.samples:
        sample = json.loads(text)
        turns = sample.get("messages") or [{"role": "text", "content": sample.get("text")}]
        yield [(str(turn["role"]), str(turn["content"])[:_TEXT_SHOWN]) for turn in turns]
