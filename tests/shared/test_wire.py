"""Domain and protobuf say the same; what a newer version adds is carried or passed over."""

import dataclasses
import itertools
import json
from collections.abc import Iterator, Mapping
from enum import StrEnum
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

import pytest

from safetrain_proto.v1 import events_pb2, findings_pb2, jobs_pb2, settings_pb2
from safetrain_shared import events, jobs, wire
from safetrain_shared.codec import from_plain, to_plain
from safetrain_shared.errors import ERRORS, ArgValue, InvalidSetting, NotFound
from safetrain_shared.evaluations import CheckpointScore, EvaluatedAnswer, Evaluation, Verdict
from safetrain_shared.findings import Finding, Status
from safetrain_shared.settings import FIELDS, SettingValue, TrainingSettings
from safetraind.storage import event_file

FINDING = Finding("data.leakage", Status.WARNING, False, {"count": 3, "share": 0.25, "path": "/a"})
PLAN = jobs.Plan(
    TrainingSettings(lora_targets=("self_attn.q_proj",)), "/m", 57, reasons=(FINDING,), samples=9
)
BODIES: list[events.Body] = [
    events.StateChanged(jobs.JobState.PAUSED, FINDING),
    events.StateChanged(jobs.JobState.QUEUED),
    events.PhaseChanged("loading"),
    events.Planned(PLAN),
    events.StepDone(3, 0, 3, 57, 1.25, 2e-4, 0.5, 900, 110.0, 1 << 30, 1 << 31, 12.5),
    events.Evaluated(3, 0, 3, 1.5, 36, True),
    events.CheckpointSaved(3, 0, 3, "/o/checkpoint_epoch_0_step_3", 1 << 20, 0.125),
    events.QuestionsAnswered(8, 24, 12.5),
    events.Judged(
        Evaluation(
            1,
            "/q",
            "/a",
            Verdict("better", 24, 0.25, 0.75, 0.5, 0.25, 0.75, 0.001, 12),
            checkpoints=(CheckpointScore("checkpoint_epoch_0_step_3", 0.5),),
            answers=(EvaluatedAnswer("Q?", ("a", "b"), "exact", "a", "b", 0.0, 1.0),),
        )
    ),
    events.Notice(FINDING),
    events.Outcome("succeeded"),
    events.Damaged(10, 99),
]


def test_message_and_settings_name_the_same_settings() -> None:
    assert set(settings_pb2.TrainingSettings.DESCRIPTOR.fields_by_name) == set(FIELDS)


def test_every_kind_of_event_has_a_place_on_the_wire() -> None:
    assert {f.name for f in events_pb2.Event.DESCRIPTOR.oneofs_by_name["body"].fields} == set(
        events.KINDS
    )
    assert {type(body) for body in BODIES} == set(events.KINDS.values())


@pytest.mark.parametrize("body", BODIES, ids=lambda b: type(b).__name__)
def test_an_event_survives_wire_and_file(body: events.Body) -> None:
    line = event_file.encode(7, 2, 1.5, body)
    event = event_file.decode(line[:-1])
    assert event == events.Event(7, 2, 1.5, events.KIND_OF[type(body)], body)
    sent = wire.event_to_wire(event).SerializeToString()
    assert wire.event_from_wire(events_pb2.Event.FromString(sent)) == event


def test_an_event_of_an_unknown_kind_keeps_its_number() -> None:
    sent = wire.event_to_wire(events.Event(4, 1, 0.0, "future", None))
    assert wire.event_from_wire(sent) == events.Event(4, 1, 0.0, "unknown", None)


def test_an_event_with_a_state_of_a_newer_version_keeps_its_number() -> None:
    sent = events_pb2.Event(seq=4, attempt=1, state=events_pb2.StateChanged(state=99))  # type: ignore[arg-type]
    assert wire.event_from_wire(sent) == events.Event(4, 1, 0.0, "state", None)


def distinct(cls: type, number: Iterator[int]) -> Any:
    """An instance of a definition in which no field has its default, and no two are alike."""
    hints = get_type_hints(cls)
    values = {f.name: _value(f, hints[f.name], number) for f in dataclasses.fields(cls)}
    return cls(**values)


def _value(field: dataclasses.Field[Any], hint: Any, number: Iterator[int]) -> Any:
    if choices := field.metadata.get("choices"):
        return next(choice for choice in choices if choice != field.default)
    if (high := field.metadata.get("high")) is not None and hint is float:
        return high * 0.5 ** (1 + next(number) / 100)
    if high is not None and hint is int:
        return min(next(number), high)
    if hint in (int, float, str):
        return hint(next(number))
    if hint is bool:
        return field.default is not True
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return next(member for member in hint if member is not field.default)
    return _compound(hint, number)


def _compound(hint: Any, number: Iterator[int]) -> Any:
    if hint == tuple[str, ...]:
        return (str(next(number)),)
    if get_origin(hint) is tuple:
        return tuple(distinct(get_args(hint)[0], number) for _ in range(2))
    if hint == Mapping[str, ArgValue]:
        return {"count": next(number), "share": 0.25, "path": "/a", "whole": False, "none": None}
    if hint == Mapping[str, SettingValue]:
        full = distinct(TrainingSettings, number)
        return {name: getattr(full, name) for name in FIELDS}
    return distinct(get_args(hint)[0] if isinstance(hint, UnionType) else hint, number)


DEFINITIONS = [
    (findings_pb2.Finding, Finding),
    (jobs_pb2.JobSpec, jobs.JobSpec),
    (jobs_pb2.Plan, jobs.Plan),
    *((getattr(events_pb2, cls.__name__), cls) for cls in events.KINDS.values()),
]


@pytest.mark.parametrize(("message", "cls"), DEFINITIONS, ids=lambda cls: cls.__name__)
def test_every_field_of_a_definition_survives_wire_and_json(message: Any, cls: type) -> None:
    value = distinct(cls, itertools.count(11))
    sent = message()
    wire.fill(sent, value)
    assert wire.read(message.FromString(sent.SerializeToString()), cls) == value
    plain = json.loads(json.dumps(to_plain(value)))
    assert from_plain(plain, cls) == value
    assert from_plain({**plain, "of_a_newer_version": 1}, cls) == value


@pytest.mark.parametrize(("message", "cls"), DEFINITIONS, ids=lambda cls: cls.__name__)
def test_a_message_has_no_field_that_its_definition_lacks(message: Any, cls: type) -> None:
    only_for_others = {"text"} if cls is Finding else set()
    names = {field.name for field in dataclasses.fields(cls)}
    assert set(message.DESCRIPTOR.fields_by_name) - only_for_others == names


def test_an_absent_setting_is_not_a_zero() -> None:
    assert wire.settings_from_wire(wire.settings_to_wire({"lora_layers": 0})) == {"lora_layers": 0}


def test_a_setting_out_of_range_is_refused_on_arrival() -> None:
    with pytest.raises(InvalidSetting) as refused:
        wire.settings_from_wire(settings_pb2.TrainingSettings(batch_size=0))
    assert refused.value.code == "setting.range"


@pytest.mark.parametrize("cls", ERRORS)
def test_an_error_arrives_as_the_error_it_was(cls: type) -> None:
    sent = wire.error_to_wire(cls("job.unknown", id=7)).SerializeToString()
    error = wire.error_from_wire(sent)
    assert type(error) is cls
    assert (error.code, error.args_by_name) == ("job.unknown", {"id": 7})


def test_an_error_of_a_newer_daemon_brings_its_english_sentence() -> None:
    status = wire.error_to_wire(NotFound("job.unknown", id=7))
    for detail in status.details:
        finding = findings_pb2.Finding()
        if detail.Unpack(finding):
            finding.code = "future.code"
            detail.Pack(finding)
    error = wire.error_from_wire(status.SerializeToString())
    assert error is not None
    assert error.code == "future.code"
    assert error.__notes__ == ["There is no job 7. See them all with: safetrain jobs"]
