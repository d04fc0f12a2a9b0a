"""Turns every error of a handler into a gRPC status with `google.rpc` details."""

from __future__ import annotations

import errno
import functools
import inspect
import logging
from collections.abc import Callable
from typing import Any, TypeVar, cast

import grpc

from safetrain_shared.errors import Broken, NoRoom, NotAllowed, SafetrainError
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
}
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
                async for message in handler(self, request, context):
                    yield message
            except Exception as error:
                await _abort(context, error)

        return cast(F, stream)

    @functools.wraps(handler)
    async def unary(self: Any, request: Any, context: Any) -> Any:
        try:
            return await handler(self, request, context)
        except Exception as error:
            await _abort(context, error)

    return cast(F, unary)


async def _abort(context: Any, error: Exception) -> None:
    if isinstance(error, grpc.aio.AbortError):
        raise error
    explained = _explained(error)
    status = error_to_wire(explained)
    code = getattr(grpc.StatusCode, explained.grpc_status)
    details = ((STATUS_DETAILS, status.SerializeToString()),)
    await context.abort(code, status.message, details)


def _explained(error: Exception) -> SafetrainError:
    if isinstance(error, SafetrainError):
        return error
    if isinstance(error, OSError) and error.errno in _KINDS:
        kind, code = _KINDS[error.errno]
        reason = error.strerror or str(error)
        return kind(code, path=str(error.filename or home().root), reason=reason)
    log.error("a handler broke", exc_info=error)
    reason = f"{type(error).__name__}: {error}"[:500]
    return Broken("daemon.broken", reason=reason, log=str(home().log))
