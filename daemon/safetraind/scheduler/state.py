"""The scheduler's state: all jobs, the holder of the GPU lease, and the ends of workers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from safetrain_shared.findings import Finding
from safetrain_shared.jobs import JobState, Plan

FREE, ASKED, HELD = "free", "asked", "held"


@dataclass(frozen=True, slots=True)
class Job:
    """The moving part of a job.

    `position` orders the queue, the lowest first. `attempts_without_progress` counts the attempts
    in a row that died without a new checkpoint. `plan` is there once it is frozen. `held`: an
    interrupted job waits for room on a disk or in memory. `resting`: it waits for the next segment
    of its training, and no other job starts before. `ineffective`: fallbacks, by their settings,
    that would not save it memory. `evaluates`: it trains nothing, so it needs no check and no plan.
    """

    id: int
    state: JobState = JobState.QUEUED
    position: float = 0.0
    after: int = 0
    attempt: int = 0
    intent: str = ""
    attempts_without_progress: int = 0
    cause: Finding | None = None
    plan: Plan | None = None
    allow_shorter: bool = False
    evaluates: bool = False
    held: bool = False
    resting: bool = False
    ineffective: frozenset[str] = frozenset()

    @property
    def ranks(self) -> int:
        """The workers that train it together."""
        return 1 if self.plan is None or self.evaluates else self.plan.settings.all_ranks

    @property
    def machines(self) -> tuple[str, ...]:
        """The other machines that train it together with this one, by their ranks from 1 on."""
        return () if self.plan is None or self.evaluates else self.plan.settings.machines


@dataclass(frozen=True, slots=True)
class SchedulerState:
    """All jobs by id, the state of the lease (free, asked for, held), and whether the daemon
    stops.
    """

    jobs: Mapping[int, Job] = field(default_factory=dict)
    lease: str = FREE
    stopping: bool = False

    @property
    def active(self) -> Job | None:
        """The one job that is being checked or trained."""
        busy = (JobState.CHECKING, JobState.RUNNING)
        return next((job for job in self.jobs.values() if job.state in busy), None)

    @property
    def waiting(self) -> list[Job]:
        """Jobs that wait to start, in their order. Those that wait for another job's end cannot
        start yet.
        """
        turns = {JobState.INTERRUPTED: 0, JobState.QUEUED: 1}
        jobs = [job for job in self.jobs.values() if job.state in turns]
        return sorted(jobs, key=lambda job: (turns[job.state], job.position, job.id))


@dataclass(frozen=True, slots=True)
class WorkerExit:
    """A worker's end, from its last event, if it wrote one, and its keeper's note.

    `spoke`: it sent at least one event in this attempt, or the keeper saw it end. `memory_short`:
    it was killed, and what was seen just before speaks for memory as the cause. `panic`: the report
    of a kernel panic that restarted the machine meanwhile, a path. `ineffective`: what it said of
    the fallbacks, see `Job`. `hung`: the finding for which the daemon killed its ranks. `rank` of
    `ranks`: whose end it is; with several, that which ended the others.
    """

    outcome: str = ""
    cause: Finding | None = None
    checkpointed: bool = False
    spoke: bool = False
    code: int = 0
    signal: int = 0
    oom_kills: int = 0
    memory_short: bool = False
    machine_restarted: bool = False
    panic: str = ""
    log: str = ""
    ineffective: frozenset[str] = frozenset()
    hung: Finding | None = None
    rank: int = 0
    ranks: int = 1
