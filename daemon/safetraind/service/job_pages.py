"""Pages of the list of jobs: which jobs an answer holds, and the token of the next page."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from safetrain_proto.v1 import jobs_pb2
from safetrain_shared.errors import InvalidInput
from safetrain_shared.jobs import FINAL
from safetraind.scheduler.state import Job

MOST_JOBS = 1000  # in one answer; a job takes one to two kilobytes


@dataclass(frozen=True, slots=True)
class Page:
    """The ids on a page, rising. `left_out`: jobs that have ended and are on no page."""

    ids: tuple[int, ...]
    left_out: int
    next_token: str = ""


def page_of(jobs: Iterable[Job], request: jobs_pb2.ListJobsRequest) -> Page:
    """Return the page that a request asks for. Raises InvalidInput for a token that was never given
    out.

    Ids only rise and are never used again, so the last id of a page is the token of the next one:
    no job comes twice, whatever is added or removed between two pages.
    """
    jobs = list(jobs)
    ended = sorted(job.id for job in jobs if job.state in FINAL)
    limit = max(0, request.ended_limit)
    if request.page_size <= 0:
        room = max(1, MOST_JOBS - (len(jobs) - len(ended)))
        limit = min(limit or room, room)
    left_out = set(ended[:-limit]) if limit else set()
    ids = sorted({job.id for job in jobs} - left_out)
    if request.page_size <= 0:
        return Page(tuple(ids), len(left_out))
    behind = [job_id for job_id in ids if job_id > _last_id(request.page_token)]
    size = min(request.page_size, MOST_JOBS)
    token = str(behind[size - 1]) if len(behind) > size else ""
    return Page(tuple(behind[:size]), len(left_out), token)


def _last_id(token: str) -> int:
    if not token:
        return 0
    if not token.isascii() or not token.isdecimal() or len(token) > 19:
        raise InvalidInput("request.malformed", reason=f"page_token: {token[:40]}")
    return int(token)
