"""The kind of a file's records, and each record as a sample of our own format; pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, time
from typing import Any

import orjson

Sample = dict[str, Any]

# Names that people give the two columns of a question and its answer, in the order they are tried.
_QUESTIONS = ("question", "pergunta", "instruction", "prompt", "input", "query", "user", "entrada")
_ANSWERS = ("answer", "resposta", "output", "completion", "response", "reply", "assistant", "saida")
_SYSTEM = ("system", "sistema", "system_prompt")
# ShareGPT's names of who speaks, and ours.
_SPEAKERS = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "system": "system",
    "tool": "tool",
}


# Of a message, beside role and content: tools, whether it is learned, and thinking apart from it.
_KEPT = ("tool_calls", "tool_call_id", "name", "train", "weight", "reasoning_content")


class Unmapped(Exception):
    """A record that is no sample; `reason` names what is missing."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Form:
    """The form of a source's records. `columns`: our names, and the source's for them."""

    name: str
    columns: Mapping[str, str]

    def sample(self, record: Any) -> Sample:
        """Return a record as a sample. Raises Unmapped."""
        if not isinstance(record, Mapping):
            raise Unmapped("record")
        return _MAKERS[self.name](record, self.columns)


def form_of(record: Any, mapping: Mapping[str, str]) -> Form | None:
    """Return the form of a source by its first record. `mapping` is the user's own choice.

    Its keys are `question`, `answer`, `system`, `text`, `messages`. None where nothing fits.
    """
    if not isinstance(record, Mapping):
        return None
    names = {str(name).casefold(): str(name) for name in record}
    if mapping:
        form = next((f for f in ("messages", "text") if f in mapping), "question")
        return Form("chat" if form == "messages" else form, dict(mapping))
    if "messages" in names:
        return Form("chat", {"messages": names["messages"]})
    if "conversations" in names or "conversation" in names:
        name = names.get("conversations") or names["conversation"]
        return Form("chat", {"messages": name})
    columns = {
        ours: names[found]
        for ours, known in (("question", _QUESTIONS), ("answer", _ANSWERS), ("system", _SYSTEM))
        if (found := next((name for name in known if name in names), ""))
    }
    if {"question", "answer"} <= columns.keys():
        if columns["question"].casefold() == "instruction" and "input" in names:
            columns["context"] = names["input"]
        return Form("question", columns)
    return Form("text", {"text": names["text"]}) if "text" in names else None


def _chat(record: Mapping[str, Any], columns: Mapping[str, str]) -> Sample:
    turns = record.get(columns["messages"])
    if isinstance(turns, str):  # as tables hold it
        try:
            turns = orjson.loads(turns)
        except orjson.JSONDecodeError:
            raise Unmapped(columns["messages"]) from None
    if not isinstance(turns, list) or not turns:
        raise Unmapped(columns["messages"])
    messages = [_message(turn) for turn in turns]
    if not any(message["role"] == "assistant" for message in messages):
        raise Unmapped("assistant")
    sample: Sample = {"messages": messages}
    if record.get("tools"):
        sample["tools"] = record["tools"]
    return sample


def _message(turn: Any) -> Sample:
    if not isinstance(turn, Mapping):
        raise Unmapped("message")
    role = _SPEAKERS.get(str(turn.get("role") or turn.get("from") or "").casefold())
    content = turn.get("content", turn.get("value"))
    if role is None:
        raise Unmapped("role")
    if content is None and not turn.get("tool_calls"):
        raise Unmapped("content")
    kept = {k: turn[k] for k in _KEPT if turn.get(k) is not None}
    return {
        "role": role,
        "content": content if isinstance(content, list) else _text(content),
        **kept,
    }


def _question(record: Mapping[str, Any], columns: Mapping[str, str]) -> Sample:
    question, answer = _filled(record, columns, "question"), _filled(record, columns, "answer")
    context = _text(record.get(columns.get("context", ""), ""))
    system = _text(record.get(columns.get("system", ""), ""))
    messages = [{"role": "system", "content": system}] if system else []
    messages += _earlier(record.get("history"))
    messages.append({"role": "user", "content": "\n\n".join(filter(None, [question, context]))})
    messages.append({"role": "assistant", "content": answer})
    return {"messages": messages}


def _earlier(history: Any) -> list[Sample]:
    """Return the earlier turns, as in Alpaca's files: pairs of question and answer."""
    if not isinstance(history, list):
        return []
    if not all(isinstance(pair, list) and len(pair) == 2 for pair in history):
        raise Unmapped("history")
    roles = ("user", "assistant")
    return [
        {"role": role, "content": _text(said)}
        for pair in history
        for role, said in zip(roles, pair, strict=True)
    ]


def _plain_text(record: Mapping[str, Any], columns: Mapping[str, str]) -> Sample:
    return {"text": _filled(record, columns, "text")}


def _filled(record: Mapping[str, Any], columns: Mapping[str, str], name: str) -> str:
    column = columns.get(name, name)
    text = _text(record.get(column))
    if not text:
        raise Unmapped(column)
    return text


def _text(value: Any) -> str:
    """Return a cell as text: whole numbers without a fraction, and an empty text for an empty
    cell.
    """
    if value is None or value != value:  # NaN, as spreadsheets write an empty cell
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, datetime) and value.time() == time():
        value = value.date()  # as a spreadsheet keeps a day
    if isinstance(value, list | dict | bytes):
        raise Unmapped("text")
    return str(value).strip()


_MAKERS: Mapping[str, Callable[[Mapping[str, Any], Mapping[str, str]], Sample]] = {
    "chat": _chat,
    "question": _question,
    "text": _plain_text,
}
