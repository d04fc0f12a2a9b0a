"""What a sample must look like: mlx-lm's formats chat, completions, text and tools.

    {"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]}
    {"messages": […], "tools": […]}
    {"prompt": "…", "completion": "…"}
    {"text": "…"}

Where a sample has the keys of several, mlx-lm's order decides: completions, chat, text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from safetrain_shared.errors import ArgValue
from safetrain_shared.findings import Status

Sample = dict[str, Any]

ROLES = frozenset({"system", "developer", "user", "assistant", "tool"})
_KEYS_OF = {
    "completions": ("prompt", "completion"),
    "chat": ("messages",),
    "tools": ("messages", "tools"),
    "text": ("text",),
}
_WATCHED_KEYS = {
    form: tuple(f'"{key}"'.encode() for key in keys) for form, keys in _KEYS_OF.items()
}


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong with one line. A warning leaves the sample usable, a failure does not."""

    code: str
    status: Status = Status.FAILED
    args: Mapping[str, ArgValue] = field(default_factory=dict)


class Unusable(Exception):
    """The line holds no sample; `problem` says why."""

    def __init__(self, code: str, **args: ArgValue) -> None:
        super().__init__(code)
        self.problem = Problem(code, Status.FAILED, args)


def parse(content: bytes) -> Sample:
    """The JSON object of a line. Raises Unusable for anything else, whatever the bytes."""
    try:
        sample = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise _unreadable(content, error) from None
    if type(sample) is not dict:
        raise Unusable("data.not_an_object", found=type(sample).__name__)
    return sample


def form_of(sample: Sample) -> str:
    """The sample's format. Raises Unusable where it has the keys of none."""
    if "prompt" in sample and "completion" in sample:
        return "completions"
    if "messages" in sample:
        return "tools" if sample.get("tools") else "chat"
    if "text" in sample:
        return "text"
    raise Unusable("data.unknown_format", keys=_listed(sample))


def judge(sample: Sample, form: str) -> list[Problem]:
    """All that is wrong with a sample of format `form`; empty for a good one."""
    if form == "chat" and _is_plain(sample["messages"]):
        return []
    if form == "text":
        return _judge_text(sample, "text")
    if form == "completions":
        return _judge_text(sample, "prompt") + _judge_text(sample, "completion")
    return _judge_messages(sample["messages"]) + _judge_tools(sample.get("tools"))


def duplicate_key(content: bytes, form: str) -> str:
    """A key that stands twice in one object of the line, of which JSON keeps the last; or empty.

    Only lines in which a key of ours stands twice anywhere are looked at closely.
    """
    if not any(content.count(key) > 1 for key in _WATCHED_KEYS[form]):
        return ""
    doubled: list[str] = []

    def pairs(items: list[tuple[str, Any]]) -> None:
        names = [name for name, _ in items]
        doubled.extend(name for name in names if names.count(name) > 1)

    try:
        json.loads(content, object_pairs_hook=pairs)
    except (ValueError, RecursionError):
        return ""
    return doubled[0] if doubled else ""


def text_of(sample: Sample, form: str) -> str:
    """All that is said in the sample, in order, for comparing samples with each other."""
    if form == "text":
        return str(sample["text"])
    if form == "completions":
        return f"{sample['prompt']}\n{sample['completion']}"
    try:
        return "\n".join([message["content"] for message in sample["messages"]])
    except (TypeError, KeyError):
        return "\n".join([_content(message) for message in sample["messages"]])


def _content(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    return content if type(content) is str else orjson.dumps(content).decode()


_PLAIN_NEXT = {
    ("", "system"): "system",
    ("", "user"): "user",
    ("system", "user"): "user",
    ("user", "assistant"): "assistant",
    ("assistant", "user"): "user",
}


def _is_plain(messages: Any) -> bool:
    """Nothing is wrong, seen in one quick look: texts, the usual roles in order, an answer last.

    What does not pass here is looked at closely, and may still be good.
    """
    role = ""
    try:
        for message in messages:
            following = _PLAIN_NEXT.get((role, message["role"]))
            content = message["content"]
            if following is None or type(content) is not str:
                return False
            role = following
    except (TypeError, KeyError, AttributeError):
        return False
    return role == "assistant" and type(messages) is list and bool(content.strip())


def _judge_text(sample: Sample, key: str) -> list[Problem]:
    value = sample[key]
    if type(value) is not str:
        return [Problem("data.not_text", args={"key": key, "found": type(value).__name__})]
    if not value or value.isspace():
        if key == "prompt":
            return []
        code = "data.empty_text" if key == "text" else "data.empty_answer"
        return [Problem(code, Status.WARNING, {"key": key})]
    return []


def _judge_messages(messages: Any) -> list[Problem]:
    if type(messages) is not list:
        found = type(messages).__name__
        return [Problem("data.messages_not_a_list", args={"found": found})]
    if not messages:
        return [Problem("data.no_messages")]
    problems = []
    for place, message in enumerate(messages, 1):
        problem = _judge_message(message, place)
        if problem is not None:
            problems.append(problem)
    return problems or _judge_order(messages)


def _judge_message(message: Any, place: int) -> Problem | None:
    if type(message) is not dict:
        found = type(message).__name__
        return Problem("data.message_not_an_object", args={"place": place, "found": found})
    role = message.get("role")
    if type(role) is not str or role not in ROLES:
        return Problem("data.unknown_role", args={"place": place, "role": _shown(role)})
    content = message.get("content")
    if type(content) is str:
        return None
    if content is None and message.get("tool_calls"):
        return None
    if type(content) is list and content and all(_is_text_part(part) for part in content):
        return None
    found = type(content).__name__
    return Problem("data.content_not_text", args={"place": place, "found": found})


def _judge_order(messages: list[dict[str, Any]]) -> list[Problem]:
    """Roles must alternate after the system's word, and the last word must be an answer."""
    before, answered = "", False
    for place, message in enumerate(messages, 1):
        role = message["role"]
        if not _may_follow(role, before, messages[place - 2] if place > 1 else {}):
            args = {"place": place, "role": role, "before": before or "-"}
            return [Problem("data.role_order", Status.WARNING, args)]
        answered = answered or role == "assistant"
        before = role
    if not answered:
        return [Problem("data.no_answer")]
    if before != "assistant":
        return [Problem("data.last_not_answer", Status.WARNING, {"role": before})]
    last = messages[-1]
    if not last.get("tool_calls") and not _content(last).strip():
        return [Problem("data.empty_answer", Status.WARNING, {"key": "content"})]
    return []


def _may_follow(role: str, before: str, previous: Mapping[str, Any]) -> bool:
    if role in ("system", "developer"):
        return before == ""
    if role == "user":
        return before in ("", "system", "developer", "assistant")
    if role == "tool":
        return before == "tool" or bool(previous.get("tool_calls"))
    return before in ("user", "tool")


def _judge_tools(tools: Any) -> list[Problem]:
    if tools is None or (type(tools) is list and all(type(tool) is dict for tool in tools)):
        return []
    return [Problem("data.tools_not_a_list", args={"found": type(tools).__name__})]


def _is_text_part(part: Any) -> bool:
    return type(part) is dict and type(part.get("text")) is str


def _unreadable(content: bytes, error: orjson.JSONDecodeError) -> Unusable:
    """The reason in the order that helps: wrong encoding, NUL bytes, then wrong JSON."""
    try:
        content.decode()
    except UnicodeDecodeError as wrong:
        return Unusable("data.not_utf8", byte=wrong.start + 1)
    if 0 in content:
        return Unusable("data.nul_byte", byte=content.index(0) + 1)
    return Unusable("data.not_json", reason=str(error).split(": line ")[0], column=error.colno)


def _listed(sample: Sample) -> str:
    return _shown(", ".join(sample)) if sample else "-"


def _shown(value: Any) -> str:
    """A value from a file as a sentence may show it: short, on one line, no control characters."""
    text = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(value))
    return text if len(text) <= 60 else f"{text[:57]}…"
