"""The formats of a sample, as in mlx-lm: chat, completions, text and tools.

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
from itertools import islice
from typing import Any

# Beside msgspec, which says less of what is wrong: not which kind, for a cut line or bytes that are
# no UTF-8 not where. `arg_words` has the words for users for each of orjson's reasons.
import orjson

from safetrain_shared.errors import ArgValue
from safetrain_shared.findings import Status

Sample = dict[str, Any]

OPENING_ROLES = frozenset({"system", "developer"})
ROLES = OPENING_ROLES | {"user", "assistant", "tool"}
# The keys that make a sample one of its format.
_SAMPLE_KEYS = {
    "completions": (b'"prompt"', b'"completion"'),
    "chat": (b'"messages"',),
    "tools": (b'"messages"', b'"tools"'),
    "text": (b'"text"',),
}
# Keys that have a meaning for other trainers and none here; each is reported where it stands.
_FOREIGN = frozenset(
    {"loss", "loss_weight", "loss_mask", "mask", "masked", "label", "labels", "learn", "trainable"}
    | {"train_detail", "training", "chosen", "rejected", "images", "image", "videos", "audios"}
    | {"function_call", "functions", "input_ids", "attention_mask", "assistant_masks", "response"}
    | {"prefix", "partial", "ignore", "skip", "kto_tag", "rating", "reward", "advantage"}
    | {"end_turn", "recipient", "channel", "refusal", "audio"}
)
_FOREIGN_OF_SAMPLE = (
    _FOREIGN
    | {"system", "weight", "train", "instruction", "input", "output", "history", "context"}
    | {"documents", "chat_template_kwargs", "add_generation_prompt", "tool_choice", "suffix"}
    | {"parallel_tool_calls", "response_format"}
)
_OTHER_FORMATS = {
    "completions": ("messages", "text"),
    "chat": ("prompt", "completion", "text"),
    "tools": ("prompt", "completion", "text"),
    "text": ("prompt", "completion"),
}
_FOREIGN_BEGINNING = ("train_on_", "loss_", "mask_")
# A line's findings end here: a line may hold a hundred thousand bad messages.
_MOST_MESSAGES_NAMED = 8
_MOST_KEYS_NAMED = 8


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem of one line. A warning leaves the sample usable, a failure does not."""

    code: str
    status: Status = Status.FAILED
    args: Mapping[str, ArgValue] = field(default_factory=dict)


class Unusable(Exception):
    """The line holds no sample. `problem` is the reason."""

    def __init__(self, code: str, **args: ArgValue) -> None:
        super().__init__(code)
        self.problem = Problem(code, Status.FAILED, args)


def parse(content: bytes) -> Sample:
    """Return the JSON object of a line. Raises Unusable for any other bytes."""
    try:
        sample = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise _unreadable(content, error) from None
    if type(sample) is not dict:
        raise Unusable("data.not_an_object", found=_kind(sample))
    return sample


def form_of(sample: Sample) -> str:
    """Return the sample's format. Raises Unusable where it has the keys of none."""
    if "prompt" in sample and "completion" in sample:
        return "completions"
    if "messages" in sample:
        return "tools" if sample.get("tools") else "chat"
    if "text" in sample:
        return "text"
    raise Unusable("data.unknown_format", keys=_listed(sample))


def judge(sample: Sample, form: str) -> list[Problem]:
    """Return the problems of a sample of format `form`; empty for a good one."""
    foreign = _judge_keys(sample, form) if len(sample) > 1 else []
    if form == "chat" and is_plain(sample["messages"]):
        return foreign
    if form == "text":
        return _judge_text(sample, "text") + foreign
    if form == "completions":
        return _judge_text(sample, "prompt") + _judge_text(sample, "completion") + foreign
    return _judge_messages(sample["messages"]) + _judge_tools(sample.get("tools")) + foreign


def duplicate_key(content: bytes, sample: Sample, form: str) -> str:
    """Return a key that occurs twice in one object of the line, where JSON keeps the last; or
    empty.

    Only lines in which a key of ours stands more often than it should are looked at closely.
    """
    messages = sample.get("messages")
    many = len(messages) if type(messages) is list else 0
    if content.count(b'"') == 2 + 8 * many:
        return ""  # a plain chat, with no room for another key
    for key in _SAMPLE_KEYS[form]:
        if content.count(key) > 1:
            return _doubled(content)
    if many and (content.count(b'"role"') > many or content.count(b'"content"') > many):
        return _doubled(content)
    return ""


def _doubled(content: bytes) -> str:
    doubled: list[str] = []

    def pairs(items: list[tuple[str, Any]]) -> None:
        if len(dict(items)) < len(items):
            seen: set[str] = set()
            for name, _ in items:
                if name in seen:
                    doubled.append(name)
                    return
                seen.add(name)

    try:
        json.loads(content, object_pairs_hook=pairs)
    except (ValueError, RecursionError):
        return ""
    return shown(doubled[0]) if doubled else ""


def content_of(message: Mapping[str, Any]) -> str:
    """Return the text of a message without faults, joined from its parts where it is a list of
    them.
    """
    content = message.get("content")
    if type(content) is list:  # joined as mlx-lm's server joins them
        return "".join([part["text"] for part in content])
    return content or ""


def is_learned(message: Mapping[str, Any]) -> bool:
    """Return whether an answer without faults is to be learned: neither `weight: 0` nor `train:
    false`.
    """
    return message.get("weight") not in _UNLEARNED and message.get("train") is not False


def unlearned(messages: list[dict[str, Any]]) -> int:
    """Return the number of answers that a conversation without faults excludes from learning."""
    return sum(m["role"] == "assistant" and not is_learned(m) for m in messages)


_UNLEARNED = (0, False)
_WEIGHTS = (None, 0, 1)  # false and true are equal to them


_PLAIN_NEXT = {
    "": {"system": "system", "user": "user"},
    "system": {"user": "user"},
    "user": {"assistant": "assistant"},
    "assistant": {"user": "user"},
}


def is_plain(messages: Any) -> bool:
    """Return whether a quick look finds no problem: texts, the usual roles in order, an answer
    last.

    Messages that do not pass are judged in full, and may still be good.
    """
    role = ""
    try:
        for message in messages:
            role = _PLAIN_NEXT[role][message["role"]]
            content = message["content"]
            if not content or content.isspace() or len(message) != 2:
                return False
    except (AttributeError, KeyError, TypeError):
        return False
    return role == "assistant" and type(messages) is list


def _judge_text(sample: Sample, key: str) -> list[Problem]:
    value = sample[key]
    if type(value) is not str:
        return [Problem("data.not_text", args={"key": key, "found": _kind(value)})]
    if not value or value.isspace():
        if key == "prompt":
            return []
        code = "data.empty_text" if key == "text" else "data.empty_answer"
        return [Problem(code, Status.WARNING, {"key": key})]
    return []


def _judge_messages(messages: Any) -> list[Problem]:
    if type(messages) is not list:
        return [Problem("data.messages_not_a_list", args={"found": _kind(messages)})]
    if not messages:
        return [Problem("data.no_messages")]
    judged = (_judge_message(message, place) for place, message in enumerate(messages, 1))
    problems = list(islice((problem for problem in judged if problem), _MOST_MESSAGES_NAMED))
    return problems or [*_judge_turns(messages), *_judge_keys_of(messages)]


def _judge_message(message: Any, place: int) -> Problem | None:
    if type(message) is not dict:
        args: dict[str, ArgValue] = {"place": place, "found": _kind(message)}
        return Problem("data.message_not_an_object", args=args)
    role, content, calls = message.get("role"), message.get("content"), message.get("tool_calls")
    if type(role) is not str:
        return Problem("data.role_not_text", args={"place": place, "found": _kind(role)})
    if role not in ROLES:
        return Problem("data.unknown_role", args={"place": place, "role": shown(role)})
    if calls is not None and not _is_list_of_objects(calls):
        return Problem("data.calls_not_a_list", args={"place": place, "found": _kind(calls)})
    if wrong := _wrong_weight(message):
        return Problem("data.weight", args={"place": place, **wrong})
    if type(content) is str or (content is None and calls):
        return None
    if type(content) is list and content and all(_is_text_part(part) for part in content):
        return None
    return Problem("data.content_not_text", args={"place": place, "found": _kind(content)})


def _wrong_weight(message: Mapping[str, Any]) -> dict[str, ArgValue]:
    """Return the key and value that should say whether a message is learned, but are neither yes
    nor no.
    """
    weight, train = message.get("weight"), message.get("train")
    if not isinstance(weight, int | float | None) or weight not in _WEIGHTS:
        return {"key": "weight", "value": shown(str(weight))}
    if not isinstance(train, bool | None):
        return {"key": "train", "value": shown(str(train))}
    return {}


def _judge_keys(sample: Sample, form: str) -> list[Problem]:
    """Return problems for keys of the sample that have a meaning to other trainers, or in another
    format.
    """
    foreign = (key for key in sample if key in _FOREIGN_OF_SAMPLE or _begins_foreign(key))
    problems = [_foreign(key, 0) for key in islice(foreign, _MOST_KEYS_NAMED)]
    others = next((key for key in _OTHER_FORMATS[form] if key in sample), None)
    if others is not None:
        args: dict[str, ArgValue] = {"key": others, "form": form}
        problems.append(Problem("data.two_formats", Status.WARNING, args))
    return problems


def _judge_keys_of(messages: list[dict[str, Any]]) -> list[Problem]:
    """Return the same problems for messages, each key once."""
    places: dict[str, int] = {}
    for place, message in enumerate(messages, 1):
        for key in message if len(message) > 2 else ():
            if key in _FOREIGN or _begins_foreign(key):
                places.setdefault(key, place)
    return [_foreign(key, place) for key, place in islice(places.items(), _MOST_KEYS_NAMED)]


def _begins_foreign(key: str) -> bool:
    return key.startswith(_FOREIGN_BEGINNING)


def _foreign(key: str, place: int) -> Problem:
    code = "data.foreign_key_of_message" if place else "data.foreign_key"
    return Problem(code, Status.WARNING, {"key": shown(key), "place": place})


def _judge_turns(messages: list[dict[str, Any]]) -> list[Problem]:
    """Judge the turns of a conversation.

    There must be an answer, and no answer may be empty. Roles must alternate after the system
    message, and the last message must be an answer.
    """
    if all(message["role"] != "assistant" for message in messages):
        return [Problem("data.no_answer")]
    problems = _judge_order(messages)
    if any(_is_empty_answer(message) for message in messages):
        problems.append(Problem("data.empty_answer", Status.WARNING, {"key": "content"}))
    return problems


def _judge_order(messages: list[dict[str, Any]]) -> list[Problem]:
    before, previous = "", messages[0]
    for place, message in enumerate(messages, 1):
        role = message["role"]
        if not _may_follow(role, before, previous):
            args = {"place": place, "role": role}
            if not before:
                return [Problem("data.role_first", Status.WARNING, args)]
            return [Problem("data.role_order", Status.WARNING, {**args, "before": before})]
        before, previous = role, message
    if before != "assistant":
        return [Problem("data.last_not_answer", Status.WARNING, {"role": before})]
    return []


def _may_follow(role: str, before: str, previous: Mapping[str, Any]) -> bool:
    if role in OPENING_ROLES:
        return before == ""
    if role == "user":
        return before in ("", "system", "developer", "assistant")
    if role == "tool":
        return before == "tool" or bool(before and previous.get("tool_calls"))
    return before in ("user", "tool")


def _is_empty_answer(message: Mapping[str, Any]) -> bool:
    is_answer = message["role"] == "assistant" and not message.get("tool_calls")
    return is_answer and not content_of(message).strip()


def _judge_tools(tools: Any) -> list[Problem]:
    if tools is None or _is_list_of_objects(tools):
        return []
    return [Problem("data.tools_not_a_list", args={"found": _kind(tools)})]


def _is_list_of_objects(value: Any) -> bool:
    return type(value) is list and all(type(item) is dict for item in value)


def _is_text_part(part: Any) -> bool:
    if type(part) is not dict or type(part.get("text")) is not str:
        return False
    return part.get("type", "text") == "text"


def _unreadable(content: bytes, error: orjson.JSONDecodeError) -> Unusable:
    """Return the reason why a line is unreadable: wrong encoding, NUL bytes, then wrong JSON."""
    try:
        content.decode()
    except UnicodeDecodeError as wrong:
        return Unusable("data.not_utf8", byte=wrong.start + 1)
    if 0 in content:
        return Unusable("data.nul_byte", byte=content.index(0) + 1)
    return Unusable("data.not_json", reason=str(error).split(": line ")[0], column=error.colno)


def _kind(value: Any) -> str:
    """Return the name of the value's type, for which `words` has the word for users."""
    return type(value).__name__


def _listed(sample: Sample) -> str:
    return shown(", ".join(islice(sample, _MOST_KEYS_NAMED))) if sample else "-"


def shown(text: str, most: int = 60) -> str:
    """Return a text from a file for display: on one line, without control characters, cut between
    words at so many characters.
    """
    clean = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text[:most])
    if len(text) <= most:
        return clean
    words, _, rest = clean[: most - 1].rpartition(" ")
    return f"{words or rest}…" if len(words) > most // 2 else f"{clean[: most - 1]}…"
