"""Messages of the role `fetch`: a repository of the hub to download."""

from __future__ import annotations

from dataclasses import dataclass

from safetraind.worker_messages.role import Role


@dataclass(frozen=True, slots=True)
class FetchRequest:
    """A request to download. `repository`: `owner/name` at the hub. `dry_run`: return only its
    size.
    """

    repository: str
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class FetchLine:
    """One line of a download; one field is set. `bytes`: its size; `done`: the share that arrived,
    0 to 1.
    """

    bytes: int | None = None
    done: float | None = None


@dataclass(frozen=True, slots=True)
class Fetched:
    """`path`: the folder of the downloaded snapshot; empty after a dry run."""

    path: str


FETCH = Role("fetch", FetchLine, Fetched)
