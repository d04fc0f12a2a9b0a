"""Domain ⇄ protobuf: the one place that knows both. Errors travel as google.rpc.Status."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from operator import attrgetter
from typing import Any, TypeVar

from google.protobuf import any_pb2, struct_pb2
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2

from safetrain_proto.v1 import events_pb2, findings_pb2, jobs_pb2, settings_pb2
from safetrain_shared import errors, events, jobs
from safetrain_shared.findings import Finding, Status
from safetrain_shared.messages import sentence
from safetrain_shared.settings import FIELDS, SettingValue, TrainingSettings, checked

ERROR_DOMAIN = "safetrain.v1"
STATUS_DETAILS = "grpc-status-details-bin"  # the trailer that gRPC reserves for google.rpc.Status
M = TypeVar("M", bound=Message)


def settings_to_wire(values: Mapping[str, SettingValue] | TrainingSettings) -> Any:
    """Settings, complete or only some, as a message."""
    if isinstance(values, TrainingSettings):
        values = {name: getattr(values, name) for name in FIELDS}
    message = settings_pb2.TrainingSettings()
    for name, value in values.items():
        if isinstance(value, tuple):
            message.lora_targets.CopyFrom(settings_pb2.StringList(values=value))
        else:
            setattr(message, name, value)
    return message


def settings_from_wire(message: Any) -> dict[str, SettingValue]:
    """The settings that are present, each checked. Raises InvalidSetting."""
    values: dict[str, SettingValue] = {}
    for descriptor, value in message.ListFields():
        raw = tuple(value.values) if isinstance(value, settings_pb2.StringList) else value
        values[descriptor.name] = checked(descriptor.name, raw)
    return values


def finding_to_wire(finding: Finding) -> findings_pb2.Finding:
    """A finding, with its English sentence for clients that have no catalogue."""
    args = struct_pb2.Struct()
    args.update(dict(finding.args))
    return findings_pb2.Finding(
        code=finding.code,
        status=findings_pb2.Status.Value(f"STATUS_{finding.status.name}"),
        blocks=finding.blocks,
        args=args,
        text=sentence(finding.code, finding.args, lang="en"),
        section=finding.section,
    )


def finding_from_wire(message: findings_pb2.Finding) -> Finding:
    """The reverse; a status of a newer version reads as info."""
    try:
        status = Status(findings_pb2.Status.Name(message.status).removeprefix("STATUS_").lower())
    except ValueError:
        status = Status.INFO
    args: dict[str, Any] = {k: _whole(message.args[k]) for k in message.args}
    return Finding(message.code, status, message.blocks, args, message.section)


def _whole(value: Any) -> Any:
    """Struct knows only doubles: whole ones read as integers again."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def spec_to_wire(spec: jobs.JobSpec) -> jobs_pb2.JobSpec:
    """A job's specification as a message."""
    message = jobs_pb2.JobSpec(settings=settings_to_wire(spec.settings))
    _copy(spec, message, skip=("settings",))
    return message


def spec_from_wire(message: jobs_pb2.JobSpec) -> jobs.JobSpec:
    """The reverse. Raises InvalidSetting."""
    plain = {
        name: getattr(message, name)
        for name in jobs.field_names(jobs.JobSpec)
        if name != "settings"
    }
    return jobs.JobSpec(settings=settings_from_wire(message.settings), **plain)


def plan_to_wire(plan: jobs.Plan) -> jobs_pb2.Plan:
    """A plan as a message."""
    message = jobs_pb2.Plan(
        settings=settings_to_wire(plan.settings),
        reasons=[finding_to_wire(r) for r in plan.reasons],
    )
    _copy(plan, message, skip=("settings", "reasons"))
    return message


def plan_from_wire(message: jobs_pb2.Plan) -> jobs.Plan:
    """The reverse. Raises InvalidSetting."""
    plain = {
        name: getattr(message, name)
        for name in jobs.field_names(jobs.Plan)
        if name not in ("settings", "reasons")
    }
    return jobs.Plan(
        settings=TrainingSettings().with_overrides(settings_from_wire(message.settings)),
        reasons=tuple(finding_from_wire(r) for r in message.reasons),
        **plain,
    )


def state_to_wire(state: jobs.JobState) -> Any:
    """A job state as its enum value."""
    return jobs_pb2.JobState.Value(f"JOB_STATE_{state.name}")


def state_from_wire(value: Any) -> jobs.JobState | None:
    """The reverse; None for a state of a newer version."""
    try:
        return jobs.JobState(jobs_pb2.JobState.Name(value).removeprefix("JOB_STATE_").lower())
    except ValueError:
        return None


def event_to_wire(event: events.Event) -> events_pb2.Event:
    """An event as a message; one of an unknown kind goes out with its number alone."""
    message = events_pb2.Event(seq=event.seq, attempt=event.attempt, time=event.time)
    if event.body is None:
        return message
    part = getattr(message, event.kind)
    part.SetInParent()
    match event.body:
        case events.StateChanged(state, cause):
            part.state = state_to_wire(state)
            _set_finding(part.cause, cause)
        case events.Planned(plan):
            part.plan.CopyFrom(plan_to_wire(plan))
        case events.Notice(finding):
            _set_finding(part.finding, finding)
        case events.Outcome(outcome, cause):
            part.outcome = outcome
            _set_finding(part.cause, cause)
        case body:
            _copy(body, part)
    return message


def event_from_wire(message: events_pb2.Event) -> events.Event:
    """The reverse; the body is None for a kind of a newer version."""
    kind = message.WhichOneof("body")
    if kind is None:
        return events.Event(message.seq, message.attempt, message.time, "unknown", None)
    part = getattr(message, kind)
    body: events.Body
    if kind == "state":
        state = state_from_wire(part.state)
        if state is None:
            return events.Event(message.seq, message.attempt, message.time, kind, None)
        body = events.StateChanged(state, _finding_or_none(part, "cause"))
    elif kind == "planned":
        body = events.Planned(plan_from_wire(part.plan))
    elif kind == "notice":
        body = events.Notice(finding_from_wire(part.finding))
    elif kind == "outcome":
        body = events.Outcome(part.outcome, _finding_or_none(part, "cause"))
    else:
        cls = events.KINDS[kind]
        body = cls(*_fields_of(cls)(part))
    return events.Event(message.seq, message.attempt, message.time, kind, body)


@cache
def _fields_of(cls: type) -> Callable[[object], tuple[Any, ...]]:
    """What takes the fields of a `cls` off a message, in their order."""
    names = jobs.field_names(cls)
    if len(names) == 1:
        return lambda message: (getattr(message, names[0]),)
    return attrgetter(*names)


def error_to_wire(error: errors.SafetrainError) -> status_pb2.Status:
    """An error as google.rpc.Status: ErrorInfo for any client, and the finding for ours."""
    finding = Finding(error.code, Status.FAILED, True, error.args_by_name)
    info = error_details_pb2.ErrorInfo(
        reason=error.code,
        domain=ERROR_DOMAIN,
        metadata={
            "class": type(error).__name__,
            **{k: str(v) for k, v in error.args_by_name.items()},
        },
    )
    details = [any_pb2.Any(), any_pb2.Any()]
    details[0].Pack(info)
    details[1].Pack(finding_to_wire(finding))
    return status_pb2.Status(
        code=code_pb2.Code.Value(error.grpc_status),
        message=sentence(error.code, error.args_by_name, lang="en"),
        details=details,
    )


def error_from_wire(data: bytes) -> errors.SafetrainError | None:
    """The error in a `grpc-status-details-bin` trailer; None where it is not one of ours."""
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


def _set_finding(part: findings_pb2.Finding, finding: Finding | None) -> None:
    if finding is not None:
        part.CopyFrom(finding_to_wire(finding))


def _finding_or_none(part: Any, name: str) -> Finding | None:
    return finding_from_wire(getattr(part, name)) if part.HasField(name) else None


def _copy(source: Any, message: Message, skip: tuple[str, ...] = ()) -> None:
    for name in jobs.field_names(source.__class__):
        if name not in skip:
            setattr(message, name, getattr(source, name))
