"""The list of jobs in pages: every job once, in order, whatever happens between two pages."""

from __future__ import annotations

import pytest

from safetrain_proto.v1.jobs_pb2 import ListJobsRequest
from safetrain_shared.errors import InvalidInput
from safetrain_shared.jobs import JobState
from safetraind.scheduler.state import Job
from safetraind.service.job_pages import MOST_JOBS, Page, page_of


def jobs(count: int, *, live: int = 0) -> list[Job]:
    """`count` jobs of which the last `live` wait."""
    states = [JobState.SUCCEEDED] * (count - live) + [JobState.QUEUED] * live
    return [Job(number, state) for number, state in enumerate(states, 1)]


def walk(known: list[Job], size: int, **fields: int) -> list[Page]:
    pages, token = [], ""
    while not pages or token:
        request = ListJobsRequest(page_size=size, page_token=token, **fields)
        pages.append(page_of(known, request))
        token = pages[-1].next_token
    return pages


def test_the_pages_hold_every_job_once_in_order() -> None:
    pages = walk(jobs(25, live=3), 10)
    assert [len(page.ids) for page in pages] == [10, 10, 5]
    assert [i for page in pages for i in page.ids] == list(range(1, 26))
    assert [page.left_out for page in pages] == [0, 0, 0]


def test_a_limit_on_ended_jobs_holds_across_pages() -> None:
    pages = walk(jobs(25, live=3), 3, ended_limit=4)
    assert [i for page in pages for i in page.ids] == list(range(19, 26))
    assert {page.left_out for page in pages} == {18}


def test_jobs_that_come_and_go_between_two_pages_repeat_none() -> None:
    known = jobs(20)
    first = page_of(known, ListJobsRequest(page_size=10))
    changed = [job for job in [*known, Job(21)] if job.id not in (3, 10, 12)]
    second = page_of(changed, ListJobsRequest(page_size=100, page_token=first.next_token))
    assert second.ids == (11, *range(13, 22))


def test_no_answer_holds_more_than_the_most() -> None:
    known = jobs(MOST_JOBS + 50, live=20)
    page = page_of(known, ListJobsRequest(page_size=10 * MOST_JOBS))
    assert (len(page.ids), page.next_token) == (MOST_JOBS, str(MOST_JOBS))
    older = page_of(known, ListJobsRequest())  # as an older client asks
    assert (len(older.ids), older.ids[-1], older.left_out) == (MOST_JOBS, MOST_JOBS + 50, 50)


@pytest.mark.parametrize("token", ["x", "-1", "1.0", "9" * 40, "१"])
def test_a_token_that_was_never_given_out_is_refused(token: str) -> None:
    with pytest.raises(InvalidInput):
        page_of(jobs(3), ListJobsRequest(page_size=1, page_token=token))
