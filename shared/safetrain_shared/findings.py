"""A finding: one statement about machine, data, model or run, as data; the sentence comes last."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from safetrain_shared.errors import ArgValue, SafetrainError

SECTIONS = ("hardware", "dependencies", "gpu", "data", "model", "disk", "recommendation")


class Status(StrEnum):
    """How a check came out."""

    PASSED = "passed"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"
    INFO = "info"


@dataclass(frozen=True, slots=True)
class Finding:
    """One statement.

    `code` names the sentence in `messages`; `args` are its numbers and names, raw (bytes, seconds).
    A failed finding that does not `block` counts as failed and stops nothing.
    """

    code: str
    status: Status = Status.INFO
    blocks: bool = False
    args: Mapping[str, ArgValue] = field(default_factory=dict)
    section: str = ""


def finding_of(error: SafetrainError, status: Status = Status.FAILED) -> Finding:
    """Return what an error says as a finding, which blocks if it `failed`."""
    return Finding(error.code, status, status is Status.FAILED, error.args_by_name)
