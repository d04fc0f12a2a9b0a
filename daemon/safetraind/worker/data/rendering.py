"""A conversation rendered by a model's chat template, and where each answer lies in the rendering.

Places are found by marking: a message's content is replaced by a marker, the conversation is
rendered again, and what both renderings share before and after the marker bounds the content. This
needs no template to write the beginning of a conversation as it writes the whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mlx_lm.tokenizer_utils import TokenizerWrapper

Message = dict[str, Any]

# Letters and digits alone, which templates neither trim nor escape.
_MARKER = "zqxjMark{}kvwz"


@dataclass(frozen=True, slots=True)
class Answer:
    """An assistant's message, by its number from 0.

    `start` to `end`: the characters that the model generates for it, with the end of the turn.
    `written`: its content or calls are among them. `after`: the end of the answer before it.
    `asked`: the template's generation prompt stands in front of it.
    """

    place: int
    after: int
    start: int
    end: int
    written: bool
    asked: bool = True


@dataclass(frozen=True, slots=True)
class Rendering:
    """A conversation and its text by the chat template, rendered with `options`."""

    tokenizer: TokenizerWrapper
    messages: list[Message]
    tools: Any
    text: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def again(self, messages: list[Message], *, answer_next: bool = False) -> str | None:
        """Return the text of other messages with the same tools; None where the template refuses
        them.
        """
        try:
            return render(
                self.tokenizer, messages, self.tools, self.options, answer_next=answer_next
            )
        except Exception:  # a template may raise anything
            return None


def render(
    tokenizer: TokenizerWrapper,
    messages: list[Message],
    tools: Any,
    options: Mapping[str, Any],
    *,
    answer_next: bool = False,
) -> str:
    """Return the text of a conversation. `options`: the template's variables beside the messages.

    Raises whatever the template raises.
    """
    if not messages:
        return ""
    rendered = tokenizer.apply_chat_template(
        messages, tools=tools, add_generation_prompt=answer_next, tokenize=False, **options
    )
    return str(rendered)


def marker(number: int) -> str:
    """Return a text that stands for the content of a message."""
    return _MARKER.format(number)


def changed(messages: Sequence[Message], place: int, **values: Any) -> list[Message]:
    """Return the messages with some keys of one of them replaced."""
    return [{**m, **values} if n == place else m for n, m in enumerate(messages)]


def answers(rendering: Rendering) -> list[Answer]:
    """Return the assistant's messages in order, each with its place in the text."""
    found: list[Answer] = []
    for place, message in enumerate(rendering.messages):
        if message["role"] == "assistant":
            found.append(_answer(rendering, place, found[-1].end if found else 0))
    return found


def _answer(rendering: Rendering, place: int, lowest: int) -> Answer:
    """Return the answer at `place`, which begins at or after the character `lowest`."""
    text, messages = rendering.text, rendering.messages
    whole = _marked(rendering, messages, place)
    if not whole:
        return Answer(place, lowest, lowest, lowest, written=False)
    is_last = place == len(messages) - 1
    turns = whole if is_last else _marked(rendering, messages[: place + 1], place)
    first, end = len(text), lowest
    for way, (before, after) in whole.items():
        first = min(first, _shared(before, text))
        last = len(text) - _shared(after[::-1], text[::-1])
        _, tail = turns.get(way, ("", ""))  # what ends a turn that is the last
        end = max(end, last + _shared(tail, text[last:]))
    begin, asked = _start(rendering, place, lowest, max(first, lowest))
    start = max(lowest, begin)
    end = len(text) if is_last else max(start, end)
    return Answer(place, lowest, start, end, written=True, asked=asked)


def _marked(
    rendering: Rendering, messages: list[Message], place: int
) -> dict[str, tuple[str, str]]:
    """Return the text before and after the marked message at `place`, for each way of marking it
    that the template renders.
    """
    sign, calls = marker(0), messages[place].get("tool_calls")
    ways = {"content": changed(messages, place, content=sign)}
    if calls:
        ways["without calls"] = changed(messages, place, content=sign, tool_calls=None)
        ways["name"] = changed(messages, place, tool_calls=_named(calls, sign))
    parts = {}
    for way, marked in ways.items():
        before, mark, after = (rendering.again(marked) or "").partition(sign)
        if mark:
            parts[way] = before, after
    return parts


def _named(calls: Sequence[Mapping[str, Any]], name: str) -> list[dict[str, Any]]:
    """Return the calls, the first of them with another function's name."""
    first = dict(calls[0])
    if isinstance(first.get("function"), dict):
        first["function"] = {**first["function"], "name": name}
    else:
        first["name"] = name
    return [first, *(dict(call) for call in calls[1:])]


def _start(rendering: Rendering, place: int, lowest: int, content: int) -> tuple[int, bool]:
    """Return the start of the answer whose content begins at `content`, after the template's
    generation prompt, and whether that prompt was found.

    Where the whole does not begin as the conversation up to here, that prompt is looked for between
    `lowest` and the content.
    """
    messages, text = rendering.messages[:place], rendering.text
    prompt = rendering.again(messages, answer_next=True) or ""
    if prompt and text.startswith(prompt):
        return len(prompt), True
    asked = prompt[_shared(rendering.again(messages) or "", prompt) :]
    found = text.rfind(asked, lowest, content) if asked else -1
    return (found + len(asked), True) if found >= 0 else (content, not asked)


def _shared(first: str, second: str) -> int:
    """Return the length of the common prefix of both texts, in characters."""
    if second.startswith(first):
        return len(first)
    low, high = 0, min(len(first), len(second))
    while low < high:  # the longest shared beginning, by halving
        middle = (low + high + 1) // 2
        if first[:middle] == second[:middle]:
            low = middle
        else:
            high = middle - 1
    return low
