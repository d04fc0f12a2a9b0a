"""`safetrain.v1.Jobs`: submitting, listing and controlling jobs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetrain_proto.v1 import jobs_pb2, jobs_pb2_grpc
from safetrain_proto.v1.jobs_pb2 import LentRank
from safetrain_shared.errors import NotFound, SafetrainError
from safetrain_shared.findings import Finding, Status, finding_of
from safetrain_shared.jobs import FINAL
from safetrain_shared.wire import finding_to_wire, spec_from_wire, state_to_wire
from safetraind.controller.controller import Controller
from safetraind.job_view import QueueView, view
from safetraind.processes.locks import claimed_soon
from safetraind.scheduler import triggers
from safetraind.service.error_mapping import guarded
from safetraind.service.job_pages import page_of
from safetraind.storage import output_folder
from safetraind.storage.bounded_read import SLOW_SECONDS, bounded
from safetraind.submission import Submission, SubmitRequest

log = logging.getLogger(__name__)
_VIEWS_PER_TURN = 16  # before the event loop serves other calls


class JobsService(jobs_pb2_grpc.JobsServicer):
    """Passes each request to the controller and returns the job's state after it."""

    def __init__(
        self, controller: Controller, submission: Submission, lent: Callable[[], LentRank | None]
    ) -> None:
        """`lent` returns the rank to which this machine lends its GPU."""
        self._controller = controller
        self._submission = submission
        self._lent = lent

    @guarded
    async def Submit(  # noqa: N802
        self, request: jobs_pb2.SubmitRequest, context: Any
    ) -> jobs_pb2.SubmitResponse:
        """Refuse a job at once, attach to a live one, continue an ended one or queue a new one."""
        spec = spec_from_wire(request.spec)
        wanted = SubmitRequest(spec, request.idempotency_key, request.fresh, request.after)
        accepted = await self._submission.submit(wanted)
        return jobs_pb2.SubmitResponse(
            job=view(self._controller, accepted.job_id),
            outcome=jobs_pb2.SubmitResponse.Outcome.Value(f"OUTCOME_{accepted.outcome.upper()}"),
            findings=[finding_to_wire(finding) for finding in accepted.findings],
        )

    @guarded
    async def Get(self, request: jobs_pb2.JobRequest, context: Any) -> jobs_pb2.Job:  # noqa: N802
        """Return the job of that id."""
        return view(self._controller, request.id)

    @guarded
    async def List(  # noqa: N802
        self, request: jobs_pb2.ListJobsRequest, context: Any
    ) -> jobs_pb2.ListJobsResponse:
        """Return a page of the jobs in the order of their ids. Raises InvalidInput."""
        page = page_of(self._controller.scheduler.jobs.values(), request)
        queue, views = QueueView(self._controller), []
        for count, job_id in enumerate(page.ids):
            if count % _VIEWS_PER_TURN == 0:
                await asyncio.sleep(0)  # a long list must not keep other calls waiting
            with contextlib.suppress(NotFound):  # removed meanwhile
                views.append(self._shown(job_id, queue))
        return jobs_pb2.ListJobsResponse(
            jobs=views,
            left_out=page.left_out,
            next_page_token=page.next_token,
            lent=self._lent(),
        )

    def _shown(self, job_id: int, queue: QueueView) -> jobs_pb2.Job:
        """Return the job's view, or a short one with the error. Raises NotFound.

        A job that cannot be shown must not hide the others.
        """
        try:
            return view(self._controller, job_id, queue)
        except NotFound:
            raise
        except SafetrainError as error:
            cause = finding_of(error)
        except Exception as error:
            log.exception("job %d cannot be shown", job_id)
            reason = f"{type(error).__name__}: {error}"[:200]
            cause = Finding("job.unreadable", Status.FAILED, args={"reason": reason})
        state = state_to_wire(self._controller.job(job_id).state)
        return jobs_pb2.Job(id=job_id, state=state, cause=finding_to_wire(cause))

    @guarded
    async def Pause(self, request: jobs_pb2.JobRequest, context: Any) -> jobs_pb2.Job:  # noqa: N802
        """Pause a job at its next step."""
        return self._request(request.id, triggers.PauseAsked(request.id))

    @guarded
    async def Resume(  # noqa: N802
        self, request: jobs_pb2.JobRequest, context: Any
    ) -> jobs_pb2.Job:
        """Put a paused job at the head of the queue."""
        await self._submission.check_going_on(request.id)
        return self._request(request.id, triggers.ResumeAsked(request.id))

    @guarded
    async def Cancel(  # noqa: N802
        self, request: jobs_pb2.JobRequest, context: Any
    ) -> jobs_pb2.Job:
        """Cancel a job at its next step."""
        return self._request(request.id, triggers.CancelAsked(request.id))

    @guarded
    async def Retry(self, request: jobs_pb2.JobRequest, context: Any) -> jobs_pb2.Job:  # noqa: N802
        """Queue a failed or cancelled job again."""
        await self._submission.check_going_on(request.id)
        return self._request(request.id, triggers.RetryAsked(request.id))

    @guarded
    async def Move(  # noqa: N802
        self, request: jobs_pb2.MoveJobRequest, context: Any
    ) -> jobs_pb2.Job:
        """Move a waiting job to the head or the end of the queue."""
        return self._request(request.id, triggers.MoveAsked(request.id, request.first))

    @guarded
    async def Remove(  # noqa: N802
        self, request: jobs_pb2.RemoveJobRequest, context: Any
    ) -> jobs_pb2.RemoveJobResponse:
        """Remove a job that has ended. With `files`, delete its files too. Raises Busy where a
        worker is at them.

        A verdict stays, since it belongs to the training.
        """
        job, output = self._controller.job(request.id), self._controller.record(request.id).output
        kept: list[str] = []
        if request.files and job.state in FINAL and not job.evaluates:
            home = self._controller.home.root
            remove = output_folder.remove
            async with claimed_soon(Path(output)):
                kept = await bounded(output, remove, output, request.id, home, seconds=SLOW_SECONDS)
        self._controller.request(triggers.Removed(request.id))
        return jobs_pb2.RemoveJobResponse(kept=kept)

    def _request(self, job_id: int, trigger: triggers.Trigger) -> jobs_pb2.Job:
        self._controller.request(trigger)
        return view(self._controller, job_id)
