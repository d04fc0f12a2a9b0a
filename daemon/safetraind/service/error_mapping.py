"""Converts every error of a handler into a gRPC status with `google.rpc` details."""

from __future__ import annotations

import errno
import functools
import inspect
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import grpc

from safetrain_shared.errors import Broken, InvalidInput, NoRoom, NotAllowed, SafetrainError
from safetrain_shared.paths import home
from safetrain_shared.wire import STATUS_DETAILS, error_to_wire

log = logging.getLogger(__name__)
# System errors that are not defects of safetrain.
_KINDS: dict[int, tuple[type[SafetrainError], str]] = {
    errno.ENOSPC: (NoRoom, "disk.refused"),
    errno.EDQUOT: (NoRoom, "disk.refused"),
    errno.EROFS: (NoRoom, "disk.refused"),
    errno.EACCES: (NotAllowed, "path.refused"),
    errno.EPERM: (NotAllowed, "path.refused"),
    errno.EXDEV: (NotAllowed, "path.refused"),
    errno.ENAMETOOLONG: (InvalidInput, "path.refused"),
    errno.ENOTDIR: (InvalidInput, "path.refused"),
    errno.EISDIR: (InvalidInput, "path.refused"),
    errno.ELOOP: (InvalidInput, "path.refused"),
}
_MOST_BYTES = 1500  # of an error's text arguments; its percent-encoded message repeats them
_MOST_CHARACTERS = 300
# A text that is not UTF-8, or a number out of range for a time or the database.
_MALFORMED = (UnicodeError, OverflowError)
F = TypeVar("F", bound=Callable[..., Any])


def guarded(handler: F) -> F:
    """Wrap a handler, unary or streaming, so that its errors become gRPC statuses.

    A SafetrainError is sent unchanged, a full disk as NoRoom, missing permissions as NotAllowed.
    Anything else is logged and sent as Broken, without a traceback.
    """
    if inspect.isasyncgenfunction(handler):

        @functools.wraps(handler)
        async def stream(self: Any, request: Any, context: Any) -> Any:
            try:
                check_understood(request)
                async for message in handler(self, request, context):
                    yield message
            except Exception as error:
                await _abort(context, error)

        return cast(F, stream)

    @functools.wraps(handler)
    async def unary(self: Any, request: Any, context: Any) -> Any:
        try:
            check_understood(request)
            return await handler(self, request, context)
        except Exception as error:
            await _abort(context, error)

    return cast(F, unary)


class UnderstoodRequests(grpc.aio.ServerInterceptor):  # type: ignore[misc, type-arg, unused-ignore]
    """Replaces a request that cannot be parsed by a `Malformed`, for `guarded` to report.

    gRPC itself would answer UNKNOWN and log a traceback.
    """

    async def intercept_service(self, continuation: Any, details: Any) -> Any:
        """Return the handler with a deserializer that does not raise."""
        handler = await continuation(details)
        if handler is None:
            return handler
        parse = handler.request_deserializer

        def parsed(data: bytes) -> Any:
            try:
                return parse(data)
            except Exception as error:
                return Malformed(str(error))

        guards = details.method.startswith("/safetrain.")
        return handler._replace(request_deserializer=parsed) if guards else handler


@dataclass(frozen=True, slots=True)
class Malformed:
    """Stands for a request that cannot be parsed. `reason`: the parser's error."""

    reason: str


def check_understood(request: Any) -> None:
    """Raise InvalidInput for a `Malformed`. Where requests are a stream, the handler calls it."""
    if isinstance(request, Malformed):
        raise InvalidInput("request.malformed", reason=request.reason[:200])


async def _abort(context: Any, error: Exception) -> None:
    if isinstance(error, grpc.aio.AbortError):
        raise error
    explained = _bounded(_explained(error))
    status = error_to_wire(explained)
    code = getattr(grpc.StatusCode, explained.grpc_status)
    details = ((STATUS_DETAILS, status.SerializeToString()),)
    await context.abort(code, status.message, details)


def _bounded(error: SafetrainError) -> SafetrainError:
    """Return the error with long text arguments cut.

    Errors travel in HTTP/2 headers, which are refused whole beyond some kilobytes.
    """
    texts = {k: v for k, v in error.args_by_name.items() if isinstance(v, str)}
    if sum(len(text.encode(errors="replace")) for text in texts.values()) <= _MOST_BYTES:
        return error
    cut = {name: text[: _MOST_CHARACTERS // len(texts)] for name, text in texts.items()}
    return type(error)(error.code, **{**error.args_by_name, **cut})


def _explained(error: Exception) -> SafetrainError:
    if isinstance(error, SafetrainError):
        return error
    if isinstance(error, OSError) and error.errno in _KINDS:
        kind, code = _KINDS[error.errno]
        reason = error.strerror or str(error)
        return kind(code, path=str(error.filename or home().root), reason=reason)
    if isinstance(error, _MALFORMED):
        log.info("a call was refused: %s: %s", type(error).__name__, error)
        return InvalidInput("request.malformed", reason=str(error)[:200])
    log.error("a handler broke", exc_info=error)
    reason = f"{type(error).__name__}: {error}"[:500]
    return Broken("daemon.broken", reason=reason, log=str(home().log))
