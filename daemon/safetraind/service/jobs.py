"""`safetrain.v1.Jobs`: submit, look at, control."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable
from typing import Any

from safetrain_proto.v1 import jobs_pb2, jobs_pb2_grpc
from safetrain_shared.errors import NotFound, SafetrainError
from safetrain_shared.findings import Finding, Status
from safetrain_shared.jobs import FINAL
from safetrain_shared.wire import finding_to_wire, spec_from_wire, state_to_wire
from safetraind.controller.controller import Controller
from safetraind.job_view import QueueView, view
from safetraind.scheduler import triggers
from safetraind.scheduler.state import Job
from safetraind.service.error_mapping import guarded
from safetraind.storage import output_folder
from safetraind.submission import Submission, Wish

log = logging.getLogger(__name__)
_AT_ONCE = 16  # views made before other calls have their turn


class JobsService(jobs_pb2_grpc.JobsServicer):
    """Each call is a wish to the controller and answers with the job as it then stands."""

    def __init__(self, controller: Controller, submission: Submission) -> None:
        self._controller = controller
        self._submission = submission

    @guarded
    async def Submit(  # noqa: N802
        self, request: jobs_pb2.SubmitRequest, context: Any
    ) -> jobs_pb2.SubmitResponse:
        """Rejected at once, attached, continued or queued."""
        spec = spec_from_wire(request.spec)
        wish = Wish(spec, request.idempotency_key, request.fresh, request.after)
        accepted = await self._submission.submit(wish)
        return jobs_pb2.SubmitResponse(
            job=view(self._controller, accepted.job_id),
            outcome=jobs_pb2.SubmitResponse.Outcome.Value(f"OUTCOME_{accepted.outcome.upper()}"),
            findings=[finding_to_wire(finding) for finding in accepted.findings],
        )

    @guarded
    async def Get(self, request: jobs_pb2.JobRequest, context: Any) -> jobs_pb2.Job:  # noqa: N802
        """One job."""
        return view(self._controller, request.id)

    @guarded
    async def List(  # noqa: N802
        self, request: jobs_pb2.ListJobsRequest, context: Any
    ) -> jobs_pb2.ListJobsResponse:
        """All jobs, oldest first; of those that have ended the newest `ended_limit`."""
        jobs = self._controller.scheduler.jobs
        left_out = _older(jobs.values(), request.ended_limit)
        queue, views = QueueView(self._controller), []
        for count, job_id in enumerate(sorted(jobs.keys() - left_out)):
            if count % _AT_ONCE == 0:
                await asyncio.sleep(0)  # a long list must not keep other calls waiting
            with contextlib.suppress(NotFound):  # removed meanwhile
                views.append(self._shown(job_id, queue))
        return jobs_pb2.ListJobsResponse(jobs=views, left_out=len(left_out))

    def _shown(self, job_id: int, queue: QueueView) -> jobs_pb2.Job:
        """The job's view; one that cannot be made must not hide all others. Raises NotFound."""
        try:
            return view(self._controller, job_id, queue)
        except SafetrainError:
            raise
        except Exception as error:
            log.exception("job %d cannot be shown", job_id)
            reason = f"{type(error).__name__}: {error}"[:200]
            cause = Finding("job.unreadable", Status.FAILED, args={"reason": reason})
            state = state_to_wire(self._controller.job(job_id).state)
            return jobs_pb2.Job(id=job_id, state=state, cause=finding_to_wire(cause))

    @guarded
    async def Pause(self, request: jobs_pb2.JobRequest, context: Any) -> jobs_pb2.Job:  # noqa: N802
        """Gives the machine back at the next step."""
        return self._granted(request.id, triggers.PauseAsked(request.id))

    @guarded
    async def Resume(  # noqa: N802
        self, request: jobs_pb2.JobRequest, context: Any
    ) -> jobs_pb2.Job:
        """A paused job goes to the head of the queue."""
        return self._granted(request.id, triggers.ResumeAsked(request.id))

    @guarded
    async def Cancel(  # noqa: N802
        self, request: jobs_pb2.JobRequest, context: Any
    ) -> jobs_pb2.Job:
        """Ends the job at its next step."""
        return self._granted(request.id, triggers.CancelAsked(request.id))

    @guarded
    async def Retry(self, request: jobs_pb2.JobRequest, context: Any) -> jobs_pb2.Job:  # noqa: N802
        """A failed or cancelled job goes on."""
        self._submission.check_retry(request.id)
        return self._granted(request.id, triggers.RetryAsked(request.id))

    @guarded
    async def Move(  # noqa: N802
        self, request: jobs_pb2.MoveJobRequest, context: Any
    ) -> jobs_pb2.Job:
        """A waiting job goes first, or last."""
        return self._granted(request.id, triggers.MoveAsked(request.id, request.first))

    @guarded
    async def Remove(  # noqa: N802
        self, request: jobs_pb2.RemoveJobRequest, context: Any
    ) -> jobs_pb2.RemoveJobResponse:
        """Forgets a job that has ended; with `files` also what it wrote."""
        job, output = self._controller.job(request.id), self._controller.record(request.id).output
        kept: list[str] = []
        if request.files and job.state in FINAL:
            kept = await asyncio.to_thread(
                output_folder.remove, output, request.id, self._controller.home.root
            )
        self._controller.wish(triggers.Removed(request.id))
        return jobs_pb2.RemoveJobResponse(kept=kept)

    def _granted(self, job_id: int, trigger: triggers.Trigger) -> jobs_pb2.Job:
        self._controller.wish(trigger)
        return view(self._controller, job_id)


def _older(jobs: Iterable[Job], limit: int) -> set[int]:
    """The ended jobs but for the newest `limit`; none where it is 0. By number: ids only rise."""
    ended = sorted(job.id for job in jobs if job.state in FINAL)
    return set(ended[:-limit]) if limit > 0 else set()
