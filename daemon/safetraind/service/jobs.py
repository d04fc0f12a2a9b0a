"""`safetrain.v1.Jobs`: submit, look at, control."""

from __future__ import annotations

import asyncio
from typing import Any

from safetrain_proto.v1 import jobs_pb2, jobs_pb2_grpc
from safetrain_shared.jobs import FINAL
from safetrain_shared.wire import finding_to_wire, spec_from_wire
from safetraind.controller.controller import Controller
from safetraind.job_view import view
from safetraind.scheduler import triggers
from safetraind.service.error_mapping import guarded
from safetraind.storage import output_folder
from safetraind.submission import Submission, Wish


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
        """All jobs, oldest first."""
        ids = sorted(self._controller.scheduler.jobs)
        return jobs_pb2.ListJobsResponse(jobs=[view(self._controller, job_id) for job_id in ids])

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
            kept = await asyncio.to_thread(output_folder.remove, output, request.id)
        self._controller.wish(triggers.Removed(request.id))
        return jobs_pb2.RemoveJobResponse(kept=kept)

    def _granted(self, job_id: int, trigger: triggers.Trigger) -> jobs_pb2.Job:
        self._controller.wish(trigger)
        return view(self._controller, job_id)
