"""The station of trainings: one job live, the queue, actions on jobs, comparison."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import (
    HTMLResponse,
    RedirectResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import Route

from safetrain.follower import events_so_far
from safetrain.page import job_texts
from safetrain.page.chat import QUESTION_CHARACTERS
from safetrain.page.forms import fields, job_id, job_number
from safetrain.page.job_feed import compact
from safetrain.page.live import Tab, job_pieces, messages
from safetrain.page.render import EVENT_STREAM, piece
from safetrain.page.site import Site
from safetrain.views.curves import curves_of
from safetrain.views.preview import lengths_line
from safetrain_proto.v1.data_pb2 import PreviewRequest
from safetrain_proto.v1.jobs_pb2 import Job, JobRequest, MoveJobRequest, RemoveJobRequest
from safetrain_shared.errors import NotFound

_COMPARED = 6  # jobs in one chart; more cannot be told apart
_LOG_BYTES = 1 << 16  # of a log, its end
_SAMPLES = 2
_PREVIEW_SECONDS = 120.0  # a tokenizer is loaded, of a hub model perhaps downloaded
_ACTIONS = ("pause", "resume", "cancel", "retry")


class Jobs:
    """The routes of the station."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._render = site.render

    def routes(self) -> list[Route]:
        """Return the routes."""
        post = ["POST"]
        return [
            Route("/", self.page),
            Route("/live", self.live),
            Route("/compare", self.compare),
            Route("/compare/chart", self.chart),
            Route("/jobs/older", self.older),
            Route("/jobs/{id}", self.page),
            Route("/jobs/{id}/log", self.log),
            Route("/jobs/{id}/samples", self.samples),
            Route("/jobs/{id}/place", self.place, methods=post),
            Route("/jobs/{id}/remove", self.remove, methods=post),
            Route("/jobs/{id}/{action}", self.act, methods=post),
        ]

    async def page(self, request: Request) -> Response:
        """Return the page of a job: the one named, else the one at work, next or newest."""
        wanted = job_id(request) if "id" in request.path_params else 0
        feed = self._site.feed
        jobs = await asyncio.to_thread(feed.now, wanted)
        chosen = job_texts.pick(jobs, wanted)
        if chosen is None and feed.trouble is None:
            if wanted:
                raise NotFound("job.unknown", id=wanted)
            return RedirectResponse("/begin", 303)
        watch = feed.watch(chosen) if chosen is not None else None
        parts = job_pieces(self._site, jobs, chosen, watch)
        return self._render.page(
            "jobs.html",
            parts=parts,
            chosen=chosen.id if chosen is not None else 0,
            about=job_texts.about(feed.info),
            most=QUESTION_CHARACTERS,
        )

    async def live(self, request: Request) -> Response:
        """Stream what changes."""
        wanted = request.query_params.get("job", "")
        number = int(wanted) if wanted.isdecimal() and len(wanted) < 19 else 0
        tab = Tab(self._site, number, jobs="job" in request.query_params)
        return StreamingResponse(messages(tab), media_type=EVENT_STREAM)

    async def older(self, request: Request) -> Response:
        """Return more of the jobs that have ended."""
        given = request.query_params.get("shown", "0")
        shown = int(given) if given.isdecimal() and len(given) < 7 else 0
        found, more = await asyncio.to_thread(self._site.feed.older, shown)
        cards = [job_texts.card(job) for job in found]
        html = self._render.html("older.html", cards=cards, shown=shown + len(cards), more=more)
        return HTMLResponse(html)

    async def act(self, request: Request) -> Response:
        """Pause, resume, cancel or retry a job."""
        action = request.path_params["action"]
        if action not in _ACTIONS:
            return Response(status_code=404)
        jobs = self._site.daemon.jobs
        call = {"pause": jobs.Pause, "resume": jobs.Resume, "cancel": jobs.Cancel}.get(action)
        await self._site.call(call or jobs.Retry, JobRequest(id=job_id(request)))
        return self._done()

    async def remove(self, request: Request) -> Response:
        """Remove a job that has ended; its files stay."""
        jobs = self._site.daemon.jobs
        await self._site.call(jobs.Remove, RemoveJobRequest(id=job_id(request)))
        return Response(headers={"HX-Redirect": "/"})

    async def place(self, request: Request) -> Response:
        """Give a waiting job its place in the queue, counted from 1."""
        number, text = job_id(request), (await fields(request)).get("place", "")
        place = int(text) if text.isdecimal() and len(text) < 6 else 1
        listed = await asyncio.to_thread(self._site.feed.now)
        queue = sorted((job.queue_position, job.id) for job in listed if job.queue_position)
        order = [job for _position, job in queue if job != number]
        jobs = self._site.daemon.jobs
        if place > len(order):
            await self._site.call(jobs.Move, MoveJobRequest(id=number, first=False))
            return self._done()
        # Each to the front, the last of them first: those behind keep their order.
        for one in (number, *reversed(order[: max(0, place - 1)])):
            await self._site.call(jobs.Move, MoveJobRequest(id=one, first=True))
        return self._done()

    async def log(self, request: Request) -> Response:
        """Return the end of a job's log."""
        job = await self._job(request)
        text = await asyncio.to_thread(_end_of, job.log_path)
        shown: dict[str, Any] = {
            "text": text,
            "path": job.log_path,
            "there": bool(self._site.daemon.host),
        }
        return HTMLResponse(self._render.html("log_file.html", **shown))

    async def samples(self, request: Request) -> Response:
        """Return samples of a job's data as its model sees them."""
        job = await self._job(request)
        settings = job.plan.settings if job.HasField("plan") else job.spec.settings
        wanted = PreviewRequest(
            path=job.spec.train,
            model=job.spec.model,
            samples=_SAMPLES,
            max_seq_length=settings.max_seq_length,
            settings=settings,
            trust_remote_code=job.spec.trust_remote_code,
        )
        data = self._site.daemon.data
        seen = await self._site.call(data.Preview, wanted, seconds=_PREVIEW_SECONDS)
        shown: dict[str, Any] = {"samples": seen.samples, "lengths": lengths_line(seen, 0)}
        return HTMLResponse(self._render.html("samples.html", **shown))

    async def compare(self, request: Request) -> Response:
        """Return the page that lays runs over each other."""
        jobs = await asyncio.to_thread(self._site.feed.now)
        trained = [job for job in jobs if job.step and not job.spec.evaluation.job]
        marked = set(request.query_params.getlist("job"))
        return self._render.page(
            "compare.html",
            cards=[(one, str(one["id"]) in marked) for one in job_texts.cards(trained)],
            most=_COMPARED,
        )

    async def chart(self, request: Request) -> Response:
        """Return the curves of the chosen runs, as data for one chart."""
        numbers_ = [job_number(text) for text in request.query_params.getlist("job")]
        runs = []
        for number in numbers_[:_COMPARED]:
            job = await self._site.call(self._site.daemon.jobs.Get, JobRequest(id=number))
            known = await asyncio.to_thread(events_so_far, self._site.daemon, number)
            curves = curves_of(known)
            runs.append({"name": job_texts.heading(job), **job_texts.compared(curves)})
        return HTMLResponse(self._render.html("compared.html", runs=compact(runs), any=bool(runs)))

    async def _job(self, request: Request) -> Job:
        job: Job = await self._site.call(self._site.daemon.jobs.Get, JobRequest(id=job_id(request)))
        return job

    def _done(self) -> Response:
        self._site.feed.hurry()
        return HTMLResponse(piece("message", ""))


def _end_of(path: str) -> str:
    """Return the end of a log; empty where it cannot be read."""
    try:
        with Path(path).open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - _LOG_BYTES))
            return file.read().decode(errors="replace")
    except OSError:
        return ""
