"""What the machine decides: lists of instructions, no process, no clock."""

from __future__ import annotations

import dataclasses
import signal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safetrain_shared.errors import EXIT_MEMORY, AlreadyFinished, Conflict, NotFound, SafetrainError
from safetrain_shared.findings import Finding
from safetrain_shared.jobs import FINAL, JobState, Plan
from safetrain_shared.settings import LOSS_CHUNK, TrainingSettings
from safetraind.scheduler.effects import (
    Check,
    DropLease,
    Effect,
    EmitEvent,
    FreezePlan,
    StopCheck,
    TakeLease,
    Train,
    WaitForResources,
    WriteIntent,
)
from safetraind.scheduler.state import ASKED, FREE, HELD, Job, SchedulerState, WorkerExit
from safetraind.scheduler.state_machine import decide
from safetraind.scheduler.triggers import (
    CancelAsked,
    CheckEnded,
    CheckPassed,
    LaunchFailed,
    LeaseTaken,
    MoveAsked,
    PauseAsked,
    Removed,
    ResourcesFound,
    ResumeAsked,
    RetryAsked,
    StopAsked,
    Submitted,
    Trigger,
    WakeUp,
    WorkerEnded,
)

S = JobState
PLAN = Plan(TrainingSettings(batch_size=4), "/model")


def scheduler(*jobs: Job, lease: str = FREE) -> SchedulerState:
    return SchedulerState({job.id: job for job in jobs}, lease)


def running(**fields: object) -> SchedulerState:
    job = Job(1, S.RUNNING, attempt=1, plan=PLAN, **fields)  # type: ignore[arg-type]
    return scheduler(job, lease=HELD)


def ended(before: SchedulerState, **end: object) -> tuple[SchedulerState, list[Effect]]:
    return decide(before, WorkerEnded(1, WorkerExit(spoke=True, **end)))  # type: ignore[arg-type]


def told(effects: list[Effect]) -> list[tuple[int, JobState]]:
    return [(i.id, i.state) for i in effects if isinstance(i, EmitEvent)]


def test_a_submitted_job_is_told_and_the_lease_is_asked_for() -> None:
    after, effects = decide(SchedulerState(), Submitted(Job(1)))
    assert effects == [EmitEvent(1, S.QUEUED), TakeLease()]
    assert after.lease == ASKED


def test_with_the_lease_an_unplanned_job_is_checked_and_a_planned_one_trains() -> None:
    after, effects = decide(scheduler(Job(1), lease=ASKED), LeaseTaken())
    assert effects == [EmitEvent(1, S.CHECKING), Check(1)]
    after, effects = decide(after, CheckPassed(1, PLAN))
    assert effects == [
        FreezePlan(1, PLAN),
        EmitEvent(1, S.RUNNING),
        Train(1, 1),
    ]
    planned = scheduler(Job(1, attempt=1, plan=PLAN), lease=ASKED)
    assert decide(planned, LeaseTaken())[1] == [
        EmitEvent(1, S.RUNNING),
        Train(1, 2),
    ]


def test_a_lease_that_nobody_needs_any_more_is_dropped() -> None:
    after, effects = decide(scheduler(Job(1, S.PAUSED), lease=ASKED), LeaseTaken())
    assert effects == [DropLease()]
    assert after.lease == FREE


def test_while_one_job_trains_the_next_only_waits() -> None:
    before = running()
    assert decide(before, Submitted(Job(2, position=1)))[1] == [EmitEvent(2, S.QUEUED)]


def test_the_end_of_one_job_is_the_turn_of_the_next() -> None:
    before = scheduler(Job(1, S.RUNNING, plan=PLAN), Job(2, position=2), lease=HELD)
    after, effects = ended(before, outcome="succeeded")
    assert told(effects) == [(1, S.SUCCEEDED)]
    assert effects[-2:] == [DropLease(), TakeLease()]
    assert decide(after, LeaseTaken())[1] == [
        EmitEvent(2, S.CHECKING),
        Check(2),
    ]


@pytest.mark.parametrize("state", [S.QUEUED, S.PAUSED, S.INTERRUPTED])
def test_a_waiting_job_is_cancelled_at_once(state: JobState) -> None:
    _, effects = decide(scheduler(Job(1, state), lease=HELD), CancelAsked(1))
    assert told(effects) == [(1, S.CANCELLED)]


def test_a_running_job_is_left_a_wish_and_stays_running_until_its_worker_ends() -> None:
    after, effects = decide(running(), CancelAsked(1))
    assert effects == [WriteIntent(1, "cancel")]
    assert after.jobs[1].state is S.RUNNING
    again, effects = decide(after, CancelAsked(1))
    assert effects == [WriteIntent(1, "cancel")]
    final, effects = ended(again, outcome="cancelled")
    assert told(effects) == [(1, S.CANCELLED)]
    with pytest.raises(AlreadyFinished):
        decide(final, CancelAsked(1))


def test_a_cancel_that_came_too_late_leaves_the_success() -> None:
    after, _ = decide(running(), CancelAsked(1))
    assert told(ended(after, outcome="succeeded")[1]) == [(1, S.SUCCEEDED)]


def test_a_pause_that_is_taken_back_in_time_takes_the_wish_back() -> None:
    after, _ = decide(running(), PauseAsked(1))
    after, effects = decide(after, ResumeAsked(1))
    assert effects == [WriteIntent(1, "")]
    _, effects = ended(after, outcome="paused")  # the worker was quicker
    assert told(effects) == [(1, S.INTERRUPTED)]
    assert TakeLease() in effects


def test_a_resumed_job_goes_to_the_head_of_the_queue() -> None:
    before = scheduler(
        Job(1, S.PAUSED, 1.0), Job(2, S.QUEUED, 2.0), Job(3, S.RUNNING), lease="held"
    )
    after, _ = decide(before, ResumeAsked(1))
    assert [job.id for job in after.waiting] == [1, 2]


def test_move_first_and_after_order_the_queue() -> None:
    jobs = [Job(n, position=n) for n in (1, 2, 3)]
    after, _ = decide(scheduler(*jobs, lease=HELD), MoveAsked(3, first=True))
    assert [job.id for job in after.waiting] == [3, 1, 2]
    waits = scheduler(Job(1, position=1, after=2), Job(2, position=2), lease=ASKED)
    assert decide(waits, LeaseTaken())[1][0] == EmitEvent(2, S.CHECKING)


def test_stopping_leaves_the_training_alone_unless_now() -> None:
    assert decide(running(), StopAsked(now=False))[1] == []
    after, effects = decide(running(), StopAsked(now=True))
    assert effects == [WriteIntent(1, "pause")]
    after, effects = ended(after, outcome="paused")
    assert after.jobs[1].state is S.INTERRUPTED
    assert TakeLease() not in effects


def test_an_interrupted_job_goes_on_before_those_in_the_queue() -> None:
    before = scheduler(Job(1, S.RUNNING, 9.0, plan=PLAN), Job(2, position=1.0), lease=HELD)
    after, _ = ended(before, signal=signal.SIGKILL, checkpointed=True)
    assert decide(after, LeaseTaken())[1][-1] == Train(1, 1)


def test_three_attempts_without_a_checkpoint_are_the_last() -> None:
    state = running()
    for attempt in (1, 2, 3):
        state, effects = ended(state, code=3)
        if attempt < 3:
            assert told(effects) == [(1, S.INTERRUPTED)]
            state, _ = decide(state, LeaseTaken())
    assert told(effects) == [(1, S.FAILED)]
    cause = state.jobs[1].cause
    assert cause is not None
    assert cause.code == "job.gave_up"


def test_a_new_checkpoint_counts_the_attempts_anew() -> None:
    after, _ = ended(running(attempts_without_progress=2), code=3, checkpointed=True)
    assert (after.jobs[1].state, after.jobs[1].attempts_without_progress) == (S.INTERRUPTED, 0)


def test_a_worker_that_never_began_counts_for_nothing() -> None:
    after, _ = decide(running(attempts_without_progress=2), WorkerEnded(1, WorkerExit()))
    assert (after.jobs[1].state, after.jobs[1].attempts_without_progress) == (S.INTERRUPTED, 2)


@pytest.mark.parametrize(
    "end",
    [
        {"signal": 9, "oom_kills": 1},
        {"signal": 11, "memory_short": True},
        {"signal": 6, "memory_short": True},
        {"outcome": "failed", "cause": Finding("job.out_of_memory")},
    ],
)
def test_a_death_of_memory_steps_down_and_goes_on(end: dict[str, object]) -> None:
    after, effects = ended(running(), **end)
    frozen = next(i for i in effects if isinstance(i, FreezePlan))
    assert frozen.plan.settings.batch_size == 2
    assert frozen.plan.settings.effective_batch == PLAN.settings.effective_batch
    assert frozen.notice is not None
    assert after.jobs[1].plan == frozen.plan
    assert told(effects) == [(1, S.INTERRUPTED)]


def test_a_rung_that_would_not_help_is_passed_over_whenever_the_job_goes_down() -> None:
    plan = Plan(TrainingSettings(batch_size=1), "/model")
    before = scheduler(Job(1, S.RUNNING, attempt=1, plan=plan), lease=HELD)
    ineffective = frozenset({"gradient_checkpointing"})
    after, _ = ended(before, signal=9, oom_kills=1, ineffective=ineffective)
    assert after.jobs[1].plan == dataclasses.replace(
        plan, settings=TrainingSettings(batch_size=1, loss_chunk=LOSS_CHUNK)
    )
    again = scheduler(
        Job(1, S.RUNNING, attempt=1, plan=plan, attempts_without_progress=1), lease=HELD
    )
    _, effects = ended(again, code=EXIT_MEMORY, ineffective=ineffective)
    (frozen,) = (i for i in effects if isinstance(i, FreezePlan))
    assert not frozen.plan.settings.gradient_checkpointing


@pytest.mark.parametrize("end", [{"signal": 9}, {"signal": 11}, {"code": 1}])
def test_a_crash_is_told_apart_from_a_death_of_memory(end: dict[str, object]) -> None:
    after, effects = ended(running(), **end)
    assert not [i for i in effects if isinstance(i, FreezePlan)]
    cause = after.jobs[1].cause
    assert cause is not None
    assert cause.code in ("job.worker_killed", "job.worker_crashed")


@pytest.mark.parametrize(
    "end",
    [
        {"machine_restarted": True},
        {"outcome": "failed", "cause": Finding("job.gpu_watchdog")},
    ],
)
def test_a_restart_and_the_watchdog_go_on_unchanged_and_fall_back_the_second_time(
    end: dict[str, object],
) -> None:
    after, effects = ended(running(), **end)
    assert after.jobs[1].state is S.INTERRUPTED
    assert not [i for i in effects if isinstance(i, FreezePlan)]
    after, _ = decide(after, LeaseTaken())
    _, effects = ended(after, **end)
    assert [i for i in effects if isinstance(i, FreezePlan)]


def test_the_watchdog_after_progress_changes_nothing() -> None:
    watchdog = {"outcome": "failed", "cause": Finding("job.gpu_watchdog"), "checkpointed": True}
    after, effects = ended(running(attempts_without_progress=1), **watchdog)
    assert after.jobs[1].state is S.INTERRUPTED
    assert not [i for i in effects if isinstance(i, FreezePlan)]


@pytest.mark.parametrize(
    "end",
    [
        {"outcome": "paused", "cause": Finding("train.disk_full")},
        {"outcome": "paused", "cause": Finding("train.disk_read_only")},
        {"code": 74},
    ],
)
def test_a_full_disk_holds_the_job_until_there_is_room_and_lets_others_pass(
    end: dict[str, object],
) -> None:
    before = scheduler(Job(1, S.RUNNING, plan=PLAN), Job(2, position=2), lease=HELD)
    after, effects = ended(before, **end)
    assert WaitForResources(1) in effects
    assert (after.jobs[1].state, after.jobs[1].attempts_without_progress) == (S.INTERRUPTED, 0)
    assert decide(after, LeaseTaken())[1][-1] == Check(2)
    after, _ = decide(after, ResourcesFound(1))
    assert decide(after, LeaseTaken())[1][-1] == Train(1, 1)


def test_a_run_that_left_the_memory_waits_for_what_it_needs_and_comes_back_alike() -> None:
    short = Finding("train.memory_short", args={"needed": 5})
    after, effects = ended(running(), outcome="paused", cause=short, checkpointed=True)
    assert WaitForResources(1, memory=5) in effects
    after, effects = decide(after, ResourcesFound(1))
    assert effects == [TakeLease()]
    assert after.jobs[1].plan == PLAN


def test_after_a_segment_nobody_uses_the_gpu_until_the_rest_is_over() -> None:
    plan = dataclasses.replace(PLAN, settings=TrainingSettings(rest_minutes=2.0))
    jobs = Job(1, S.RUNNING, attempt=1, plan=plan), Job(2, S.QUEUED)
    segment = Finding("train.segment", args={"step": 5})
    after, effects = ended(scheduler(*jobs, lease=HELD), outcome="paused", cause=segment)
    assert [type(i) for i in effects] == [EmitEvent, WaitForResources, DropLease]
    assert effects[1] == WaitForResources(1, seconds=120.0)
    assert decide(after, WakeUp())[1] == []
    after, effects = decide(after, ResourcesFound(1))
    assert effects == [TakeLease()]
    assert decide(after, LeaseTaken())[1][-1] == Train(1, 2)


def test_a_rest_ends_with_the_job_that_rests() -> None:
    jobs = Job(1, S.RUNNING, attempt=1, plan=PLAN), Job(2, S.QUEUED)
    segment = Finding("train.segment", args={"step": 5})
    after, _ = ended(scheduler(*jobs, lease=HELD), outcome="paused", cause=segment)
    after, effects = decide(after, CancelAsked(1))
    assert told(effects) == [(1, S.CANCELLED)] and effects[-1] == TakeLease()
    assert decide(after, ResourcesFound(1))[1] == []


def test_a_restart_by_a_kernel_panic_is_said_to_be_one() -> None:
    after, _ = ended(running(), machine_restarted=True, panic="/Library/Logs/x.panic")
    cause = after.jobs[1].cause
    assert cause is not None and cause.code == "job.kernel_panic"


def test_a_step_that_is_broken_off_twice_comes_back_smaller() -> None:
    after, effects = ended(running(), code=EXIT_MEMORY)
    assert told(effects) == [(1, S.INTERRUPTED)]
    assert not [i for i in effects if isinstance(i, FreezePlan)]
    after, _ = decide(after, ResourcesFound(1))
    after, _ = decide(after, LeaseTaken())
    after, effects = ended(after, code=EXIT_MEMORY)
    assert [i for i in effects if isinstance(i, FreezePlan)]
    assert after.jobs[1].attempts_without_progress == 0, "the smaller step has its own three"


def test_a_failure_that_the_worker_explains_is_final_and_may_be_retried() -> None:
    after, effects = ended(running(), outcome="failed", cause=Finding("train.non_finite"))
    assert told(effects) == [(1, S.FAILED)]
    _, effects = decide(after, RetryAsked(1))
    assert told(effects) == [(1, S.QUEUED)]


def test_cancel_and_pause_in_a_check_break_it_off() -> None:
    checking = scheduler(Job(1, S.CHECKING), lease=HELD)
    after, effects = decide(checking, CancelAsked(1))
    assert effects == [StopCheck(1)]
    assert told(decide(after, CheckEnded(1))[1]) == [(1, S.CANCELLED)]
    assert told(decide(after, CheckPassed(1, PLAN))[1]) == [(1, S.CANCELLED)]


def test_wishes_that_cannot_be_granted_are_refused_with_a_reason() -> None:
    with pytest.raises(NotFound):
        decide(SchedulerState(), PauseAsked(1))
    refused: list[tuple[SchedulerState, Trigger, str]] = [
        (scheduler(Job(1)), ResumeAsked(1), "job.not_paused"),
        (scheduler(Job(1, S.SUCCEEDED)), RetryAsked(1), "job.not_retryable"),
        (scheduler(Job(1, S.PAUSED)), Removed(1), "job.live"),
        (running(), MoveAsked(1, first=True), "job.not_queued"),
    ]
    for before, wish, code in refused:
        with pytest.raises(Conflict) as caught:
            decide(before, wish)
        assert caught.value.code == code


@pytest.mark.parametrize("state", [S.CHECKING, S.RUNNING])
def test_a_wish_is_granted_though_the_worker_could_not_be_started(state: JobState) -> None:
    failed = LaunchFailed(1, Finding("disk.refused"))
    before = scheduler(Job(1, state, attempt=1), lease=HELD)
    after, effects = decide(before, failed)
    assert (after.jobs[1].state, after.jobs[1].held) == (S.INTERRUPTED, True)
    assert WaitForResources(1) in effects
    for wish, end in (
        (CancelAsked(1), S.CANCELLED),
        (PauseAsked(1), S.PAUSED),
    ):
        wished, _ = decide(before, wish)
        assert told(decide(wished, failed)[1]) == [(1, end)]


_IDS = st.integers(1, 3)
_ENDS = st.builds(
    WorkerExit,
    outcome=st.sampled_from(["", "succeeded", "paused", "cancelled", "failed"]),
    spoke=st.booleans(),
    checkpointed=st.booleans(),
    signal=st.sampled_from([0, 9, 11]),
    oom_kills=st.sampled_from([0, 1]),
)
_STIMULI = st.one_of(
    st.builds(PauseAsked, _IDS),
    st.builds(ResumeAsked, _IDS),
    st.builds(CancelAsked, _IDS),
    st.builds(RetryAsked, _IDS),
    st.builds(MoveAsked, _IDS, st.booleans()),
    st.builds(Removed, _IDS),
    st.just(LeaseTaken()),
    st.builds(CheckPassed, _IDS, st.just(PLAN)),
    st.builds(CheckEnded, _IDS, st.sampled_from([None, Finding("path.missing")])),
    st.builds(WorkerEnded, _IDS, _ENDS),
    st.builds(LaunchFailed, _IDS, st.just(Finding("disk.refused"))),
    st.builds(ResourcesFound, _IDS),
)


def _can_happen(state: SchedulerState, trigger: Trigger) -> bool:
    """Workers end only where one runs, checks only where one is under way, and so on."""
    match trigger:
        case LeaseTaken():
            return state.lease == ASKED
        case LaunchFailed(job_id, _):
            return job_id in state.jobs and state.jobs[job_id].state in (S.CHECKING, S.RUNNING)
        case WorkerEnded(job_id, _):
            return job_id in state.jobs and state.jobs[job_id].state is S.RUNNING
        case CheckPassed(job_id, _) | CheckEnded(job_id, _):
            return job_id in state.jobs and state.jobs[job_id].state is S.CHECKING
    return True


@settings(max_examples=300, deadline=None)
@given(st.lists(_STIMULI, max_size=40))
def test_whatever_happens_one_job_at_most_is_active_and_no_one_is_forgotten(
    stimuli: list[Trigger],
) -> None:
    state = SchedulerState()
    for job_id in (1, 2, 3):
        state, _ = decide(state, Submitted(Job(job_id, position=job_id)))
    for trigger in stimuli:
        if not _can_happen(state, trigger):
            continue
        try:
            state, _ = decide(state, trigger)
        except SafetrainError:
            continue
        active = [j for j in state.jobs.values() if j.state in (S.CHECKING, S.RUNNING)]
        assert len(active) <= 1
        assert bool(active) == (state.lease == HELD)
        startable = [j for j in state.waiting if not j.held]
        if startable and not active:
            assert state.lease == ASKED, "somebody could start and nobody asks"
        assert all(not j.intent for j in state.jobs.values() if j.state in FINAL)
