"""The Python API: the commands, for programs and notebooks.

Every call raises a `SafetrainError` where the command would print a sentence; `str(error)` is that
sentence, `error.code` its stable name; `safetrain_shared.errors` lists the classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Unpack

from safetrain.api.aio import AsyncClient, AsyncJob
from safetrain.api.answer import ASK_DEFAULTS, Answer, AskOptions
from safetrain.api.client import JOB_DEFAULTS, Client, JobOptions
from safetrain.api.data_files import Prepared, Preview, Sample
from safetrain.api.evaluation import Evaluation
from safetrain.api.job import Job
from safetrain.api.keywords import keywords
from safetrain.api.metrics import Metrics
from safetrain.api.preflight_result import Preflight
from safetrain_shared.errors import (
    AlreadyFinished,
    Blocked,
    Broken,
    Busy,
    Conflict,
    Damaged,
    Incompatible,
    InvalidInput,
    InvalidSetting,
    NoRoom,
    NotAllowed,
    NotFound,
    SafetrainError,
    Unreachable,
)
from safetrain_shared.events import Evaluated, Event, StepDone
from safetrain_shared.findings import Finding, Status
from safetrain_shared.jobs import DEFAULT_MODEL, JobSpec, JobState, Plan
from safetrain_shared.settings import SettingValue, TrainingSettings

__all__ = [
    "AlreadyFinished",
    "Answer",
    "AskOptions",
    "AsyncClient",
    "AsyncJob",
    "Blocked",
    "Broken",
    "Busy",
    "Client",
    "Conflict",
    "Damaged",
    "Evaluated",
    "Evaluation",
    "Event",
    "Finding",
    "Incompatible",
    "InvalidInput",
    "InvalidSetting",
    "Job",
    "JobOptions",
    "JobSpec",
    "JobState",
    "Metrics",
    "NoRoom",
    "NotAllowed",
    "NotFound",
    "Plan",
    "Preflight",
    "Prepared",
    "Preview",
    "SafetrainError",
    "Sample",
    "Status",
    "StepDone",
    "TrainingSettings",
    "Unreachable",
    "ask",
    "connect",
    "jobs",
    "preflight",
    "prepare",
    "preview",
    "submit",
    "validate",
]


def connect(
    home: str | None = None, *, autostart: bool = True, lang: str | None = None, host: str = ""
) -> Client:
    """Connect to the daemon of `home` (a folder; by default `$SAFETRAIN_HOME`, else the
    platform's), started where none runs and `autostart` allows it.

    `lang`: `en` or `pt`; by default the locale's. `host`: another machine, by its name in
    `safetrain hosts` or in ssh, in place of `home`. Raises Unreachable where there is no daemon,
    NotAllowed where its socket belongs to another user.
    """
    return Client(home, autostart=autostart, lang=lang, host=host)


@cache
def _default() -> Client:
    return connect()


@keywords(JobOptions, JOB_DEFAULTS)
def preflight(*, wait: bool = False, **options: Unpack[JobOptions]) -> Preflight:
    """`Client.preflight` on the default connection."""
    return _default().preflight(wait=wait, **options)


@keywords(JobOptions, JOB_DEFAULTS)
def submit(
    *, fresh: bool = False, after: Job | int | None = None, **options: Unpack[JobOptions]
) -> Job:
    """`Client.submit` on the default connection."""
    return _default().submit(fresh=fresh, after=after, **options)


@keywords(AskOptions, ASK_DEFAULTS)
def ask(question: str, **options: Unpack[AskOptions]) -> Answer:
    """`Client.ask` on the default connection."""
    return _default().ask(question, **options)


def jobs() -> list[Job]:
    """`Client.jobs` on the default connection."""
    return _default().jobs()


def prepare(
    *files: str,
    output: str,
    columns: Mapping[str, str] | None = None,
    weights: Sequence[float] = (),
    valid: float = 0.1,
    questions: float = 0.0,
    seed: int = 0,
) -> Prepared:
    """`Client.prepare` on the default connection."""
    return _default().prepare(
        *files,
        output=output,
        columns=columns,
        weights=weights,
        valid=valid,
        questions=questions,
        seed=seed,
    )


def preview(
    file: str,
    *,
    model: str = DEFAULT_MODEL,
    samples: int = 3,
    length: int = 0,
    settings: Mapping[str, SettingValue] | None = None,
) -> Preview:
    """`Client.preview` on the default connection."""
    return _default().preview(file, model=model, samples=samples, length=length, settings=settings)


def validate(*files: str) -> Iterable[Finding]:
    """`Client.validate` on the default connection."""
    return _default().validate(*files)
