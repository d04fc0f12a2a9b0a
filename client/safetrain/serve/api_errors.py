"""Errors in OpenAI's form, with its HTTP statuses and the headers that its clients heed. Pure.

https://platform.openai.com/docs/guides/error-codes
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from safetrain_shared.errors import (
    Busy,
    InvalidInput,
    NoRoom,
    NotFound,
    SafetrainError,
    Unreachable,
)

_STATUS: Mapping[str, int] = {
    "serve.unauthorized": 401,
    "serve.host": 403,
    "serve.no_route": 404,
    "serve.method": 405,
    "message.too_large": 413,
    "serve.full": 429,
}
# The request's own fault, though the daemon or the worker found it.
_OF_REQUEST = ("ask.prompt_too_long", "ask.no_question", "ask.template_refuses", "ask.malformed")
_OPENAI_CODES: Mapping[str, str] = {
    "serve.unauthorized": "invalid_api_key",
    "serve.model_unknown": "model_not_found",
    "serve.full": "rate_limit_exceeded",
    "ask.prompt_too_long": "context_length_exceeded",
}
# Their sentences tell what to do on the command line of `ask`; these say it of a server.
_IN_OTHER_WORDS: Mapping[str, str] = {
    "ask.busy_other_job": "serve.training",
    "ask.busy_other_model": "serve.training",
    "ask.busy_checking": "serve.training",
    "job.lease_busy": "serve.gpu_busy",
}
_SOON = ("ask.worker_ended", "serve.interrupted")  # another attempt may do at once
_SOON_SECONDS, _LATER_SECONDS = 1, 10


@dataclass(frozen=True, slots=True)
class ApiError:
    """One error as HTTP carries it."""

    status: int
    body: dict[str, Any]
    headers: dict[str, str]


def api_error(error: SafetrainError) -> ApiError:
    """Return a safetrain error in OpenAI's form, its message in the language in use."""
    worded = _IN_OTHER_WORDS.get(error.code)
    if worded is not None:
        error = Busy(worded, **error.args_by_name)
    status = _status(error)
    body = {
        "message": str(error),
        "type": _type(status),
        "param": _param(error),
        "code": _OPENAI_CODES.get(error.code, error.code),
    }
    return ApiError(status, {"error": body}, _headers(error, status))


def _status(error: SafetrainError) -> int:
    if error.code in _STATUS:
        return _STATUS[error.code]
    if isinstance(error, InvalidInput):
        named = error.code in _OF_REQUEST or "field" in error.args_by_name
        return 400 if named or error.code.startswith("serve.") else 500
    if isinstance(error, NotFound):
        return 404
    return 503 if isinstance(error, Busy | Unreachable | NoRoom) else 500


def _type(status: int) -> str:
    if status >= 500:
        return "server_error"
    return {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}.get(
        status, "invalid_request_error"
    )


def _param(error: SafetrainError) -> str | None:
    if error.code in _OF_REQUEST:
        return "messages"
    field = error.args_by_name.get("field")
    return str(field) if field else None


def _headers(error: SafetrainError, status: int) -> dict[str, str]:
    if status in (429, 503):
        soon = error.code in _SOON
        return {"Retry-After": str(_SOON_SECONDS if soon else _LATER_SECONDS)}
    if status == 500:
        return {"X-Should-Retry": "false"}  # OpenAI's clients try again otherwise
    if status == 401:
        return {"WWW-Authenticate": "Bearer"}
    return {"Allow": str(error.args_by_name["allowed"])} if status == 405 else {}
