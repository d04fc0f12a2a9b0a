"""Submits jobs: a request is refused, attached to a live job, continues one, or is queued."""

from __future__ import annotations

import asyncio
import dataclasses
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from safetrain_shared.errors import Conflict, InvalidInput, NotAllowed, NotFound
from safetrain_shared.findings import Finding, Status
from safetrain_shared.jobs import FINAL, JobSpec, JobState
from safetrain_shared.paths import Home, nearest_existing
from safetrain_shared.settings import TrainingSettings
from safetraind.controller.controller import Controller
from safetraind.machines.party import fitness, hosts_of
from safetraind.models.registry import Models, Source
from safetraind.preflight.job_preflight import Foreseen, located
from safetraind.processes.locks import claimed_soon
from safetraind.scheduler import state, triggers
from safetraind.storage import output_folder
from safetraind.storage.bounded_read import SLOW_SECONDS, bounded
from safetraind.storage.folder_identity import known_name
from safetraind.storage.job_document import DataFile, JobDocument, ModelSource
from safetraind.storage.manifest import sha256
from safetraind.storage.record import Record

_NO_DISK = ("/proc", "/sys", "/dev")  # pseudo file systems: no place for an output folder


@dataclass(frozen=True, slots=True)
class SubmitRequest:
    """A client's request to train.

    `key`: an idempotency key. `fresh`: move an old run in the output folder aside. `after`: the job
    whose end to wait for; 0: none.
    """

    spec: JobSpec
    key: str = ""
    fresh: bool = False
    after: int = 0


@dataclass(frozen=True, slots=True)
class Accepted:
    """The job for a request. `outcome`: queued, attached or continued."""

    job_id: int
    outcome: str
    findings: tuple[Finding, ...] = ()


class QuickCheck(Protocol):
    """The checks that need no GPU."""

    async def foresee(self, spec: JobSpec, *, idle: bool) -> Foreseen:
        """Return findings and the predicted plan. Raises Blocked.

        `idle`: nobody holds the GPU or waits for it; the memory free now is free for this job.
        """


class Submission:
    """Handles submit requests; a lock keeps two requests for one output folder apart."""

    def __init__(self, controller: Controller, models: Models, checks: QuickCheck) -> None:
        self._controller = controller
        self._models = models
        self._checks = checks
        self._lock = asyncio.Lock()

    async def submit(self, request: SubmitRequest) -> Accepted:
        """Return the job for the request, a new one if necessary.

        Raises InvalidInput, NotFound, NotAllowed, Conflict, Blocked or NoRoom.
        """
        known = self._by_key(request)
        if known is not None:
            return known
        # Bounded: macOS may ask the user for permission, or fetch a file from iCloud.
        outputs = self._controller.store.outputs()
        output = await bounded(request.spec.output, checked_paths, request.spec, outputs)
        home = self._controller.home
        model = request.spec.model
        source = await bounded(model, self._models.resolve, model)
        await bounded(output, check_not_reserved, output, home, source)
        await bounded(output, output_folder.check_home, output, home.root)
        if request.after:
            self._controller.job(request.after)
        known = self._attached(request, output)
        if known is not None:
            return known
        document = await self._document(request.spec)
        begun = await bounded(output, _can_continue, request, output, document)
        known = self._continued(request, output, document, begun=begun)
        if known is not None:
            return known
        foreseen = await self._checks.foresee(request.spec, idle=self._controller.idle)
        machines = await self._machines(document, source, foreseen)
        async with self._lock:  # the same may have been requested meanwhile
            begun = await bounded(output, _can_continue, request, output, document)
            known = self._by_key(request) or self._attached(request, output)
            known = known or self._continued(request, output, document, begun=begun)
            if known is not None:
                return known
            if request.fresh:  # only now: a refused request must not move anything
                await move_aside(output)
            document = dataclasses.replace(document, forecast=foreseen.forecast)
            record = self._accept(document, output, request)
        return Accepted(record.job.id, "queued", (*foreseen.findings, *machines))

    async def _machines(
        self, document: JobDocument, source: Source, foreseen: Foreseen
    ) -> list[Finding]:
        """Return what the other machines of the job offer. Raises what speaks against one of them.

        A model that is not here yet is compared once the training starts.
        """
        hosts, model = hosts_of(document), located(source)
        if not hosts or model is None:
            return []
        found = await fitness(document, model, foreseen.forecast.plan, self._controller.home)
        return [
            Finding(
                "machines.busy" if one.busy else "machines.ready",
                Status.WARNING if one.busy else Status.INFO,
                args={"machine": host.name, "memory": one.memory},
            )
            for host, one in zip(hosts, found, strict=True)
        ]

    async def check_going_on(self, job_id: int) -> None:
        """Raise Conflict where another job uses the output folder, or has trained in it since."""
        record, home = self._controller.record(job_id), self._controller.home.root
        output = record.output
        if not record.job.evaluates:  # of an evaluation, its worker's start tells
            check = output_folder.check_not_replaced
            await bounded(output, check, Path(output), job_id, home, record.document)
        for record in self._controller.store.by_output(output):
            if record.job.id != job_id and record.job.state not in FINAL:
                raise Conflict("job.output_taken", id=record.job.id, output=output)

    def _by_key(self, request: SubmitRequest) -> Accepted | None:
        """Return the job of an earlier request with the same idempotency key. Raises Conflict."""
        known = self._controller.store.by_key(request.key) if request.key else None
        if known is None:
            return None
        differences = output_folder.differences(known.spec, request.spec)
        if request.spec.output != known.spec.output:
            output = f"output: {known.spec.output} → {request.spec.output}"
            differences = ", ".join(filter(None, (differences, output)))
        if differences:
            key, job_id = request.key, known.job.id
            raise Conflict("job.other_request", key=key, id=job_id, differences=differences)
        return Accepted(known.job.id, "attached")

    def _attached(self, request: SubmitRequest, output: Path) -> Accepted | None:
        """Return the live job of this output folder, if it is the same training.

        A waiting job gets the request's options; a paused one is resumed. Raises Conflict.
        """
        for record in self._controller.store.by_output(str(output)):
            job = self._controller.job(record.job.id)
            if job.state in FINAL:
                continue
            if request.fresh:
                raise Conflict("job.fresh_live", id=job.id, output=str(output))
            self._check_same(request, record, job)
            if job.state is JobState.PAUSED:
                self._revise(request, job.id, after=request.after)
                self._controller.request(triggers.ResumeAsked(job.id))
                return Accepted(job.id, "continued")
            if job.state is JobState.QUEUED:
                self._revise(request, job.id, after=request.after or job.after)
            return Accepted(job.id, "attached")
        return None

    def _check_same(self, request: SubmitRequest, record: Record, job: state.Job) -> None:
        """Raise Conflict where the live job is another training, or can't take new options."""
        old, output = record.spec, record.output
        differences = output_folder.differences(old, request.spec)
        if differences and job.state is JobState.PAUSED:
            args = {"output": output, "differences": differences}
            raise Conflict("job.output_paused", id=job.id, **args)
        waits = job.state in (JobState.PAUSED, JobState.QUEUED)
        if differences or not (
            waits or output_folder.options(old) == output_folder.options(request.spec)
        ):
            raise Conflict("job.output_taken", id=job.id, output=output)

    def _continued(
        self, request: SubmitRequest, output: Path, document: JobDocument, *, begun: bool
    ) -> Accepted | None:
        """Continue the training in the folder, by its job or, where that is gone, by a new one."""
        if request.fresh:
            return None
        job_id = self._ended_job(output, document)
        if job_id:
            self._revise(request, job_id, after=request.after)
            self._controller.request(triggers.RetryAsked(job_id))
            return Accepted(job_id, "continued")
        if begun:
            return Accepted(self._accept(document, output, request).job.id, "continued")
        return None

    def _accept(self, document: JobDocument, output: Path, request: SubmitRequest) -> Record:
        return self._controller.accept(document, str(output), key=request.key, after=request.after)

    def _revise(self, request: SubmitRequest, job_id: int, *, after: int) -> None:
        """Give a job that does not run the options of the request."""
        record = self._controller.record(job_id)
        old, options = record.spec, output_folder.options(request.spec)
        self._check_chain(job_id, after)
        if after == record.job.after and options == output_folder.options(old):
            return
        spec = dataclasses.replace(old, **options)
        document = dataclasses.replace(record.document, spec=spec)
        replan = old.memory_budget != options["memory_budget"]
        self._controller.revise(job_id, document, after=after, replan=replan)

    def _check_chain(self, job_id: int, after: int) -> None:
        """Raise Conflict where the job would wait for itself."""
        waits_for = after
        while waits_for:
            if waits_for == job_id:
                raise Conflict("job.waits_for_itself", id=job_id, after=after)
            other = self._controller.scheduler.jobs.get(waits_for)
            waits_for = other.after if other is not None and other.state not in FINAL else 0

    def _ended_job(self, output: Path, document: JobDocument) -> int:
        """Return the folder's newest job, if it failed or was cancelled and is the same; else 0."""
        for record in self._controller.store.by_output(str(output))[:1]:
            same = record.document.fingerprint == document.fingerprint
            if same and record.job.state in (JobState.FAILED, JobState.CANCELLED):
                return record.job.id
        return 0

    async def _document(self, spec: JobSpec) -> JobDocument:
        """Return everything that is frozen at submit, except the job's id and the forecast."""
        source = await bounded(spec.model, self._models.resolve, spec.model)
        spec = dataclasses.replace(spec, defaults=TrainingSettings())
        files = {"train": Path(spec.train), "valid": Path(spec.valid)}
        if spec.start_adapter:
            files["start_adapter"] = Path(spec.start_adapter)
        return JobDocument(
            spec=spec,
            model=ModelSource(source.path, source.hub),
            data={
                name: await bounded(file, _data, file, seconds=SLOW_SECONDS)
                for name, file in files.items()
            },
            seed=spec.complete_settings.seed,
        )


async def move_aside(output: Path) -> None:
    """Move the training in the folder aside. Raises Busy where a worker is at it, and the errors of
    `output_folder.move_aside`.
    """
    async with claimed_soon(output):
        await bounded(output, output_folder.move_aside, output)


def _can_continue(request: SubmitRequest, output: Path, document: JobDocument) -> bool:
    """Return whether the folder holds an unfinished training that this one may continue.

    Raises AlreadyFinished, and Conflict where that training has other settings.
    """
    return not request.fresh and output_folder.examine(output, document) is not None


def checked_paths(spec: JobSpec, outputs: Iterable[str] = ()) -> Path:
    """Check all paths of `spec` and return the output folder's.

    That is the path in `outputs` (of known jobs) to the same folder, else the canonical path.
    Raises InvalidInput, NotFound or NotAllowed, naming the path.
    """
    questions = spec.evaluation.questions if spec.evaluation else ""
    for name in (spec.train, spec.valid, *filter(None, (spec.start_adapter, questions))):
        checked_file(Path(name))
    return known_name(checked_output(Path(spec.output)), outputs)


def checked_file(path: Path) -> None:
    """Raise InvalidInput, NotFound or NotAllowed unless `path` is a readable file."""
    check_absolute(path)
    try:
        if not path.exists():
            raise NotFound("path.missing", path=str(path))
        if not path.is_file():
            raise InvalidInput("path.not_a_file", path=str(path))
        path.open("rb").close()
    except OSError as error:
        reason = error.strerror or str(error)
        raise NotAllowed("path.unreadable", path=str(path), reason=reason) from error


def checked_output(path: Path) -> Path:
    """Return the canonical path of an output folder that exists or can be created.

    Raises InvalidInput or NotAllowed.
    """
    check_absolute(path)
    try:
        output = path.resolve()
        if output.exists() and not output.is_dir():
            raise InvalidInput("path.not_a_folder", path=str(path))
        if output.parent == output or any(output.is_relative_to(place) for place in _NO_DISK):
            raise InvalidInput("path.of_the_system", path=str(path))
        nearest = nearest_existing(output)
        if not nearest.is_dir():
            raise InvalidInput("path.not_a_folder", path=str(nearest))
    except OSError as error:
        reason = error.strerror or str(error)
        raise NotAllowed("path.unwritable", path=str(path), reason=reason) from error
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise NotAllowed("path.unwritable", path=str(path), reason=f"{nearest}")
    return output


def check_not_reserved(output: Path, home: Home, model: Source) -> None:
    """Raise InvalidInput for an output folder inside a home's own folders, this one's or another's,
    or the model's.

    Which files belong to safetrain or to a job is decided by their folder alone.
    """
    others = (Home(folder) for folder in (output, *output.parents))
    for one in (home, *(other for other in others if other.database.is_file())):
        root = one.root.resolve()
        kept = (root / "runs", one.models.resolve(), one.learned.resolve())
        if output == root or any(output.is_relative_to(folder) for folder in kept):
            raise InvalidInput("path.ours", path=str(output))
    if not model.hub and output.is_relative_to(Path(model.path).resolve()):
        raise InvalidInput("path.of_the_job", path=str(output), used=model.path)


def check_absolute(path: Path | str) -> None:
    """Raise InvalidInput for a relative path, or one with a NUL byte.

    The daemon's current folder is not the client's.
    """
    if "\0" in str(path):
        shown = str(path).replace("\0", "\N{REPLACEMENT CHARACTER}")
        raise InvalidInput("path.nul", path=shown)
    if not Path(path).is_absolute():
        raise InvalidInput("path.relative", path=str(path))


def _data(path: Path) -> DataFile:
    try:
        return DataFile(str(path), sha256(path), path.stat().st_size)
    except OSError as error:
        reason = error.strerror or str(error)
        raise NotAllowed("path.unreadable", path=str(path), reason=reason) from error
