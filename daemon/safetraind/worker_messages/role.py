"""The definition of an ephemeral worker's role: the types of its lines and of its result.

The daemon writes a request as `ROLE_request.json` into the worker's run folder. The worker appends
lines to `probe.json.partial` while it works and writes its result, or {"error": …}, to
`probe.json`. All of them are JSON objects with the fields of their dataclass.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from safetrain_shared.codec import from_plain
from safetrain_shared.errors import SafetrainError, error_from_dict

Line = TypeVar("Line")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Role(Generic[Line, Result]):
    """A role of the worker's command line, with the types of its lines and of its result."""

    name: str
    line: type[Line]
    result: type[Result]

    def read_line(self, data: Any) -> Line:
        """Return a line that the worker wrote. Raises ValueError."""
        return from_plain(data, self.line)

    def read_result(self, data: Any) -> Result | SafetrainError | None:
        """Return the worker's result, or the error that it ended with; None for any other data."""
        try:
            if isinstance(data, Mapping) and "error" in data:
                return error_from_dict(data["error"])
            return None if data is None else from_plain(data, self.result)
        except (ValueError, TypeError, AttributeError):
            return None


@dataclass(frozen=True, slots=True)
class WorkerProgress:
    """A worker's phase, and the share of it that is done: 0 to 1, negative where it is unknown."""

    phase: str
    done: float = -1.0
