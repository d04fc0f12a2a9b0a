"""Scores one answer against the expected one: 1 right, 0 wrong, between them for similarity."""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

_NUMBER = re.compile(r"[-+−]?\d[\d.,\u00a0\u202f ]*\d|[-+−]?\d")
_THINKING = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL)
_CHOICE = re.compile(r"(?<!\w)([A-Z])(?!\w)")


def score(match: str, expected: Sequence[Any], answer: str) -> float:
    """Return the score of `answer`, 0 to 1, by one of `MATCHES`; the best over all `expected`.

    For `contains` every expected text must be there. What a model thought, between `<think>` tags,
    is no part of its answer. Raises KeyError for an unknown match.
    """
    said = _THINKING.sub("", answer).strip()
    measure = MATCHES[match]
    if match == "contains":
        return float(all(measure(one, said) for one in expected))
    return max((float(measure(one, said)) for one in expected), default=0.0)


def normalised(text: str) -> list[str]:
    """Return the words of a text, without case, punctuation and compatibility forms (NFKC)."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return re.findall(r"\w+", folded)


def _exact(expected: Any, said: str) -> bool:
    return normalised(str(expected)) == normalised(said)


def _contains(expected: Any, said: str) -> bool:
    """Return whether the words of `expected` occur in `said` in a row."""
    words, text = normalised(str(expected)), normalised(said)
    return any(text[i : i + len(words)] == words for i in range(len(text) - len(words) + 1))


def _number(expected: Any, said: str) -> bool:
    """Return whether the last number of the answer is the expected one, to nine digits."""
    found = [value for part in _NUMBER.findall(said) if (value := number_of(part)) is not None]
    wanted = number_of(str(expected))
    return wanted is not None and bool(found) and math.isclose(found[-1], wanted, rel_tol=1e-9)


def number_of(text: str) -> float | None:
    """Return a number written the English or the Portuguese way; None for any other text.

    Of comma and point the last one is the decimal mark where both stand, or where one stands once
    and not before exactly three digits; else they group thousands.
    """
    plain = re.sub(r"[\u00a0\u202f ]", "", text).replace("−", "-")
    comma, point = plain.rfind(","), plain.rfind(".")
    mark = "," if comma > point else "."
    if comma >= 0 and point >= 0:
        plain = plain.replace("." if mark == "," else ",", "").replace(mark, ".")
    elif comma >= 0 or point >= 0:
        groups = plain.split(mark)
        thousands = len(groups) > 2 or (len(groups[1]) == 3 and groups[0].lstrip("+-") not in "0")
        plain = plain.replace(mark, "" if thousands else ".")
    try:
        return float(plain)
    except ValueError:
        return None


def _choice(expected: Any, said: str) -> bool:
    """Return whether the first single letter is the expected one, or the answer is that choice's
    text.
    """
    wanted = str(expected).strip()
    if len(wanted) > 1:
        return _exact(wanted, said)
    found = _CHOICE.search(said.upper() if len(said) <= 2 else said)
    return found is not None and found[1] == wanted.upper()


def _json(expected: Any, said: str) -> float:
    """Return 1 for an equal value; for an object, the share of the expected fields that are
    equal.
    """
    wanted = json.loads(expected) if isinstance(expected, str) else expected
    found = first_json(said)
    if isinstance(wanted, Mapping) and wanted and isinstance(found, Mapping):
        return sum(found.get(name) == value for name, value in wanted.items()) / len(wanted)
    return float(found == wanted)


def _tool_call(expected: Any, said: str) -> bool:
    """Return whether the first call has the expected name and exactly its arguments."""
    wanted = json.loads(expected) if isinstance(expected, str) else expected
    found = first_json(said)
    if not isinstance(found, Mapping):
        return False
    arguments = found.get("arguments", found.get("parameters"))
    if isinstance(arguments, str):
        arguments = first_json(arguments)
    return found.get("name") == wanted.get("name") and arguments == wanted.get("arguments", {})


def first_json(text: str) -> Any:
    """Return the first JSON object or list in a text with any text around it; None where there is
    none.
    """
    decoder = json.JSONDecoder()
    for place in re.finditer(r"[{\[]", text):
        try:
            return decoder.raw_decode(text, place.start())[0]
        except (ValueError, RecursionError):
            continue
    return None


def _pattern(expected: Any, said: str) -> bool:
    return re.search(str(expected), said) is not None


def _similarity(expected: Any, said: str) -> float:
    """Return token F1: harmonic mean of precision and recall over words (Rajpurkar et al. 2016)."""
    wanted, found = Counter(normalised(str(expected))), Counter(normalised(said))
    common = (wanted & found).total()
    return 2 * common / (wanted.total() + found.total()) if common else 0.0


MATCHES: Mapping[str, Callable[[Any, str], float]] = {
    "exact": _exact,
    "contains": _contains,
    "number": _number,
    "choice": _choice,
    "json": _json,
    "tool_call": _tool_call,
    "pattern": _pattern,
    "similarity": _similarity,
}
