"""A sample's text: its words for equality, its units for near-equality."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from safetraind.worker.data.near_duplicates import MOST_UNITS
from safetraind.worker.data.schema import OPENING_ROLES, Sample, content_of

# Words of more bytes than this, other than ASCII, come from a script without spaces.
_LONG_WORD = 48
# Where words are longer than this on average, some of them may be such.
_LONG_ON_AVERAGE = 10


def text_of(sample: Sample, form: str) -> str:
    """Return the text of a sample without faults, in order: contents, and the calls of tools."""
    if form == "text":
        return str(sample["text"])
    if form == "completions":
        return f"{sample['prompt']}\n{sample['completion']}"
    messages = sample["messages"]
    try:  # a message of two keys has a role, a content and no calls
        return "\n".join([m["content"] if len(m) == 2 else _text(m) for m in messages])
    except (KeyError, TypeError):
        return "\n".join([_text(message) for message in messages])


def words_of(text: str) -> list[bytes]:
    """Return the words of a text for comparison, in UTF-8, which splits fastest. Compatibility
    forms and case are folded.
    """
    if text.isascii():
        return text.encode().lower().split()
    return unicodedata.normalize("NFKC", text).casefold().encode().split()


def key_of(words: list[bytes]) -> int:
    """Return a 64-bit hash of words in order, valid within this process."""
    return hash(tuple(words))


def units_of(sample: Sample, form: str, words: list[bytes], length: int) -> list[bytes]:
    """Return the units by which samples are compared for near-equality. `words` are those of a text
    of `length` characters.

    A leading system message is left out: it often is the longest part, and the same in all samples.
    Long words of scripts without spaces count by their characters.
    """
    spaced = length <= _LONG_ON_AVERAGE * len(words)
    if form in ("chat", "tools") and sample["messages"][0]["role"] in OPENING_ROLES:
        words = words[_count(content_of(sample["messages"][0])) :]
    units = words if spaced else [unit for word in words for unit in _units(word)]
    return units if len(units) <= MOST_UNITS else units[:MOST_UNITS]


@lru_cache(maxsize=4)
def _count(text: str) -> int:
    return len(words_of(text))


def _units(word: bytes) -> list[bytes]:
    if len(word) <= _LONG_WORD or word.isascii():
        return [word]
    return [character.encode() for character in word.decode()]


def _text(message: Mapping[str, Any]) -> str:
    parts = [content_of(message)]
    for call in message.get("tool_calls") or ():
        # Without the call's id, which is drawn anew each time.
        parts += _scalars(call.get("function", call))
    return "\n".join(parts)


def _scalars(value: Any) -> Iterator[str]:
    """Yield the keys and values in order, at any depth."""
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if type(value) is dict:
            waiting += [item for pair in reversed(value.items()) for item in reversed(pair)]
        elif type(value) is list:
            waiting += reversed(value)
        else:
            yield str(value)
