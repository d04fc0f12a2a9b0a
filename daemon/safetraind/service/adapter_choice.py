"""The choice of a call's adapter: that of the job named, else that of the newest job that has
one.
"""

from __future__ import annotations

from pathlib import Path

from safetrain_shared.errors import NotFound
from safetraind.answer_routing import Candidate
from safetraind.controller.controller import Controller
from safetraind.job_view import model_of


def candidate(controller: Controller, job_id: int) -> Candidate:
    """Return a job as far as its adapter goes. Raises NotFound."""
    record, job = controller.record(job_id), controller.job(job_id)
    model, home = model_of(controller, job_id), controller.home.root
    output, finished = Path(record.output), record.finished
    return Candidate(job_id, job.state, model, output, home, finished, evaluates=job.evaluates)


def job_with_adapter(controller: Controller, job_id: int) -> Candidate:
    """Return the job of that id; with 0 the newest that has an adapter. Raises NotFound."""
    if job_id:
        return candidate(controller, job_id)
    jobs = (candidate(controller, known) for known in sorted(controller.scheduler.jobs)[::-1])
    found = next((job for job in jobs if job.adapter() is not None), None)
    if found is None:
        raise NotFound("export.nothing")
    return found
