"""Submitting: what is refused at once, what attaches, what continues, what joins the queue."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from safetrain_shared.errors import Conflict, InvalidInput, NotAllowed, NotFound
from safetrain_shared.findings import Finding
from safetrain_shared.jobs import FINAL, JobSpec, JobState, to_dict
from safetrain_shared.settings import TrainingSettings
from safetraind.conductor import Conductor
from safetraind.files import training_state
from safetraind.files.manifest import sha256
from safetraind.jobs import moves, outputs
from safetraind.models import Models


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

    async def quick(self, spec: JobSpec) -> list[Finding]:
        """What is worth knowing. Raises Blocked."""


class Submission:
    """Takes wishes one after the other, so that two never meet in one output folder."""

    def __init__(self, conductor: Conductor, models: Models, checks: QuickCheck) -> None:
        self._conductor = conductor
        self._models = models
        self._checks = checks
        self._one = asyncio.Lock()

    async def submit(self, wish: Wish) -> Accepted:
        """Accepts the wish.

        Raises InvalidInput, NotFound, NotAllowed, Conflict, Blocked or NoRoom.
        """
        async with self._one:
            known = self._conductor.store.by_key(wish.key) if wish.key else None
            if known is not None:
                return Accepted(known.job.id, "attached")
            output = checked_paths(wish.spec)
            if wish.after:
                self._conductor.job(wish.after)
            return self._attached(wish, output) or await self._new(wish, output)

    def check_retry(self, job_id: int) -> None:
        """Raises Conflict where another live job has the output folder meanwhile."""
        output = self._conductor.record(job_id).output
        for record in self._conductor.store.by_output(output):
            if record.job.id != job_id and record.job.state not in FINAL:
                raise Conflict("job.output_taken", id=record.job.id, output=output)

    def _attached(self, wish: Wish, output: Path) -> Accepted | None:
        """The live job of this output folder, if it asks for the same."""
        for record in self._conductor.store.by_output(str(output)):
            job = self._conductor.job(record.job.id)
            if job.state in FINAL:
                continue
            spec = to_dict(wish.spec) | {"output": record.document["spec"]["output"]}
            if not outputs.same_spec(spec, record.document["spec"]):
                raise Conflict("job.output_taken", id=job.id, output=str(output))
            if job.state is JobState.PAUSED:
                self._conductor.wish(moves.ResumeAsked(job.id))
                return Accepted(job.id, "continued")
            return Accepted(job.id, "attached")
        return None

    async def _new(self, wish: Wish, output: Path) -> Accepted:
        document = await self._document(wish.spec)
        if not wish.fresh and self._is_begun(output, document):
            return self._continued(wish, output, document)
        findings = await self._checks.quick(wish.spec)
        if wish.fresh:  # only now: a wish that is refused moves nothing
            await asyncio.to_thread(outputs.move_aside, output)
        record = self._conductor.accept(document, str(output), key=wish.key, after=wish.after)
        return Accepted(record.job.id, "queued", tuple(findings))

    def _is_begun(self, output: Path, document: dict[str, Any]) -> bool:
        begun = outputs.examine(output, document) is not None
        return begun or bool(self._ended_job(output, document))

    def _continued(self, wish: Wish, output: Path, document: dict[str, Any]) -> Accepted:
        """The same job, or, where this home does not know it, a new one that goes on from there."""
        job_id = self._ended_job(output, document)
        if job_id:
            self._conductor.wish(moves.RetryAsked(job_id))
        else:
            record = self._conductor.accept(document, str(output), key=wish.key, after=wish.after)
            job_id = record.job.id
        return Accepted(job_id, "continued")

    def _ended_job(self, output: Path, document: Mapping[str, Any]) -> int:
        """The newest job of the folder, if it failed or was cancelled and was the same training."""
        for record in self._conductor.store.by_output(str(output))[:1]:
            same = training_state.fingerprint(record.document) == training_state.fingerprint(
                document
            )
            if same and record.job.state in (JobState.FAILED, JobState.CANCELLED):
                return record.job.id
        return 0

    async def _document(self, spec: JobSpec) -> dict[str, Any]:
        """What `spec.json` holds, but for the job's id: all that is frozen at submit."""
        source = self._models.resolve(spec.model)
        seed = spec.settings.get("seed", TrainingSettings().seed)
        files = {"train": Path(spec.train), "valid": Path(spec.valid)}
        return {
            "spec": to_dict(spec),
            "seed": seed,
            "data": {name: await asyncio.to_thread(_data, file) for name, file in files.items()},
            "model": {"path": source.path, "hub": source.hub},
        }


def checked_paths(spec: JobSpec) -> Path:
    """The output folder's canonical path, once all paths of `spec` have passed.

    Raises InvalidInput, NotFound or NotAllowed, naming the path.
    """
    for path in (Path(spec.train), Path(spec.valid)):
        checked_file(path)
    return checked_output(Path(spec.output))


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
        nearest = next(folder for folder in (output, *output.parents) if folder.exists())
    except OSError as error:
        reason = error.strerror or str(error)
        raise NotAllowed("path.unwritable", path=str(path), reason=reason) from error
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise NotAllowed("path.unwritable", path=str(path), reason=f"{nearest}")
    return output


def check_absolute(path: Path | str) -> None:
    """Raises InvalidInput for a relative path: the daemon stands in another folder."""
    if not Path(path).is_absolute():
        raise InvalidInput("path.relative", path=str(path))


def _data(path: Path) -> dict[str, Any]:
    try:
        return {"path": str(path), "sha256": sha256(path), "bytes": path.stat().st_size}
    except OSError as error:
        reason = error.strerror or str(error)
        raise NotAllowed("path.unreadable", path=str(path), reason=reason) from error
