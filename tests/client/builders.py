"""Jobs and events for the client's tests."""

from __future__ import annotations

from typing import Any

from safetrain_proto.v1 import events_pb2, jobs_pb2
from safetrain_shared import events, wire
from safetrain_shared.evaluations import CheckpointScore, Evaluation, Verdict
from safetrain_shared.findings import Finding, Status
from safetrain_shared.jobs import JobState, Plan
from safetrain_shared.settings import TrainingSettings

NOON = 1_750_000_000.0


def job(number: int, state: JobState = JobState.RUNNING, **fields: Any) -> jobs_pb2.Job:
    """A job as the daemon sends it."""
    spec = jobs_pb2.JobSpec(
        model="demo", train="/d/train.jsonl", output=f"/out/{number}", name=fields.pop("name", "")
    )
    return jobs_pb2.Job(id=number, state=wire.state_to_wire(state), spec=spec, **fields)


def event(seq: int, body: events.Body, attempt: int = 1) -> events_pb2.Event:
    """An event as the daemon sends it, one second after the one before."""
    kind = events.KIND_OF[type(body)]
    return wire.event_to_wire(events.Event(seq, attempt, NOON + seq, kind, body))


def step(number: int, loss: float = 1.5, total: int = 100) -> events.StepDone:
    """A logged step with round numbers."""
    return events.StepDone(
        step=number,
        epoch=0,
        step_in_epoch=number,
        total_steps=total,
        loss=loss,
        learning_rate=2e-4,
        grad_norm=1.0,
        tokens=number * 100,
        tokens_per_second=250.0,
        peak_memory=2 << 30,
        footprint=3 << 30,
        eta_seconds=120.0,
    )


def plan(**settings: Any) -> Plan:
    """A frozen plan with a budget of 6 GB."""
    return Plan(
        settings=TrainingSettings(**settings),
        model_path="/models/demo",
        total_steps=100,
        memory_budget=6 << 30,
        measured_peak=2 << 30,
        expected_seconds=600.0,
        reasons=(Finding("train.early_stop", Status.INFO, args={"count": 2}),),
    )


def evaluation() -> Evaluation:
    """A training that helped, forgot nothing, and whose earlier checkpoint was the better one."""
    return Evaluation(
        1,
        "/d/questions.jsonl",
        "/out/1/checkpoint_epoch_0_step_20",
        Verdict("better", 45, 0.02, 0.64, 0.62, 0.47, 0.76, 1e-6, 9),
        path="/out/1/evaluation/evaluation.json",
        general=Verdict("unclear", 61, 0.3, 0.28, -0.02, -0.1, 0.06, 0.7, 900),
        divergence=0.21,
        checkpoints=(
            CheckpointScore("checkpoint_epoch_0_step_20", 0.7, 20),
            CheckpointScore("checkpoint_epoch_0_step_40", 0.6, 40, best_loss=True),
        ),
        selection=22,
        findings=(Finding("evaluate.by_heart", Status.WARNING, args={"repeated": 9, "wrong": 12}),),
    )


def complete_run() -> list[events_pb2.Event]:
    """A training from its queue to its end."""
    notice = Finding("train.left_out", Status.WARNING, args={"count": 3, "length": 256})
    bodies: list[events.Body] = [
        events.StateChanged(JobState.QUEUED),
        events.StateChanged(JobState.RUNNING),
        events.Planned(plan()),
        events.PhaseChanged("training"),
        step(10, 3.0),
        step(20, 2.0),
        events.Evaluated(20, 0, 20, 2.25, 95, best=True),
        events.CheckpointSaved(20, 0, 20, "/out/1/checkpoint_epoch_0_step_20", 5 << 20, 0.2),
        events.Notice(notice),
        step(30, 1.0),
        events.Outcome("succeeded"),
        events.StateChanged(JobState.SUCCEEDED),
    ]
    return [event(seq, body) for seq, body in enumerate(bodies, 1)]


def evaluated_run() -> list[events_pb2.Event]:
    """The same, with questions asked at its end."""
    run = complete_run()
    asked = (events.PhaseChanged("asking"), events.QuestionsAnswered(32, 90, 61.0))
    bodies = [*asked, events.Judged(evaluation())]
    return [*run, *(event(seq, body) for seq, body in enumerate(bodies, len(run) + 1))]
