"""Turns every error of a handler into a gRPC status with `google.rpc` details."""

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
# What the system refuses is no defect of ours.
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
_MOST_BYTES = 1500  # of an error's texts; its message, percent-encoded, repeats them
_MOST_CHARACTERS = 300
# A text that is no UTF-8, a number that no clock or database has.
_MALFORMED = (UnicodeError, OverflowError)
F = TypeVar("F", bound=Callable[..., Any])


def guarded(handler: F) -> F:
    """Wraps a handler, unary or streaming: errors of ours travel as they are, a full disk as
    NoRoom, missing rights as NotAllowed; anything else is logged and told as Broken, without a
    traceback.
    """
    if inspect.isasyncgenfunction(handler):

        @functools.wraps(handler)
        async def stream(self: Any, request: Any, context: Any) -> Any:
            try:
                _check_understood(request)
                async for message in handler(self, request, context):
                    yield message
            except Exception as error:
                await _abort(context, error)

        return cast(F, stream)

    @functools.wraps(handler)
    async def unary(self: Any, request: Any, context: Any) -> Any:
        try:
            _check_understood(request)
            return await handler(self, request, context)
        except Exception as error:
            await _abort(context, error)

    return cast(F, unary)


class UnderstoodRequests(grpc.aio.ServerInterceptor):  # type: ignore[misc, type-arg, unused-ignore]
    """Hands on a request that cannot be parsed as its error, so that `guarded` explains it: gRPC
    itself would answer UNKNOWN and write a traceback.
    """

    async def intercept_service(self, continuation: Any, details: Any) -> Any:
        """The handler with a deserializer that does not raise."""
        handler = await continuation(details)
        if handler is None or handler.request_streaming:
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
    """What arrives in the place of a request that cannot be parsed."""

    reason: str


def _check_understood(request: Any) -> None:
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
    """The error with long texts cut: an HTTP/2 header is refused beyond some kilobytes, and with it
    all that the error says.
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
