"""Reads the bodies of requests: fields of a form, within a limit."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import parse_qsl

from starlette.requests import Request

from safetrain.int64 import MOST
from safetrain_shared.errors import InvalidInput, NotFound

_BODY_BYTES = 1 << 17
_MOST_FIELDS = 500


async def fields(request: Request, limit: int = _BODY_BYTES) -> dict[str, str]:
    """Return the fields of a form; of several with one name the last that is not empty.

    Raises InvalidInput for a body of more than `limit` bytes, or that is no form.
    """
    body = await _body(request, limit)
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=_MOST_FIELDS)
    except ValueError:
        raise InvalidInput("request.malformed", reason="form") from None
    found: dict[str, str] = {}
    for name, value in pairs:
        found[name] = value if value.strip() else found.get(name, value)
    return found


async def _body(request: Request, limit: int) -> bytes:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise InvalidInput("message.too_large", size=len(body), limit=limit)
    return body


def job_id(request: Request) -> int:
    """Return the job that the path of a request names. Raises NotFound where it is no number."""
    return job_number(request.path_params["id"])


def job_number(text: str) -> int:
    """Return a job's number. Raises NotFound for what is none."""
    number = int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else 0
    if not 0 < number <= MOST:
        raise NotFound("job.unknown", id=text[:40])
    return number


def checked(found: Mapping[str, str], name: str) -> bool:
    """Whether a checkbox is checked."""
    return found.get(name) == "on"


def share(text: str, otherwise: float) -> float:
    """Return a share of 0 to 0.9 written as a percentage. Raises InvalidInput."""
    if not text.strip():
        return otherwise
    try:
        value = float(text.replace(",", ".").removesuffix("%")) / 100
    except ValueError:
        value = -1.0
    if not 0 <= value <= 0.9:
        raise InvalidInput("page.share", text=text[:40])
    return value
