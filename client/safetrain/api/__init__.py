"""The Python API: what the commands do, for programs and notebooks.

Every call raises a `safetrain_shared.errors.SafetrainError` where the command would print a
sentence; `str(error)` is its code, `safetrain.failure.explained(error)` the sentence.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

from safetrain.api.aio import AsyncClient, AsyncJob
from safetrain.api.answer import Answer
from safetrain.api.client import Client
from safetrain.api.job import Job
from safetrain.api.metrics import Metrics
from safetrain.api.sheet import Preflight
from safetrain_shared.findings import Finding

__all__ = [
    "Answer",
    "AsyncClient",
    "AsyncJob",
    "Client",
    "Job",
    "Metrics",
    "Preflight",
    "ask",
    "connect",
    "jobs",
    "preflight",
    "submit",
    "validate",
]


def connect(home: str | None = None, *, autostart: bool = True) -> Client:
    """A connection to the daemon of `home` (a folder; by default `$SAFETRAIN_HOME`, else the
    platform's), started where none runs and `autostart` allows it.

    Raises Unreachable where there is none, NotAllowed where its socket is not ours.
    """
    return Client(home, autostart=autostart)


@cache
def _default() -> Client:
    return connect()


def preflight(**options: Any) -> Preflight:
    """`Client.preflight` on the default connection."""
    return _default().preflight(**options)


def submit(**options: Any) -> Job:
    """`Client.submit` on the default connection."""
    return _default().submit(**options)


def ask(question: str, **options: Any) -> Answer:
    """`Client.ask` on the default connection."""
    return _default().ask(question, **options)


def jobs() -> list[Job]:
    """`Client.jobs` on the default connection."""
    return _default().jobs()


def validate(*files: str) -> Iterable[Finding]:
    """`Client.validate` on the default connection."""
    return _default().validate(*files)
