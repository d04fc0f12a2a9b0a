"""The JSON of a chat-completions request, checked field by field, as the daemon's AskRequest. Pure.

A field that would change the answer and is not implemented is refused, never passed over. null
means the same as a field that was left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from safetrain.int64 import MOST
from safetrain_proto.v1.answers_pb2 import AskRequest, Message
from safetrain_shared.errors import InvalidInput

MAX_TOKENS = 1 << 20
"""The longest answer a request may ask for; without its own limit it ends with the context."""

_STOPS = 4  # as many as OpenAI takes
_STOP_CHARACTERS = 256
_LEAST_TOP_P = 1e-6  # 0 keeps the likeliest token alone; the daemon reads 0 as all of them
_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
_LENGTHS = "max_completion_tokens", "max_tokens"  # the newer name, then the older
_USED = {"model", "messages", "stream", "stream_options", "temperature", "top_p", "seed", "stop"}
# About the caller or the service, not the answer.
_WITHOUT_EFFECT = {
    "user",
    "metadata",
    "store",
    "service_tier",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "parallel_tool_calls",
}
# Not implemented: only the values that change nothing.
_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "n": (1,),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "logit_bias": ({},),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
}


@dataclass(frozen=True, slots=True)
class CompletionRequest:
    """A checked request. `model`: the name that was asked for; `ask` names no model yet."""

    model: str
    ask: AskRequest
    stream: bool
    include_usage: bool


def parse_request(body: bytes) -> CompletionRequest:
    """Return the request in a body. Raises InvalidInput, its argument `field` naming the fault."""
    data = _object(body)
    _check_names(data)
    options = data.get("stream_options", {})
    if not isinstance(options, dict):
        raise InvalidInput("serve.not_object", field="stream_options")
    seed = _integer(data, "seed", -MOST - 1, MOST)
    top_p = _number(data, "top_p", 0, 1)
    longest = [_integer(data, name, 1, MAX_TOKENS) for name in _LENGTHS]
    ask = AskRequest(
        messages=_messages(data),
        max_tokens=longest[0] or longest[1] or MAX_TOKENS,
        temperature=_number(data, "temperature", 0, 2) or 0.0,
        top_p=0.0 if top_p is None else max(top_p, _LEAST_TOP_P),
        seed=None if seed is None else seed & MOST,
        stop=_stops(data.get("stop")),
    )
    usage = _flag(options, "include_usage", "stream_options.include_usage")
    return CompletionRequest(_model(data), ask, _flag(data, "stream"), usage)


def _object(body: bytes) -> dict[str, Any]:
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        raise InvalidInput("serve.not_json") from None
    if not isinstance(data, dict):
        raise InvalidInput("serve.not_json")
    return {name: value for name, value in data.items() if value is not None}


def _check_names(data: Mapping[str, Any]) -> None:
    for name, value in data.items():
        if name in _NEUTRAL:
            if not any(value == neutral for neutral in _NEUTRAL[name]):
                raise InvalidInput("serve.unsupported", field=name)
        elif name not in {*_USED, *_LENGTHS, *_WITHOUT_EFFECT}:
            raise InvalidInput("serve.unknown_field", field=name[:100])


def _model(data: Mapping[str, Any]) -> str:
    model = data.get("model")
    if not isinstance(model, str) or not model:
        raise InvalidInput("serve.missing", field="model")
    return model


def _messages(data: Mapping[str, Any]) -> list[Message]:
    messages = data.get("messages")
    if not isinstance(messages, list) or not messages:
        raise InvalidInput("serve.missing", field="messages")
    return [_message(value, f"messages[{n}]") for n, value in enumerate(messages)]


def _message(value: Any, field: str) -> Message:
    if not isinstance(value, dict):
        raise InvalidInput("serve.not_object", field=field)
    role = value.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        raise InvalidInput("serve.role", field=f"{field}.role")
    if value.get("tool_calls") or value.get("function_call"):
        raise InvalidInput("serve.unsupported", field=f"{field}.tool_calls")
    return Message(role=_ROLES[role], content=_content(value.get("content"), f"{field}.content"))


def _content(value: Any, field: str) -> str:
    """Return a message's text: given as one, or as parts of which each is text."""
    if isinstance(value, list):
        parts = (_part(part, f"{field}[{n}]") for n, part in enumerate(value))
        return "".join(parts)
    return _text(value, field)


def _part(value: Any, field: str) -> str:
    if not isinstance(value, dict) or value.get("type") != "text":
        raise InvalidInput("serve.text_alone", field=field)
    return _text(value.get("text"), f"{field}.text")


def _text(value: Any, field: str) -> str:
    """Return the value if it is text that UTF-8 can carry; JSON allows lone surrogates."""
    if not isinstance(value, str):
        raise InvalidInput("serve.not_text", field=field)
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidInput("serve.not_text", field=field) from None
    return value


def _stops(value: Any) -> list[str]:
    """Return the stop texts: none, one, or a list of up to four."""
    if value is None:
        return []
    stops = value if isinstance(value, list) else [value]
    if len(stops) > _STOPS:
        raise InvalidInput("serve.stop", field="stop", most=_STOPS, longest=_STOP_CHARACTERS)
    texts = [_text(stop, "stop") for stop in stops]
    if not all(0 < len(text) <= _STOP_CHARACTERS for text in texts):
        raise InvalidInput("serve.stop", field="stop", most=_STOPS, longest=_STOP_CHARACTERS)
    return texts


def _flag(data: Mapping[str, Any], name: str, field: str = "") -> bool:
    value = data.get(name)
    if value is not None and not isinstance(value, bool):
        raise InvalidInput("serve.not_flag", field=field or name)
    return bool(value)


def _number(data: Mapping[str, Any], name: str, low: float, high: float) -> float | None:
    value = data.get(name)
    if value is None:
        return None
    real = isinstance(value, int | float) and not isinstance(value, bool)
    if not real or not low <= value <= high:
        raise InvalidInput("ask.out_of_range", field=name, low=low, high=high)
    return float(value)


def _integer(data: Mapping[str, Any], name: str, low: int, high: int) -> int | None:
    value = data.get(name)
    if value is None:
        return None
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole or not low <= value <= high:
        raise InvalidInput("serve.not_integer", field=name, low=low, high=high)
    return int(value)
