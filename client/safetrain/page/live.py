"""The live stream of one tab: pieces of the page as they change, curves and notifications."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

from safetrain.page import job_texts
from safetrain.page.after_texts import after
from safetrain.page.job_feed import JobFeed, JobWatch
from safetrain.page.render import event, piece
from safetrain.page.site import Site
from safetrain.views.job import name_of
from safetrain_proto.v1.jobs_pb2 import Job
from safetrain_shared.arg_words import STATES
from safetrain_shared.i18n import percent, translate

TICK_SECONDS = 0.5  # between two checks for changes
_REDRAW_SECONDS = 1.0  # between two drawings of what a training alone changed
_KEEP_ALIVE_TICKS = 30  # without changes, before a comment is sent to keep the stream open
_TOLD = ("succeeded", "failed", "paused", "interrupted")  # states worth a notification


class Tab:
    """One browser tab: its job, and what was last sent to it. `wanted` 0: the current job."""

    def __init__(self, site: Site, wanted: int, *, jobs: bool = True) -> None:
        self._site = site
        self._feed: JobFeed = site.feed
        self._wanted = wanted
        self._jobs = jobs
        self._sent: dict[str, str] = {}
        self._drawn: tuple[int, ...] = ()
        self._drawn_at = -_REDRAW_SECONDS
        self._logged = (0, -1)
        self._states: dict[int, str] = {}

    def changes(self) -> Iterator[str]:
        """Yield a server-sent event for everything that changed since it was last sent."""
        for name, text in self._current():
            if self._sent.get(name) != text:
                self._sent[name] = text
                yield event(text, name) if name in ("link", "curves") else event(text)

    def _current(self) -> Iterator[tuple[str, str]]:
        feed = self._feed
        jobs = feed.latest(self._wanted)
        yield "link", "away" if feed.trouble else "live"
        if jobs is None or not self._jobs:
            return
        for number, text in self._told(jobs):
            yield f"told-{number}", piece("told", text)
        chosen = job_texts.pick(jobs, self._wanted)
        watch = feed.watch(chosen) if chosen is not None else None
        yield from self._pieces(jobs, chosen, watch)
        if watch is not None and (curves := watch.curves()):
            yield "curves", curves

    def _pieces(
        self, jobs: Sequence[Job], chosen: Job | None, watch: JobWatch | None
    ) -> Iterator[tuple[str, str]]:
        """Yield what is drawn anew: at once where jobs changed, else now and then; the log as it
        grows.
        """
        drawn = (self._feed.version, watch.version if watch else 0)
        now = time.monotonic()
        logged = (chosen.id if chosen is not None else 0, watch.logged if watch else 0)
        recent = drawn[:1] == self._drawn[:1] and now < self._drawn_at + _REDRAW_SECONDS
        if drawn == self._drawn or recent:
            return
        grown, self._logged = logged != self._logged, logged
        self._drawn, self._drawn_at = drawn, now
        for target, text in job_pieces(self._site, jobs, chosen, watch, log=grown).items():
            yield target, text if target == "title" else piece(target, text, "innerMorph")

    def _told(self, jobs: Any) -> Iterator[tuple[int, str]]:
        """Yield (job, text) of jobs that ended, stopped or need something since the last look."""
        before, self._states = self._states, {job.id: name_of(job) for job in jobs}
        for job in jobs:
            state = self._states[job.id]
            if before.get(job.id, state) != state and state in _TOLD:
                text = f"{job_texts.title(job)}: {translate(STATES[state])}"
                yield job.id, self._site.render.html("told.html", text=text)


def job_pieces(
    site: Site, jobs: Sequence[Job], chosen: Job | None, watch: JobWatch | None, *, log: bool = True
) -> dict[str, str]:
    """Return the parts of a job's page, each by the id of its element. `log`: its log too."""
    if chosen is None or watch is None:
        return {"queue": _queue(site, jobs, 0)}
    with watch.lock:
        details = job_texts.details(chosen, watch.history)
        entries = job_texts.log(watch.log) if log else []
        after_it = after(chosen, watch.history)
    html = site.render.html
    share = percent(details["share"], digits=0)
    found = {
        "title": html("job_title.html", job=details, percentage=share),
        "heading": html("job_heading.html", job=details),
        "job": html("job.html", job=details, percentage=share),
        "after": html("after.html", host=site.daemon.host, **after_it) if after_it else "",
        "queue": _queue(site, jobs, chosen.id),
        "facts": html("job_facts.html", job=details),
    }
    return {**found, "log": html("job_log.html", entries=entries)} if log else found


def _queue(site: Site, jobs: Any, chosen: int) -> str:
    cards = job_texts.cards(jobs)
    waiting = sum(1 for card in cards if card["place"])
    return site.render.html(
        "queue.html", cards=cards, chosen=chosen, waiting=waiting, older=site.feed.left_out
    )


async def messages(tab: Tab) -> AsyncIterator[str]:
    """Yield the tab's server-sent events, for as long as it listens."""
    silent = 0
    while True:
        silent += 1
        for text in tab.changes():
            silent = 0
            yield text
        if silent >= _KEEP_ALIVE_TICKS:
            silent = 0
            yield ": here\n\n"
        await asyncio.sleep(TICK_SECONDS)
