"""Protobuf messages as JSON values for `--json`: short enum names, findings with a sentence."""

from __future__ import annotations

import math
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct

from safetrain.echo import echo
from safetrain_proto.v1.findings_pb2 import Finding
from safetrain_proto.v1.settings_pb2 import TrainingSettings
from safetrain_shared import findings
from safetrain_shared.codec import to_plain
from safetrain_shared.events import Event, Notice, Outcome, Planned, StateChanged
from safetrain_shared.messages import say
from safetrain_shared.printable import json_line
from safetrain_shared.wire import finding_from_wire, settings_from_wire


def write(value: Any) -> None:
    """Print a value as one line of JSON on standard output."""
    echo(json_line(_finite(value)))


def exported_to_json(done: Message, program: str, name: str | None) -> dict[str, Any]:
    """Return an export, the program that it was given to (empty: none), and its name there."""
    return {**message_to_json(done), "program": program or None, "name": name}


def message_to_json(message: Message) -> dict[str, Any]:
    """Return all fields of a message; absent fields are None, integers stay integers."""
    if isinstance(message, Finding):
        return finding_to_json(message)
    if isinstance(message, TrainingSettings):  # what is absent was not chosen
        return to_plain(settings_from_wire(message))  # type: ignore[no-any-return]
    return {field.name: _field(message, field) for field in message.DESCRIPTOR.fields}


def finding_to_json(message: Finding) -> dict[str, Any]:
    """Return a finding with its sentence in the language in use."""
    finding = finding_from_wire(message)
    return {**to_plain(finding), "text": say(finding, fallback=message.text)}


def event_to_json(event: Event) -> dict[str, Any]:
    """Return an event with the fields of the event file; findings get their sentences."""
    head = {"seq": event.seq, "attempt": event.attempt, "time": event.time, "kind": event.kind}
    match event.body:
        case None:
            return head
        case Notice(finding):
            worded: dict[str, Any] = {"finding": _worded(finding)}
        case StateChanged(_, cause) | Outcome(_, cause):
            worded = {"cause": _worded(cause) if cause else None}
        case Planned(plan):
            reasons = [_worded(reason) for reason in plan.reasons]
            worded = {"plan": {**to_plain(plan), "reasons": reasons}}
        case _:
            worded = {}
    return {**head, **to_plain(event.body), **worded}


def _worded(finding: findings.Finding) -> dict[str, Any]:
    return {**to_plain(finding), "text": say(finding)}


def _field(message: Message, field: Any) -> Any:
    if field.has_presence and not message.HasField(field.name):
        return None
    value = getattr(message, field.name)
    if field.is_repeated:
        return [_single(part, field) for part in value]
    return _single(value, field)


def _single(value: Any, field: Any) -> Any:
    if field.enum_type is not None:
        return _short(field, value)
    if isinstance(value, Struct):
        return MessageToDict(value)
    return message_to_json(value) if isinstance(value, Message) else value


def _short(field: Any, number: int) -> str:
    """JOB_STATE_RUNNING → running."""
    names = field.enum_type.values_by_number
    prefix = names[0].name.removesuffix("UNSPECIFIED")
    return names[number].name.removeprefix(prefix).lower() if number in names else "unknown"


def _finite(value: Any) -> Any:
    """Replace NaN and infinity, which JSON does not have, by None."""
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
