"""The station Afterwards: answers won and lost, side by side, promotion, report, plots, export."""

from __future__ import annotations

import asyncio
import importlib.util
import io
import itertools
import json
import re
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from safetrain import inputs
from safetrain.follower import events_so_far
from safetrain.page.begin_form import PLACE, place_of
from safetrain.page.chat import question
from safetrain.page.daemon_stream import events
from safetrain.page.forms import checked, fields, job_id
from safetrain.page.render import piece
from safetrain.page.site import Site
from safetrain.report.make_report import make_report
from safetrain.views.curves import curves_of
from safetrain.views.export import export_lines
from safetrain.views.job import heading, short_path
from safetrain_proto.v1.answers_pb2 import AskRequest, Message
from safetrain_proto.v1.answers_pb2_grpc import AnswersStub
from safetrain_proto.v1.evaluations_pb2 import EvaluateRequest, PromoteRequest
from safetrain_proto.v1.evaluations_pb2_grpc import EvaluationsStub
from safetrain_proto.v1.exports_pb2 import ExportRequest
from safetrain_proto.v1.exports_pb2_grpc import ExportsStub
from safetrain_proto.v1.files_pb2 import GetRequest
from safetrain_proto.v1.jobs_pb2 import Job, JobRequest
from safetrain_shared.errors import NotFound, Unreachable
from safetrain_shared.gguf_types import GGUF_TYPES
from safetrain_shared.i18n import translate as _
from safetrain_shared.paths import EVALUATION, EVALUATION_RESULT

_ANSWERS_SHOWN = 50  # of each kind
_SIDE_BY_SIDE_TOKENS = 160
_PROGRESS_SECONDS = 0.5  # between two looks at what is being fetched


class After:
    """The routes of the station."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._render = site.render

    def routes(self) -> list[Route]:
        """Return the routes."""
        post = ["POST"]
        return [
            Route("/jobs/{id}/answers", self.answers),
            Route("/jobs/{id}/report", self.report),
            Route("/jobs/{id}/plots", self.plots),
            Route("/jobs/{id}/export-form", self.export_form),
            Route("/jobs/{id}/both", self.both, methods=post),
            Route("/jobs/{id}/promote", self.promote, methods=post),
            Route("/jobs/{id}/evaluate", self.evaluate, methods=post),
            Route("/jobs/{id}/export", self.export, methods=post),
            Route("/jobs/{id}/fetch", self.fetch, methods=post),
        ]

    async def answers(self, request: Request) -> Response:
        """Return the questions that were won and those that were lost."""
        found = await self._evaluation(job_id(request))
        scored = [(one["adapter_score"] - one["base_score"], one) for one in found["answers"]]
        kinds = [
            ("won", _("Won"), [one for gain, one in scored if gain > 0]),
            ("lost", _("Lost"), [one for gain, one in scored if gain < 0]),
            ("same", _("Alike"), [one for gain, one in scored if gain == 0]),
        ]
        return HTMLResponse(self._render.html("answers.html", kinds=kinds, most=_ANSWERS_SHOWN))

    async def _evaluation(self, job: int) -> dict[str, Any]:
        """Return the evaluation of a trained job with its answers. Raises NotFound."""
        request = GetRequest(job_id=job, name=f"{EVALUATION}/{EVALUATION_RESULT}")
        daemon = self._site.daemon

        def whole() -> bytes:
            return b"".join(chunk.data for chunk in daemon.stream(daemon.files.Get, request))

        return dict(json.loads(await asyncio.to_thread(whole)))

    async def both(self, request: Request) -> Response:
        """Ask base and adapter the same and stream both answers."""
        text = question((await fields(request)).get("question", ""))
        return self._site.streamed(self._both(text, job_id(request)))

    async def _both(self, text: str, job: int) -> AsyncIterator[str]:
        sides = ("base", "adapter")
        yield "".join(piece(f"{side}-text", "") + piece(f"{side}-state", "") for side in sides)
        for side in sides:
            wanted = AskRequest(
                messages=[Message(role="user", content=text)],
                job_id=job,
                base=side == "base",
                max_tokens=_SIDE_BY_SIDE_TOKENS,
            )
            call = self._ask(wanted)
            async for event in call:
                yield self._render.answer(event, f"{side}-text", f"{side}-state")

    def _ask(self, wanted: AskRequest) -> AsyncIterator[Any]:
        return events(self._site.daemon.home, lambda c: AnswersStub(c).Ask(wanted))

    async def promote(self, request: Request) -> Response:
        """Make a checkpoint the one that is asked and exported."""
        name = (await fields(request)).get("checkpoint", "")
        evaluations = self._site.daemon.evaluations
        done = await self._site.call(
            evaluations.Promote, PromoteRequest(job_id=job_id(request), checkpoint=name), again=True
        )
        text = _("{checkpoint} now answers, and is exported.").format(checkpoint=done.checkpoint)
        shown: dict[str, Any] = {
            "job": job_id(request),
            "text": text,
            "before": done.before or "best-loss",
        }
        return HTMLResponse(
            self._render.piece("promoted", "promoted.html", **shown) + self._render.message("")
        )

    async def evaluate(self, request: Request) -> Response:
        """Ask the held-out questions now, as a job of its own, and stream how far it is."""
        return self._site.streamed(self._evaluated(job_id(request)))

    async def _evaluated(self, job: int) -> AsyncIterator[str]:
        wanted = EvaluateRequest(job_id=job)
        home = self._site.daemon.home
        async for event in events(home, lambda c: EvaluationsStub(c).Run(wanted)):
            if event.HasField("progress"):
                shown: dict[str, Any] = {"phase": event.progress.phase, "done": event.progress.done}
                yield self._render.piece("evaluating", "progress.html", **shown)
        yield piece("evaluating", "")
        self._site.feed.hurry()

    async def report(self, request: Request) -> Response:
        """Return the report as a file: it never runs as a page of this server."""
        job = await self._job(request)
        html = await asyncio.to_thread(make_report, self._site.daemon, job, [], lambda _text: None)
        return _file(html.encode(), "text/html", f"safetrain-{job.id}-report.html")

    async def plots(self, request: Request) -> Response:
        """Return the plots as one file."""
        job = await self._job(request)
        if importlib.util.find_spec("matplotlib") is None:
            raise Unreachable("plot.not_installed")
        data = await asyncio.to_thread(self._drawn, job)
        return _file(data, "application/zip", f"safetrain-{job.id}-plots.zip")

    def _drawn(self, job: Job) -> bytes:
        draw = importlib.import_module("safetrain.report.png_plots").draw
        curves = curves_of(events_so_far(self._site.daemon, job.id))
        if not (curves.steps or curves.evaluations):
            raise NotFound("plot.nothing_yet", id=job.id)
        target = io.BytesIO()
        with zipfile.ZipFile(target, "w") as archive:
            for name, png in draw(curves, heading(job)).items():
                archive.writestr(name, png)
        return target.getvalue()

    async def export_form(self, request: Request) -> Response:
        """Return the form of an export, with a folder that is free."""
        job = await self._job(request)
        place, name = place_of(self._site.daemon), Path(job.spec.output).name
        names = (f"{name}-model{n or ''}" for n in itertools.chain([0], itertools.count(2)))
        folder = next(path for path in (place / one for one in names) if not path.exists())
        shown: dict[str, Any] = {"job": job.id, "folder": str(folder), "types": GGUF_TYPES}
        return HTMLResponse(self._render.html("export_form.html", **shown))

    async def export(self, request: Request) -> Response:
        """Write the model for other programs, and stream how far it is."""
        found = await fields(request)
        kind = found.get("gguf_type", "")
        wanted = ExportRequest(
            job_id=job_id(request),
            output=inputs.absolute(found.get("output", "").strip()),
            gguf=bool(kind),
            gguf_type=kind if kind in GGUF_TYPES else "",
            dequantize=checked(found, "dequantize"),
        )
        return self._site.streamed(self._exported(wanted))

    async def _exported(self, wanted: ExportRequest) -> AsyncIterator[str]:
        home = self._site.daemon.home
        async for event in events(home, lambda c: ExportsStub(c).Run(wanted)):
            if event.HasField("progress"):
                shown: dict[str, Any] = {"phase": event.progress.phase, "done": event.progress.done}
                yield self._render.piece("exporting", "progress.html", **shown)
            else:
                lines = export_lines(event.exported, host=self._site.daemon.host)
                yield self._render.piece("exporting", "exported.html", lines=lines)

    async def fetch(self, request: Request) -> Response:
        """Bring the results from the other machine, and stream how far it is."""
        return self._site.streamed(self._fetched(job_id(request)))

    async def _fetched(self, job: int) -> AsyncIterator[str]:
        from safetrain.remote.fetch import fetch

        daemon, share = self._site.daemon, 0.0
        host = re.sub(r"[^\w.-]+", "-", daemon.host)
        folder = Path.home() / PLACE / f"{host}-job-{job}"

        def progress(done: float) -> None:
            nonlocal share
            share = done

        running = asyncio.create_task(asyncio.to_thread(fetch, daemon, job, folder, progress))
        while not running.done():
            shown: dict[str, Any] = {"phase": "fetching", "done": share}
            yield self._render.piece("fetched", "progress.html", **shown)
            await asyncio.wait([running], timeout=_PROGRESS_SECONDS)
        yield piece("fetched", "")
        await running
        text = _("The results are in {folder}.").format(folder=short_path(str(folder)))
        yield self._render.piece("fetched", "told.html", text=text)

    async def _job(self, request: Request) -> Job:
        job: Job = await self._site.call(self._site.daemon.jobs.Get, JobRequest(id=job_id(request)))
        return job


def _file(data: bytes, media_type: str, name: str) -> Response:
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return Response(data, media_type=media_type, headers=headers)
