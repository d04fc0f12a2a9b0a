"""Recognises by its beginning a file that is one JSON document and not JSON lines."""

from __future__ import annotations

import json

import orjson


def document_shape(head: bytes) -> str:
    """Return "list" or "objects" where `head` begins a list of samples, or a JSON document over
    several lines; empty for JSON lines and anything else.
    """
    head = head.lstrip()
    first, newline, _ = head.partition(b"\n")
    if head[:1] == b"[":
        return "" if newline and _is_short_list(first) else "list"
    if head[:1] == b"{" and newline and not _is_json(first):
        return "objects" if _spans_lines(head) else ""
    return ""


def _is_short_list(line: bytes) -> bool:
    """Return whether a line is a JSON list of its own that holds no sample."""
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError:
        return False
    return not any(isinstance(item, dict) for item in value)


def _is_json(line: bytes) -> bool:
    try:
        orjson.loads(line)
    except orjson.JSONDecodeError:
        return False
    return True


def _spans_lines(head: bytes) -> bool:
    """Return whether the value that begins `head` ends in another line, or beyond `head`."""
    text = head.decode(errors="replace")
    try:
        _, end = json.JSONDecoder().raw_decode(text)
    except json.JSONDecodeError as error:
        return error.pos >= len(text.rstrip()) - 1 and "\n" in text.strip()
    except RecursionError:
        return False
    return "\n" in text[:end]
