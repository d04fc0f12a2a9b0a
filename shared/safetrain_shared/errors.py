"""Every error the product raises on purpose, its gRPC status and its exit code.

    SafetrainError
    ├── InvalidInput        INVALID_ARGUMENT      65   a file, folder or message that cannot be used
    │   └── InvalidSetting  INVALID_ARGUMENT      78   an unknown setting or a value out of range
    ├── NotFound            NOT_FOUND             66   no such job, file, model, checkpoint
    ├── AlreadyFinished     FAILED_PRECONDITION    3   the job has ended, nothing left to do
    ├── Conflict            FAILED_PRECONDITION   73   the output folder or the queue says no
    ├── Blocked             FAILED_PRECONDITION    4   preflight found what blocks, or nothing fits
    ├── Busy                UNAVAILABLE           75   somebody else holds the GPU or the home
    ├── NoRoom              RESOURCE_EXHAUSTED    74   disk full, or the disk refused a write
    ├── NotAllowed          PERMISSION_DENIED     77   folder rights, macOS privacy, another user
    ├── Unreachable         UNAVAILABLE           69   no daemon, no network, no hub
    ├── Incompatible        UNIMPLEMENTED         76   client and daemon of different versions
    ├── Damaged             DATA_LOSS             72   a database or checkpoint not to be trusted
    └── Broken              INTERNAL              70   a defect of ours

An error is data: a code and its arguments. `messages` makes the sentence, in the user's language.
Exit codes follow sysexits.h where it has one. Others: 0 done, 1 the job itself failed or a check
found errors, 2 wrong usage, 5 the job was cancelled, 6 an evaluation cannot tell, 130 interrupted
by Ctrl-C, 141 nobody reads the output any more.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

ArgValue = str | int | float | bool | None


class SafetrainError(Exception):
    """An error with a code from `messages`, and arguments that its sentence names.

    `str()` is the sentence, in `lang` where that is set, else in the language in use.
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
        """What is wrong, in `lang`, else as `str()`.

        For a code that only a newer daemon knows: the English sentence that came with it.
        """
        from safetrain_shared.messages import sentence  # they know findings, which know errors

        came_with_it = next(iter(getattr(self, "__notes__", ())), "")
        lang = lang or self.lang
        return sentence(self.code, self.args_by_name, lang=lang, fallback=came_with_it)


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
    """The output folder or the queue is in a state that forbids it."""

    grpc_status = "FAILED_PRECONDITION"
    exit_code = 73


class Blocked(SafetrainError):
    """Preflight found what blocks the training, or nothing fits this machine."""

    grpc_status = "FAILED_PRECONDITION"
    exit_code = 4


class Busy(SafetrainError):
    """Somebody else holds the GPU or the home."""

    grpc_status = "UNAVAILABLE"
    exit_code = 75


class NoRoom(SafetrainError):
    """The disk is full or refused a write."""

    grpc_status = "RESOURCE_EXHAUSTED"
    exit_code = 74


class NotAllowed(SafetrainError):
    """Folder rights, macOS privacy or another user's files forbid it."""

    grpc_status = "PERMISSION_DENIED"
    exit_code = 77


class Unreachable(SafetrainError):
    """No daemon, no network or no model hub answers."""

    grpc_status = "UNAVAILABLE"
    exit_code = 69


class Incompatible(SafetrainError):
    """Client and daemon are of versions that do not understand each other."""

    grpc_status = "UNIMPLEMENTED"
    exit_code = 76


class Damaged(SafetrainError):
    """A database or checkpoint that cannot be trusted; it is kept as it is."""

    grpc_status = "DATA_LOSS"
    exit_code = 72


class Broken(SafetrainError):
    """A defect of safetrain itself."""


EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_CANCELLED = 5
EXIT_UNCLEAR = 6  # an evaluation with too few questions to tell
EXIT_INTERRUPTED = 130
EXIT_PIPE = 141  # 128 + SIGPIPE, as a shell reports it
EXIT_MEMORY = 71  # of a worker that left in mid-step, at critical memory pressure

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
    """An error as a JSON object, for the pipe or socket of a worker: class, code, args."""
    return {"class": type(error).__name__, "code": error.code, "args": error.args_by_name}


def error_from_dict(data: Mapping[str, Any]) -> SafetrainError:
    """The reverse of `error_to_dict`; an unknown class reads as `Broken`."""
    cls = BY_NAME.get(data.get("class", ""), Broken)
    return cls(data.get("code", ""), **data.get("args", {}))
