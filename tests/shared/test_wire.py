"""Domain and protobuf say the same; what a newer version adds is carried or passed over."""

import dataclasses

import pytest

from safetrain_proto.v1 import events_pb2, findings_pb2, jobs_pb2, settings_pb2
from safetrain_shared import events, jobs, wire
from safetrain_shared.errors import ERRORS, InvalidSetting, NotFound
from safetrain_shared.findings import Finding, Status
from safetrain_shared.settings import FIELDS, TrainingSettings

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
    events.Notice(FINDING),
    events.Outcome("succeeded"),
    events.Damaged(10, 99),
]


def test_message_and_settings_name_the_same_settings() -> None:
    assert set(settings_pb2.TrainingSettings.DESCRIPTOR.fields_by_name) == set(FIELDS)


@pytest.mark.parametrize(
    ("message", "cls"),
    [
        (jobs_pb2.JobSpec, jobs.JobSpec),
        (jobs_pb2.Plan, jobs.Plan),
        (events_pb2.StepDone, events.StepDone),
        (events_pb2.Evaluated, events.Evaluated),
        (events_pb2.CheckpointSaved, events.CheckpointSaved),
    ],
)
def test_message_and_dataclass_have_the_same_fields(message: type, cls: type) -> None:
    assert set(message.DESCRIPTOR.fields_by_name) == {f.name for f in dataclasses.fields(cls)}


def test_every_kind_of_event_has_a_place_on_the_wire() -> None:
    assert {f.name for f in events_pb2.Event.DESCRIPTOR.oneofs_by_name["body"].fields} == set(
        events.KINDS
    )
    assert {type(body) for body in BODIES} == set(events.KINDS.values())


@pytest.mark.parametrize("body", BODIES, ids=lambda b: type(b).__name__)
def test_an_event_survives_wire_and_file(body: events.Body) -> None:
    event = events.event_from_dict(events.event_to_dict(7, 2, 1.5, body))
    assert event.body == body
    sent = wire.event_to_wire(event).SerializeToString()
    received = wire.event_from_wire(events_pb2.Event.FromString(sent))
    assert (received.seq, received.attempt, received.time, received.body) == (7, 2, 1.5, body)


def test_an_event_of_an_unknown_kind_keeps_its_number() -> None:
    event = events.event_from_dict({"seq": 4, "attempt": 1, "time": 0.0, "kind": "future", "x": 1})
    assert event.body is None
    assert wire.event_from_wire(wire.event_to_wire(event)).seq == 4


def test_spec_plan_and_finding_survive_the_wire() -> None:
    spec = jobs.JobSpec("demo", "/t", "/v", "/o", settings={"batch_size": 2, "packing": False})
    assert wire.spec_from_wire(wire.spec_to_wire(spec)) == spec
    assert jobs.spec_from_dict(jobs.to_dict(spec)) == spec
    assert wire.plan_from_wire(wire.plan_to_wire(PLAN)) == PLAN
    assert jobs.plan_from_dict(jobs.to_dict(PLAN)) == PLAN


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
