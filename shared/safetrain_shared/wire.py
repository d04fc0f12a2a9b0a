"""Definitions ⇄ protobuf: the one module that knows both. Errors travel as google.rpc.Status.

A message has the fields of its definition under the same names, and `_converter` chooses by a
field's annotation how it travels. A field that is added to both needs no code here.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable, Mapping
from enum import StrEnum
from functools import cache, partial
from operator import attrgetter
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2

from safetrain_proto.v1 import events_pb2, findings_pb2, jobs_pb2, settings_pb2
from safetrain_shared import errors, events
from safetrain_shared.findings import Finding, finding_of
from safetrain_shared.jobs import JobSpec, JobState, Plan
from safetrain_shared.messages import sentence
from safetrain_shared.settings import FIELDS, SettingValue, TrainingSettings, checked

ERROR_DOMAIN = "safetrain.v1"
STATUS_DETAILS = "grpc-status-details-bin"  # the trailer that gRPC reserves for google.rpc.Status
T = TypeVar("T")
E = TypeVar("E", bound=StrEnum)
Put = Callable[[Any, str, Any], None]  # writes a value into the named field of a message
Take = Callable[[Any, str], Any]  # reads it

_PLAIN = (int, float, str, bool)


def settings_to_wire(values: Mapping[str, SettingValue] | TrainingSettings) -> Any:
    """Return settings, complete or only some, as a message."""
    if isinstance(values, TrainingSettings):
        values = {name: getattr(values, name) for name in FIELDS}
    message = settings_pb2.TrainingSettings()
    for name, value in values.items():
        if isinstance(value, tuple):
            getattr(message, name).CopyFrom(settings_pb2.StringList(values=value))
        else:
            setattr(message, name, value)
    return message


def settings_from_wire(message: Any) -> dict[str, SettingValue]:
    """Return the settings that are present, each checked. Raises InvalidSetting."""
    values: dict[str, SettingValue] = {}
    for descriptor, value in message.ListFields():
        raw = tuple(value.values) if isinstance(value, settings_pb2.StringList) else value
        values[descriptor.name] = checked(descriptor.name, raw)
    return values


def finding_to_wire(finding: Finding) -> findings_pb2.Finding:
    """Return a finding as a message, with its English sentence for clients without a catalogue."""
    message = findings_pb2.Finding()
    fill(message, finding)
    return message


def finding_from_wire(message: findings_pb2.Finding) -> Finding:
    """Return the finding of a message; a status of a newer version reads as info."""
    return read(message, Finding)


def spec_to_wire(spec: JobSpec) -> jobs_pb2.JobSpec:
    """Return a job's specification as a message."""
    message = jobs_pb2.JobSpec()
    fill(message, spec)
    return message


def spec_from_wire(message: jobs_pb2.JobSpec) -> JobSpec:
    """Return the specification of a message. Raises InvalidSetting."""
    return read(message, JobSpec)


def plan_to_wire(plan: Plan) -> jobs_pb2.Plan:
    """Return a plan as a message."""
    message = jobs_pb2.Plan()
    fill(message, plan)
    return message


def plan_from_wire(message: jobs_pb2.Plan) -> Plan:
    """Return the plan of a message. Raises InvalidSetting."""
    return read(message, Plan)


def state_to_wire(state: JobState) -> Any:
    """Return a job state as its enum value."""
    return jobs_pb2.JobState.Value(f"JOB_STATE_{state.name}")


def state_from_wire(value: Any) -> JobState | None:
    """Return the job state of an enum value; None for a state of a newer version."""
    return _enum_member(jobs_pb2.JobState.DESCRIPTOR, value, JobState)


def event_to_wire(event: events.Event) -> events_pb2.Event:
    """Return an event as a message; one of an unknown kind goes out with its number alone."""
    message = events_pb2.Event(seq=event.seq, attempt=event.attempt, time=event.time)
    if event.body is not None:
        part = getattr(message, event.kind)
        part.SetInParent()
        fill(part, event.body)
    return message


def event_from_wire(message: events_pb2.Event) -> events.Event:
    """Return the event of a message; its body is None for a kind or state of a newer version."""
    kind = message.WhichOneof("body") or "unknown"
    body: events.Body | None = None
    if kind in events.KINDS:
        try:
            body = read(getattr(message, kind), events.KINDS[kind])
        except LookupError:
            body = None
    return events.Event(message.seq, message.attempt, message.time, kind, body)


def error_to_wire(error: errors.SafetrainError) -> status_pb2.Status:
    """Return an error as google.rpc.Status: ErrorInfo for any client, the finding for ours.

    The reason is the code as ErrorInfo wants it: `job.unknown` is JOB_UNKNOWN, in `ERROR_DOMAIN`.
    """
    args = {name: str(value) for name, value in error.args_by_name.items()}
    info = error_details_pb2.ErrorInfo(
        reason=error.code.upper().replace(".", "_"),
        domain=ERROR_DOMAIN,
        metadata={**args, "class": type(error).__name__, "code": error.code},
    )
    details = [any_pb2.Any(), any_pb2.Any()]
    details[0].Pack(info)
    details[1].Pack(finding_to_wire(finding_of(error)))
    return status_pb2.Status(
        code=code_pb2.Code.Value(error.grpc_status),
        message=sentence(error.code, error.args_by_name, lang="en"),
        details=details,
    )


def error_from_wire(data: bytes) -> errors.SafetrainError | None:
    """Return the error in a `grpc-status-details-bin` trailer; None if it is not one of ours."""
    status = status_pb2.Status.FromString(data)
    cls: type[errors.SafetrainError] = errors.Broken
    finding: Finding | None = None
    for detail in status.details:
        info, message = error_details_pb2.ErrorInfo(), findings_pb2.Finding()
        if detail.Unpack(info):
            cls = errors.BY_NAME.get(info.metadata.get("class", ""), errors.Broken)
        elif detail.Unpack(message):
            finding = finding_from_wire(message)
    if finding is None:
        return None
    error = cls(finding.code, **finding.args)
    error.add_note(status.message)  # the English sentence, for a code of a newer version
    return error


def fill(message: Any, value: Any) -> None:
    """Write every field of a definition into the message of the same fields."""
    for name, put in _puts(value.__class__):
        put(message, name, getattr(value, name))
    if isinstance(value, Finding):
        message.text = sentence(value.code, value.args, lang="en")


def read(message: Any, cls: Callable[..., T]) -> T:
    """Return a `cls` from the message of the same fields.

    Raises LookupError for a value of a newer version in a field that has no default.
    """
    return cls(*_takes(cls)(message))


@cache
def _puts(cls: Any) -> tuple[tuple[str, Put], ...]:
    return tuple((name, put) for name, (put, _) in _converters(cls).items())


@cache
def _takes(cls: Any) -> Callable[[Any], tuple[Any, ...]]:
    """Return what takes the fields of a `cls` off a message, in their order."""
    takes = [(name, take) for name, (_, take) in _converters(cls).items()]
    if len(takes) > 1 and all(take is getattr for _, take in takes):
        return attrgetter(*(name for name, _ in takes))  # most events: in half the time
    return lambda message: tuple(take(message, name) for name, take in takes)


@cache
def _converters(cls: Any) -> dict[str, tuple[Put, Take]]:
    """Return for each field of a definition how it is put into a message and taken from it."""
    hints = get_type_hints(cls)
    return {f.name: _converter(hints[f.name], f.default) for f in dataclasses.fields(cls)}


def _converter(hint: Any, default: Any) -> tuple[Put, Take]:
    """Return the converter of a field by its annotation; `default`: for an unknown enum value."""
    if hint in _PLAIN:
        return setattr, getattr
    if hint is TrainingSettings:
        return _put_settings, _take_all_settings
    if hint == Mapping[str, SettingValue]:
        return _put_settings, lambda m, name: settings_from_wire(getattr(m, name))
    if get_origin(hint) is Mapping:
        return _put_struct, _take_struct
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return _put_enum, partial(_take_enum, hint, default)
    if isinstance(hint, types.UnionType):  # X | None
        put, take = _converter(get_args(hint)[0], default)
        return partial(_put_optional, put), partial(_take_optional, take)
    if get_origin(hint) is tuple and get_args(hint)[0] in _PLAIN:
        return _put_scalars, _take_scalars
    if get_origin(hint) is tuple:
        return _put_repeated, partial(_take_repeated, get_args(hint)[0])
    return _put_part, lambda m, name: read(getattr(m, name), hint)


def _put_settings(message: Any, name: str, values: Any) -> None:
    getattr(message, name).CopyFrom(settings_to_wire(values))


def _take_all_settings(message: Any, name: str) -> TrainingSettings:
    return TrainingSettings().with_overrides(settings_from_wire(getattr(message, name)))


def _put_struct(message: Any, name: str, values: Mapping[str, Any]) -> None:
    getattr(message, name).update(dict(values))


def _take_struct(message: Any, name: str) -> dict[str, Any]:
    return {key: _integer(value) for key, value in getattr(message, name).items()}


def _integer(value: Any) -> Any:
    """Struct knows only doubles: whole ones read as integers again."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _put_enum(message: Any, name: str, member: StrEnum) -> None:
    kind = message.DESCRIPTOR.fields_by_name[name].enum_type
    setattr(message, name, kind.values_by_name[_enum_prefix(kind) + member.name].number)


def _take_enum(cls: type[StrEnum], default: Any, message: Any, name: str) -> Any:
    kind = message.DESCRIPTOR.fields_by_name[name].enum_type
    member = _enum_member(kind, getattr(message, name), cls) or default
    if not isinstance(member, cls):
        raise LookupError(name)
    return member


def _enum_member(kind: Any, number: int, cls: type[E]) -> E | None:
    """Return the member of an enum value such as JOB_STATE_QUEUED; None for an unknown one."""
    value = kind.values_by_number.get(number)
    name = value.name.removeprefix(_enum_prefix(kind)) if value else ""
    return cls.__members__.get(name)


def _enum_prefix(kind: Any) -> str:
    """Return what the names of an enum's values begin with, such as JOB_STATE_."""
    return str(kind.values_by_number[0].name).removesuffix("UNSPECIFIED")


def _put_part(message: Any, name: str, value: Any) -> None:
    getattr(message, name).SetInParent()
    fill(getattr(message, name), value)


def _put_optional(put: Put, message: Any, name: str, value: Any) -> None:
    if value is not None:
        put(message, name, value)


def _take_optional(take: Take, message: Any, name: str) -> Any:
    return take(message, name) if message.HasField(name) else None


def _put_scalars(message: Any, name: str, values: Any) -> None:
    getattr(message, name).extend(values)


def _take_scalars(message: Any, name: str) -> tuple[Any, ...]:
    return tuple(getattr(message, name))


def _put_repeated(message: Any, name: str, values: Any) -> None:
    for value in values:
        fill(getattr(message, name).add(), value)


def _take_repeated(cls: type, message: Any, name: str) -> tuple[Any, ...]:
    return tuple(read(part, cls) for part in getattr(message, name))
