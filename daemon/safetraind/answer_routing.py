"""Routes a question to the training worker or to the inference server, with model and adapter.

Pure, except that adapters and their owners are looked up in the jobs' output folders.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from safetrain_shared.errors import Busy, NotFound
from safetrain_shared.findings import Finding, Status
from safetrain_shared.jobs import FINAL, JobState
from safetrain_shared.paths import ADAPTERS
from safetraind.storage import training_state
from safetraind.storage.training_state import TrainingState

_ACTIVE = (JobState.RUNNING, JobState.CHECKING)
_WEIGHTS = "adapters.safetensors"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A job that may answer. `model`: the folder (or hub id) of its model. A job that only
    `evaluates` another holds the GPU and answers nothing.
    """

    id: int
    state: JobState
    model: str
    output: Path
    home: Path
    finished: float = 0.0
    evaluates: bool = False

    @property
    def replaced_by(self) -> TrainingState | None:
        """The training of another job, or another home's, that the output folder holds now."""
        state = self._held()
        return state if state is not None and not state.belongs_to(self.id, self.home) else None

    @property
    def trains(self) -> bool:
        """Whether its worker is at its training."""
        return self.state is JobState.RUNNING and not self.evaluates

    def _held(self) -> TrainingState | None:
        return training_state.read(self.output)

    def adapter(self, checkpoint: str = "") -> Path | None:
        """Return the folder of the job's best adapter, or of a checkpoint; None without one.

        An adapter of another job that was trained in the same output folder does not count.
        """
        folder = self.output / (Path(checkpoint).name or ADAPTERS)
        state = self._held()
        ours = state is not None and state.belongs_to(self.id, self.home)
        return folder if ours and (folder / _WEIGHTS).is_file() else None


@dataclass(frozen=True, slots=True)
class TrainingRoute:
    """Ask the worker of the job in training."""

    job_id: int


@dataclass(frozen=True, slots=True)
class ServerRoute:
    """Ask the inference server. `adapter` None: the base. `model` empty: the default model."""

    model: str
    adapter: Path | None = None
    job_id: int = 0
    note: Finding | None = None


Route = TrainingRoute | ServerRoute


def route(
    candidates: Sequence[Candidate],
    *,
    job_id: int = 0,
    checkpoint: str = "",
    base: bool = False,
    model: str = "",
) -> Route:
    """Choose the worker that answers.

    Raises NotFound for a job, adapter or checkpoint that does not exist, and Busy where the answer
    would need the GPU that a training (or its preflight) holds.
    """
    active = next((c for c in candidates if c.state in _ACTIVE), None)
    chosen = _chosen(candidates, job_id, active) if job_id or not model else None
    if chosen is not None and chosen.trains and not checkpoint:
        return TrainingRoute(chosen.id)
    if active is not None:
        raise Busy(_why_busy(active, chosen), training=active.id)
    if chosen is None:
        note = None if model or base else Finding("ask.base_only", Status.INFO)
        return ServerRoute(model, note=note)
    if base:
        return ServerRoute(chosen.model, job_id=chosen.id)
    return ServerRoute(chosen.model, own_adapter(chosen, checkpoint), chosen.id)


def own_adapter(job: Candidate, checkpoint: str = "") -> Path:
    """Return the folder of the job's best adapter, or of a checkpoint. Raises NotFound."""
    adapter = job.adapter(checkpoint)
    if adapter is not None:
        return adapter
    other = job.replaced_by
    if other is not None and other.job != job.id:
        raise NotFound("ask.adapter_replaced", id=job.id, other=other.job, output=str(job.output))
    if other is not None:
        where = str(job.output)
        raise NotFound("ask.adapter_of_other_home", id=job.id, home=other.home, output=where)
    if checkpoint:
        raise NotFound("ask.checkpoint_unknown", id=job.id, checkpoint=checkpoint)
    raise NotFound("ask.no_adapter", id=job.id)


def _why_busy(active: Candidate, chosen: Candidate | None) -> str:
    """Return the error code for why `chosen` (None: a named model) can't answer now."""
    if active.evaluates:
        return "ask.busy_evaluating"
    if active.state is JobState.CHECKING:
        return "ask.busy_checking"
    if chosen is None:
        return "ask.busy_other_model"
    return "ask.busy_checkpoint" if chosen.id == active.id else "ask.busy_other_job"


def _chosen(
    candidates: Sequence[Candidate], job_id: int, active: Candidate | None
) -> Candidate | None:
    """Return the named job, else the one in training, else the newest with an adapter.

    A paused or interrupted job counts as newer than any that has ended.
    """
    if job_id:
        named = [c for c in candidates if c.id == job_id]
        if not named:
            raise NotFound("job.unknown", id=job_id)
        return named[0]
    if active is not None and active.trains:
        return active
    trained = [c for c in candidates if c.state not in _ACTIVE and c.adapter() is not None]
    return max(trained, key=lambda c: (c.state not in FINAL, c.finished, c.id), default=None)
