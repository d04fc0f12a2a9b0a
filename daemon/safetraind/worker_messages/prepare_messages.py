"""Messages of the role `prepare`: sources to make training files from, and the result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from safetrain_shared.findings import Finding
from safetraind.worker_messages.role import Role


@dataclass(frozen=True, slots=True)
class PrepareRequest:
    """A request to prepare data. `weights`: by file, the number of copies of its samples; empty: 1
    each.

    `columns`: our names, and the source's for them. `valid`, `questions`: shares, 0 to 1.
    """

    files: tuple[str, ...]
    output: str
    weights: tuple[float, ...] = ()
    columns: Mapping[str, str] = field(default_factory=dict)
    valid: float = 0.0
    questions: float = 0.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Guess:
    """The form of a source, with its first samples in the form of training data."""

    path: str
    form: str
    columns: Mapping[str, str]
    encoding: str
    delimiter: str
    samples: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, slots=True)
class RowProgress:
    """The number of rows of a source that were read."""

    path: str
    rows: int


@dataclass(frozen=True, slots=True)
class PrepareLine:
    """One line of a preparation; one field is set. `problem`: a row that was dropped."""

    guess: Guess | None = None
    problem: Finding | None = None
    progress: RowProgress | None = None


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file or folder that samples were taken from; `sha256` is empty for a folder."""

    path: str
    sha256: str
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Prepared:
    """`prepared.json`, and the worker's result.

    `shares`: of validation and questions, as asked for. `map`: the columns. `counts`: samples by
    file name. `files`: the SHA-256 of those written. `dropped`: rows by the code of the problem.
    """

    FORMAT: ClassVar[int] = 1

    sources: tuple[SourceFile, ...]
    shares: Mapping[str, float]
    map: Mapping[str, str]
    seed: int
    counts: Mapping[str, int]
    files: Mapping[str, str]
    dropped: Mapping[str, int]


PREPARE = Role("prepare", PrepareLine, Prepared)
