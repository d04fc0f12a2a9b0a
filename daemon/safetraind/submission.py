"""Submitting: what is refused at once, what attaches, what continues, what joins the queue."""

from __future__ import annotations

import asyncio
import dataclasses
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from safetrain_shared.errors import Conflict, InvalidInput, NotAllowed, NotFound
from safetrain_shared.findings import Finding
from safetrain_shared.jobs import FINAL, JobSpec, JobState
from safetrain_shared.paths import Home, nearest_existing
from safetrain_shared.settings import TrainingSettings
from safetraind.controller.controller import Controller
from safetraind.models.registry import Models, Source
from safetraind.preflight.job_preflight import Foreseen
from safetraind.scheduler import state, triggers
from safetraind.storage import output_folder
from safetraind.storage.folder_identity import known_name
from safetraind.storage.job_document import DataFile, JobDocument, ModelSource
from safetraind.storage.job_store import Record
from safetraind.storage.manifest import sha256

_NO_DISK = ("/proc", "/sys", "/dev")  # where no folder can be made, or none stays


@dataclass(frozen=True, slots=True)
class Wish:
    """What a client wants to be trained. `after`: a job whose end it waits for; 0: none."""

    spec: JobSpec
    key: str = ""
    fresh: bool = False
    after: int = 0


@dataclass(frozen=True, slots=True)
class Accepted:
    """The job that answers the wish. `outcome`: queued, attached or continued."""

    job_id: int
    outcome: str
    findings: tuple[Finding, ...] = ()


class QuickCheck(Protocol):
    """The checks that need no GPU."""

    async def foresee(self, spec: JobSpec, *, idle: bool) -> Foreseen:
        """What is worth knowing, and the plan as predicted. Raises Blocked.

        `idle`: nothing else uses the machine's memory when the job's turn comes than does now.
        """


class Submission:
    """Takes wishes. Those for one output folder are decided one after the other."""

    def __init__(self, controller: Controller, models: Models, checks: QuickCheck) -> None:
        self._controller = controller
        self._models = models
        self._checks = checks
        self._one = asyncio.Lock()

    async def submit(self, wish: Wish) -> Accepted:
        """Accepts the wish.

        Raises InvalidInput, NotFound, NotAllowed, Conflict, Blocked or NoRoom.
        """
        known = self._known(wish)
        if known is not None:
            return known
        # Off the event loop: macOS may ask the user for a folder, or fetch it from iCloud.
        known_outputs = self._controller.store.outputs()
        output = await asyncio.to_thread(checked_paths, wish.spec, known_outputs)
        home = self._controller.home
        await asyncio.to_thread(check_not_ours, output, home, self._models.resolve(wish.spec.model))
        if wish.after:
            self._controller.job(wish.after)
        known = self._attached(wish, output)
        if known is not None:
            return known
        document = await self._document(wish.spec)
        begun = await asyncio.to_thread(_begun_there, wish, output, document)
        known = self._begun(wish, output, document, begun=begun)
        if known is not None:
            return known
        foreseen = await self._checks.foresee(wish.spec, idle=self._controller.idle)
        async with self._one:  # the same may have been wished for meanwhile
            begun = await asyncio.to_thread(_begun_there, wish, output, document)
            known = self._known(wish) or self._attached(wish, output)
            known = known or self._begun(wish, output, document, begun=begun)
            if known is not None:
                return known
            if wish.fresh:  # only now: a wish that is refused moves nothing
                await asyncio.to_thread(output_folder.move_aside, output)
            document = dataclasses.replace(document, forecast=foreseen.forecast)
            record = self._accept(document, output, wish)
        return Accepted(record.job.id, "queued", foreseen.findings)

    def check_retry(self, job_id: int) -> None:
        """Raises Conflict where another live job has the output folder meanwhile."""
        output = self._controller.record(job_id).output
        for record in self._controller.store.by_output(output):
            if record.job.id != job_id and record.job.state not in FINAL:
                raise Conflict("job.output_taken", id=record.job.id, output=output)

    def _known(self, wish: Wish) -> Accepted | None:
        """The job that this very wish has made already."""
        known = self._controller.store.by_key(wish.key) if wish.key else None
        if known is None:
            return None
        differences = output_folder.differences(known.spec, wish.spec)
        if wish.spec.output != known.spec.output:
            output = f"output: {known.spec.output} → {wish.spec.output}"
            differences = ", ".join(filter(None, (differences, output)))
        if differences:
            key, job_id = wish.key, known.job.id
            raise Conflict("job.other_request", key=key, id=job_id, differences=differences)
        return Accepted(known.job.id, "attached")

    def _attached(self, wish: Wish, output: Path) -> Accepted | None:
        """The live job of this output folder, if it asks for the same.

        One that waits takes new options; one that is paused goes on.
        """
        for record in self._controller.store.by_output(str(output)):
            job = self._controller.job(record.job.id)
            if job.state in FINAL:
                continue
            if wish.fresh:
                raise Conflict("job.fresh_live", id=job.id, output=str(output))
            self._check_same(wish, record, job)
            if job.state is JobState.PAUSED:
                self._revise(wish, job.id, after=wish.after)
                self._controller.wish(triggers.ResumeAsked(job.id))
                return Accepted(job.id, "continued")
            if job.state is JobState.QUEUED:
                self._revise(wish, job.id, after=wish.after or job.after)
            return Accepted(job.id, "attached")
        return None

    def _check_same(self, wish: Wish, record: Record, job: state.Job) -> None:
        """Raises Conflict where the live job is another training, or can't take new options."""
        old, output = record.spec, record.output
        differences = output_folder.differences(old, wish.spec)
        if differences and job.state is JobState.PAUSED:
            args = {"output": output, "differences": differences}
            raise Conflict("job.output_paused", id=job.id, **args)
        waits = job.state in (JobState.PAUSED, JobState.QUEUED)
        if differences or not (
            waits or output_folder.options(old) == output_folder.options(wish.spec)
        ):
            raise Conflict("job.output_taken", id=job.id, output=output)

    def _begun(
        self, wish: Wish, output: Path, document: JobDocument, *, begun: bool
    ) -> Accepted | None:
        """What was begun in the folder goes on, by the same job, or, where this home does not know
        it, by a new one.
        """
        if wish.fresh:
            return None
        job_id = self._ended_job(output, document)
        if job_id:
            self._revise(wish, job_id, after=wish.after)
            self._controller.wish(triggers.RetryAsked(job_id))
            return Accepted(job_id, "continued")
        if begun:
            return Accepted(self._accept(document, output, wish).job.id, "continued")
        return None

    def _accept(self, document: JobDocument, output: Path, wish: Wish) -> Record:
        return self._controller.accept(document, str(output), key=wish.key, after=wish.after)

    def _revise(self, wish: Wish, job_id: int, *, after: int) -> None:
        """Gives a job that does not run the options of the wish."""
        record = self._controller.record(job_id)
        old, options = record.spec, output_folder.options(wish.spec)
        self._check_chain(job_id, after)
        if after == record.job.after and options == output_folder.options(old):
            return
        spec = dataclasses.replace(old, **options)
        document = dataclasses.replace(record.document, spec=spec)
        replan = old.memory_budget != options["memory_budget"]
        self._controller.revise(job_id, document, after=after, replan=replan)

    def _check_chain(self, job_id: int, after: int) -> None:
        """Raises Conflict where the job would wait for itself."""
        waits_for = after
        while waits_for:
            if waits_for == job_id:
                raise Conflict("job.waits_for_itself", id=job_id, after=after)
            other = self._controller.scheduler.jobs.get(waits_for)
            waits_for = other.after if other is not None and other.state not in FINAL else 0

    def _ended_job(self, output: Path, document: JobDocument) -> int:
        """The newest job of the folder, if it failed or was cancelled and was the same training."""
        for record in self._controller.store.by_output(str(output))[:1]:
            same = record.document.fingerprint == document.fingerprint
            if same and record.job.state in (JobState.FAILED, JobState.CANCELLED):
                return record.job.id
        return 0

    async def _document(self, spec: JobSpec) -> JobDocument:
        """All that is frozen at submit, but for the job's id and the forecast."""
        source = await asyncio.to_thread(self._models.resolve, spec.model)
        spec = dataclasses.replace(spec, defaults=TrainingSettings())
        files = {"train": Path(spec.train), "valid": Path(spec.valid)}
        if spec.start_adapter:
            files["start_adapter"] = Path(spec.start_adapter)
        return JobDocument(
            spec=spec,
            model=ModelSource(source.path, source.hub),
            data={name: await asyncio.to_thread(_data, file) for name, file in files.items()},
            seed=spec.complete_settings.seed,
        )


def _begun_there(wish: Wish, output: Path, document: JobDocument) -> bool:
    """Whether a training was begun in the folder that this one may continue.

    Raises AlreadyFinished, and Conflict where it began with other values.
    """
    return not wish.fresh and output_folder.examine(output, document) is not None


def checked_paths(spec: JobSpec, known_outputs: Iterable[str] = ()) -> Path:
    """The output folder's path, once all paths of `spec` have passed: the one of `known_outputs`
    that names the same folder, else its own canonical one.

    Raises InvalidInput, NotFound or NotAllowed, naming the path.
    """
    for name in (spec.train, spec.valid, *filter(None, (spec.start_adapter,))):
        checked_file(Path(name))
    return known_name(checked_output(Path(spec.output)), known_outputs)


def checked_file(path: Path) -> None:
    """Raises InvalidInput, NotFound or NotAllowed unless `path` is a file that can be read."""
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
    """The canonical path of an output folder that is there, or can be made."""
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


def check_not_ours(output: Path, home: Home, model: Source) -> None:
    """Raises InvalidInput for an output folder in the home's own folders or in the model's.

    The files of each are told from the others' by their folder alone.
    """
    root = home.root.resolve()
    kept = (root / "runs", home.models.resolve(), home.learned.resolve())
    if output == root or any(output.is_relative_to(folder) for folder in kept):
        raise InvalidInput("path.ours", path=str(output))
    if not model.hub and output.is_relative_to(Path(model.path).resolve()):
        raise InvalidInput("path.of_the_job", path=str(output), used=model.path)


def check_absolute(path: Path | str) -> None:
    """Raises InvalidInput for a relative path: the daemon stands in another folder. And for one
    with a NUL byte, which no system takes.
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
