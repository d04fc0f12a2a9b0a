"""Makes a text harmless for a terminal, a log or a page, whoever wrote it."""

from __future__ import annotations

import json
import re
from typing import Any

# All but tab and newline: C0, DEL and C1, which move the cursor, set titles or clear the screen;
# and what turns the direction of writing round, so that a text reads otherwise than it is.
_CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]"
)
_STYLE = re.compile(r"(\x1b\[(?:0|1|2|3[0-7]|9[0-7])m)")


def printable(text: str) -> str:
    """`text` without control characters other than tab and newline."""
    return _CONTROL.sub("", text)


def json_line(value: Any) -> str:
    """`value` as JSON on one line, in which control characters stand escaped and lose nothing."""
    text = json.dumps(value, ensure_ascii=False)
    return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def one_line(text: str) -> str:
    """The same on one line, for a text that stands within a sentence."""
    return printable(" ".join(text.splitlines()) if "\n" in text or "\r" in text else text)


def printable_styled(text: str) -> str:
    """The same as `printable`, but for the colours that this program's own texts have."""
    parts = _STYLE.split(text)
    return "".join(part if n % 2 else printable(part) for n, part in enumerate(parts))
