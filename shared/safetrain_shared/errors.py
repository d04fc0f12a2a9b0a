"""Every error that safetrain raises on purpose, its gRPC status and its exit code.

    SafetrainError
    ├── InvalidInput        INVALID_ARGUMENT      65   a file, folder or message that cannot be used
    │   └── InvalidSetting  INVALID_ARGUMENT      78   an unknown setting or a value out of range
    ├── NotFound            NOT_FOUND             66   no such job, file, model, checkpoint
    ├── AlreadyFinished     FAILED_PRECONDITION    3   the job has ended, nothing left to do
    ├── Conflict            FAILED_PRECONDITION   73   output folder or queue forbid it
    ├── Blocked             FAILED_PRECONDITION    4   preflight found a blocker, or nothing fits
    ├── Busy                UNAVAILABLE           75   another process holds the GPU or the home
    ├── NoRoom              RESOURCE_EXHAUSTED    74   disk full, or the disk refused a write
    ├── NotAllowed          PERMISSION_DENIED     77   folder rights, macOS privacy, another user
    ├── Unreachable         UNAVAILABLE           69   no daemon, no network, no hub
    ├── Incompatible        UNIMPLEMENTED         76   client and daemon of different versions
    ├── Damaged             DATA_LOSS             72   a damaged database or checkpoint
    └── Broken              INTERNAL              70   a defect of safetrain

An error is data: a code and its arguments. `messages` makes the sentence, in the user's language.
Exit codes follow sysexits.h where it has one. Others: 0 done, 1 the job failed or a check found
errors, 2 wrong usage, 5 the job was cancelled, 6 an evaluation is inconclusive, 130 interrupted by
Ctrl-C, 141 the reader of the output has closed it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

ArgValue = str | int | float | bool | None


class SafetrainError(Exception):
    """An error with a code from `messages` and the arguments of its sentence.

    `str()` is the sentence, in `lang` if that is set, else in the language in use.
    """

    grpc_status: ClassVar[str] = "INTERNAL"
    exit_code: ClassVar[int] = 70
    lang: str | None = None

    def __init__(self, code: str, /, **args: ArgValue) -> None:
        super().__init__(code)
        self.code = code
        self.args_by_name = args

    def __str__(self) -> str:
        return self.sentence()

    def sentence(self, lang: str | None = None) -> str:
        """Return the sentence, in `lang`, else in the language of `str()`.

        For a code that only a newer daemon knows, that is the English sentence it sent along.
        """
        from safetrain_shared.messages import sentence  # an import cycle through findings

        sent_along = next(iter(getattr(self, "__notes__", ())), "")
        lang = lang or self.lang
        return sentence(self.code, self.args_by_name, lang=lang, fallback=sent_along)


class InvalidInput(SafetrainError):
    """A file, folder or message that cannot be used as it is."""

    grpc_status = "INVALID_ARGUMENT"
    exit_code = 65


class InvalidSetting(InvalidInput):
    """An unknown setting, or a value out of its range."""

    exit_code = 78


class NotFound(SafetrainError):
    """No such job, file, model or checkpoint."""

    grpc_status = "NOT_FOUND"
    exit_code = 66


class AlreadyFinished(SafetrainError):
    """The job has ended; there is nothing left to do."""

    grpc_status = "FAILED_PRECONDITION"
    exit_code = 3


class Conflict(SafetrainError):
    """The state of the output folder or of the queue forbids the request."""

    grpc_status = "FAILED_PRECONDITION"
    exit_code = 73


class Blocked(SafetrainError):
    """Preflight found a reason not to train, or nothing fits this machine."""

    grpc_status = "FAILED_PRECONDITION"
    exit_code = 4


class Busy(SafetrainError):
    """Another process holds the GPU or the home."""

    grpc_status = "UNAVAILABLE"
    exit_code = 75


class NoRoom(SafetrainError):
    """The disk is full or refused a write."""

    grpc_status = "RESOURCE_EXHAUSTED"
    exit_code = 74


class NotAllowed(SafetrainError):
    """Permissions, macOS privacy settings or another user's files forbid it."""

    grpc_status = "PERMISSION_DENIED"
    exit_code = 77


class Unreachable(SafetrainError):
    """No daemon, no network or no model hub answers."""

    grpc_status = "UNAVAILABLE"
    exit_code = 69


class Incompatible(SafetrainError):
    """Client and daemon have incompatible versions."""

    grpc_status = "UNIMPLEMENTED"
    exit_code = 76


class Damaged(SafetrainError):
    """A damaged database or checkpoint; it is left as it is."""

    grpc_status = "DATA_LOSS"
    exit_code = 72


class Broken(SafetrainError):
    """A defect of safetrain itself."""


EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_CANCELLED = 5
EXIT_UNCLEAR = 6  # an evaluation with too few questions for a verdict
EXIT_INTERRUPTED = 130
EXIT_PIPE = 141  # 128 + SIGPIPE, as a shell reports it
EXIT_RANK = 7  # a rank left because another one was lost
EXIT_MEMORY = 71  # a worker left in the middle of a step, at critical memory pressure

ERRORS: tuple[type[SafetrainError], ...] = (
    InvalidInput,
    InvalidSetting,
    NotFound,
    AlreadyFinished,
    Conflict,
    Blocked,
    Busy,
    NoRoom,
    NotAllowed,
    Unreachable,
    Incompatible,
    Damaged,
    Broken,
)
BY_NAME: dict[str, type[SafetrainError]] = {cls.__name__: cls for cls in ERRORS}


def error_to_dict(error: SafetrainError) -> dict[str, Any]:
    """Return an error as a JSON object with class, code and args, as workers send it."""
    return {"class": type(error).__name__, "code": error.code, "args": error.args_by_name}


def error_from_dict(data: Mapping[str, Any]) -> SafetrainError:
    """Return the error that `error_to_dict` wrote; `Broken` for an unknown class."""
    cls = BY_NAME.get(data.get("class", ""), Broken)
    return cls(data.get("code", ""), **data.get("args", {}))
