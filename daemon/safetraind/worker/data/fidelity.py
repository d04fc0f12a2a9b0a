"""Compares a rendered conversation with the sample that it was made from.

A chat template may leave out, shorten or misprint what a sample says, and raise nothing. What is
found here is reported by line; a sample whose calls are lost or misprinted is refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from safetrain_shared.errors import ArgValue
from safetrain_shared.findings import Status
from safetraind.worker.data.rendering import Answer, Message, Rendering, changed, marker
from safetraind.worker.data.schema import OPENING_ROLES, Problem, content_of, shown
from safetraind.worker.data.thinking import REASONING, opens_thinking


def compare(rendering: Rendering, answers: Iterable[Answer]) -> list[Problem]:
    """Return the differences in the order of the messages."""
    by_place = {answer.place: answer for answer in answers}
    marked = _marked(rendering)
    problems = [*misprints(rendering), *_dropped_tools(rendering), *_misplaced(rendering, marked)]
    unwritten = _unwritten(rendering, marked)
    for place, message in enumerate(rendering.messages):
        if place in by_place:
            problems += _compare_answer(rendering, message, by_place[place])
        elif place in unwritten:
            args = {"place": place + 1, "role": message["role"]}
            problems.append(Problem("data.message_dropped", Status.WARNING, args))
        problems += _compare_name(rendering, message, place)
    return problems


def misprints(rendering: Rendering) -> list[Problem]:
    """Return the values that the template writes as Python does, or as text within text."""
    text = rendering.text
    for place, message in enumerate(rendering.messages, 1):
        for value in _values(message):
            if _is_misprinted(value, text):
                return [_misprint(place, value)]
        if message.get("content", "") is None and _writes_none(rendering, place - 1):
            return [_misprint(place, None)]
    for value in (rendering.tools, *(rendering.tools or ())):
        if _is_misprinted(value, text):
            return [_misprint(0, value)]
    return []


def _misprint(place: int, value: Any) -> Problem:
    args: dict[str, ArgValue] = {"place": place, "found": type(value).__name__}
    return Problem("data.python_value", args=args)


def _values(message: Message) -> Iterator[Any]:
    """Yield the lists and objects of a message, and arguments that are JSON in a text."""
    waiting = [message.get("content"), message.get("tool_calls")]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict | list):
            yield value
            waiting += value.values() if isinstance(value, dict) else value
            if isinstance(value, dict) and isinstance(value.get("arguments"), str):
                yield value["arguments"]


def _is_misprinted(value: Any, text: str) -> bool:
    if isinstance(value, str):  # written with its quotes escaped
        return '"' in value and any(
            json.dumps(value, ensure_ascii=a) in text for a in (True, False)
        )
    if not value or not isinstance(value, dict | list):
        return False
    printed = repr(value)
    return printed != json.dumps(value, ensure_ascii=False) and printed in text


def _writes_none(rendering: Rendering, place: int) -> bool:
    empty = rendering.again(changed(rendering.messages, place, content=""))
    return empty is not None and rendering.text.count("None") > empty.count("None")


def _dropped_tools(rendering: Rendering) -> list[Problem]:
    names = [tool.get("function", tool).get("name") for tool in rendering.tools or ()]
    dropped = [name for name in names if isinstance(name, str) and name not in rendering.text]
    if not dropped:
        return []
    return [Problem("data.tools_dropped", Status.WARNING, {"name": shown(dropped[0])})]


def _marked(rendering: Rendering) -> str:
    """Return the text of the conversation with a marker on each side of every content; only behind
    an answer's, which a template may cut at its beginning.
    """
    messages = list(rendering.messages)
    for place, message in enumerate(messages):
        if content := _text_of(message):
            before = "" if message["role"] == "assistant" else marker(2 * place)
            messages[place] = {**message, "content": f"{before}{content}{marker(2 * place + 1)}"}
    return rendering.again(messages) or ""


def _text_of(message: Message) -> str:
    """Return the content of a message, where it is a text that is not blank; else nothing."""
    content = message.get("content")
    return content if isinstance(content, str) and content.strip() else ""


def _misplaced(rendering: Rendering, marked: str) -> Iterator[Problem]:
    """Yield a problem for turns that the template writes twice, or in another order. Where it puts
    a system message is its own affair.
    """
    highest = -1
    for place, message in enumerate(rendering.messages):
        sign = marker(2 * place + 1)
        if message["role"] in OPENING_ROLES or not _text_of(message) or sign not in marked:
            continue
        args: dict[str, ArgValue] = {"place": place + 1}
        if marked.count(sign) > 1:
            yield Problem("data.message_twice", Status.WARNING, args)
            return
        if marked.index(sign) < highest:
            yield Problem("data.reordered", Status.WARNING, args)
            return
        highest = marked.index(sign)


def _unwritten(rendering: Rendering, marked: str) -> set[int]:
    """Return the messages other than answers whose content is not in the text as it is."""
    signed = {
        place: f"{marker(2 * place)}{content}{marker(2 * place + 1)}"
        for place, message in enumerate(rendering.messages)
        if message["role"] != "assistant" and (content := _text_of(message))
    }
    doubtful = [place for place, text in signed.items() if text not in marked]
    return {place for place in doubtful if not _is_written(rendering, place)}


def _compare_name(rendering: Rendering, message: Message, place: int) -> Iterator[Problem]:
    """Yield a problem for the name of who speaks, where the template leaves it out. Of a tool's
    result, the call before it has the name.
    """
    name = message.get("name")
    if message["role"] == "tool" or not isinstance(name, str) or name in rendering.text:
        return
    args: dict[str, ArgValue] = {"key": "name", "place": place + 1}
    yield Problem("data.foreign_key_of_message", Status.WARNING, args)


def _is_written(rendering: Rendering, place: int) -> bool:
    """Return whether the content stands in the text, and the text depends on it."""
    content = rendering.messages[place]["content"].strip()
    if content not in rendering.text:
        return False
    alone = rendering.again(changed(rendering.messages, place, content=marker(0)))
    return alone is None or marker(0) in alone


def _compare_answer(rendering: Rendering, message: Message, answer: Answer) -> Iterator[Problem]:
    args = {"place": answer.place + 1}
    text = rendering.text[answer.after : answer.end]  # a prompt may open the thinking
    if not has_calls(message, text):
        yield Problem("data.calls_dropped", args=args)
    content = content_of(message)
    if not answer.written and content.strip():
        yield Problem("data.answer_dropped", Status.WARNING, args)
        return
    said = [content, *(message[key] for key in REASONING if isinstance(message.get(key), str))]
    if any(_flat(part) not in _flat(text) for part in said):
        yield Problem("data.answer_shortened", Status.WARNING, args)
    elif said == [content] and _adds_thinking(rendering.text[answer.start : answer.end], content):
        yield Problem("data.thinking_added", Status.WARNING, args)
    if not answer.asked:
        yield Problem("data.asked_otherwise", Status.WARNING, args)


def _adds_thinking(text: str, content: str) -> bool:
    return opens_thinking(text) and not opens_thinking(content)


def _flat(text: str) -> str:
    return " ".join(text.split())


def has_calls(message: Message, text: str) -> bool:
    """Return whether the function and each argument of each call of a message stand in the text."""
    for call in message.get("tool_calls") or ():
        function = call.get("function", call)
        if not isinstance(function, dict):
            return False
        if not all(_has_value(value, text) for value in _scalars(function)):
            return False
    return True


def _scalars(function: dict[str, Any]) -> Iterator[Any]:
    """Yield the function's name and the values of its arguments, however deep they lie."""
    yield function.get("name", "")
    waiting = [parsed(function.get("arguments"))]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
        else:
            yield value


def parsed(arguments: Any) -> Any:
    """Return the arguments of a call as an object, where they are one in a text."""
    if not isinstance(arguments, str):
        return arguments
    try:
        value = json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments
    return value if isinstance(value, dict) else arguments


def _has_value(value: Any, text: str) -> bool:
    forms = {str(value), json.dumps(value), json.dumps(value, ensure_ascii=False)}
    forms |= {form[1:-1] for form in forms if form.startswith('"') and len(form) > 2}
    return any(form in text for form in forms)
