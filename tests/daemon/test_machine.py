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
from safetraind.jobs import moves
from safetraind.jobs.machine import decide
from safetraind.jobs.moves import End, House, Job

S = JobState
PLAN = Plan(TrainingSettings(batch_size=4), "/model")


def house(*jobs: Job, lease: str = moves.FREE) -> House:
    return House({job.id: job for job in jobs}, lease)


def running(**fields: object) -> House:
    job = Job(1, S.RUNNING, attempt=1, plan=PLAN, **fields)  # type: ignore[arg-type]
    return house(job, lease=moves.HELD)


def ended(before: House, **end: object) -> tuple[House, list[moves.Instruction]]:
    return decide(before, moves.WorkerEnded(1, End(spoke=True, **end)))  # type: ignore[arg-type]


def told(instructions: list[moves.Instruction]) -> list[tuple[int, JobState]]:
    return [(i.id, i.state) for i in instructions if isinstance(i, moves.Tell)]


def test_a_submitted_job_is_told_and_the_lease_is_asked_for() -> None:
    after, instructions = decide(House(), moves.Submitted(Job(1)))
    assert instructions == [moves.Tell(1, S.QUEUED), moves.TakeLease()]
    assert after.lease == moves.ASKED


def test_with_the_lease_an_unplanned_job_is_checked_and_a_planned_one_trains() -> None:
    after, instructions = decide(house(Job(1), lease=moves.ASKED), moves.LeaseTaken())
    assert instructions == [moves.Tell(1, S.CHECKING), moves.Check(1)]
    after, instructions = decide(after, moves.CheckPassed(1, PLAN))
    assert instructions == [moves.Freeze(1, PLAN), moves.Tell(1, S.RUNNING), moves.Train(1, 1)]
    planned = house(Job(1, attempt=1, plan=PLAN), lease=moves.ASKED)
    assert decide(planned, moves.LeaseTaken())[1] == [moves.Tell(1, S.RUNNING), moves.Train(1, 2)]


def test_a_lease_that_nobody_needs_any_more_is_dropped() -> None:
    after, instructions = decide(house(Job(1, S.PAUSED), lease=moves.ASKED), moves.LeaseTaken())
    assert instructions == [moves.DropLease()]
    assert after.lease == moves.FREE


def test_while_one_job_trains_the_next_only_waits() -> None:
    before = running()
    assert decide(before, moves.Submitted(Job(2, position=1)))[1] == [moves.Tell(2, S.QUEUED)]


def test_the_end_of_one_job_is_the_turn_of_the_next() -> None:
    before = house(Job(1, S.RUNNING, plan=PLAN), Job(2, position=2), lease=moves.HELD)
    after, instructions = ended(before, outcome="succeeded")
    assert told(instructions) == [(1, S.SUCCEEDED)]
    assert instructions[-2:] == [moves.DropLease(), moves.TakeLease()]
    assert decide(after, moves.LeaseTaken())[1] == [moves.Tell(2, S.CHECKING), moves.Check(2)]


@pytest.mark.parametrize("state", [S.QUEUED, S.PAUSED, S.INTERRUPTED])
def test_a_waiting_job_is_cancelled_at_once(state: JobState) -> None:
    _, instructions = decide(house(Job(1, state), lease=moves.HELD), moves.CancelAsked(1))
    assert told(instructions) == [(1, S.CANCELLED)]


def test_a_running_job_is_left_a_wish_and_stays_running_until_its_worker_ends() -> None:
    after, instructions = decide(running(), moves.CancelAsked(1))
    assert instructions == [moves.Intend(1, "cancel")]
    assert after.jobs[1].state is S.RUNNING
    again, instructions = decide(after, moves.CancelAsked(1))
    assert instructions == [moves.Intend(1, "cancel")]
    final, instructions = ended(again, outcome="cancelled")
    assert told(instructions) == [(1, S.CANCELLED)]
    with pytest.raises(AlreadyFinished):
        decide(final, moves.CancelAsked(1))


def test_a_cancel_that_came_too_late_leaves_the_success() -> None:
    after, _ = decide(running(), moves.CancelAsked(1))
    assert told(ended(after, outcome="succeeded")[1]) == [(1, S.SUCCEEDED)]


def test_a_pause_that_is_taken_back_in_time_takes_the_wish_back() -> None:
    after, _ = decide(running(), moves.PauseAsked(1))
    after, instructions = decide(after, moves.ResumeAsked(1))
    assert instructions == [moves.Intend(1, "")]
    _, instructions = ended(after, outcome="paused")  # the worker was quicker
    assert told(instructions) == [(1, S.INTERRUPTED)]
    assert moves.TakeLease() in instructions


def test_a_resumed_job_goes_to_the_head_of_the_queue() -> None:
    before = house(Job(1, S.PAUSED, 1.0), Job(2, S.QUEUED, 2.0), Job(3, S.RUNNING), lease="held")
    after, _ = decide(before, moves.ResumeAsked(1))
    assert [job.id for job in after.waiting] == [1, 2]


def test_move_first_and_after_order_the_queue() -> None:
    jobs = [Job(n, position=n) for n in (1, 2, 3)]
    after, _ = decide(house(*jobs, lease=moves.HELD), moves.MoveAsked(3, first=True))
    assert [job.id for job in after.waiting] == [3, 1, 2]
    waits = house(Job(1, position=1, after=2), Job(2, position=2), lease=moves.ASKED)
    assert decide(waits, moves.LeaseTaken())[1][0] == moves.Tell(2, S.CHECKING)


def test_stopping_leaves_the_training_alone_unless_now() -> None:
    assert decide(running(), moves.StopAsked(now=False))[1] == []
    after, instructions = decide(running(), moves.StopAsked(now=True))
    assert instructions == [moves.Intend(1, "pause")]
    after, instructions = ended(after, outcome="paused")
    assert after.jobs[1].state is S.INTERRUPTED
    assert moves.TakeLease() not in instructions


def test_an_interrupted_job_goes_on_before_those_in_the_queue() -> None:
    before = house(Job(1, S.RUNNING, 9.0, plan=PLAN), Job(2, position=1.0), lease=moves.HELD)
    after, _ = ended(before, signal=signal.SIGKILL, checkpointed=True)
    assert decide(after, moves.LeaseTaken())[1][-1] == moves.Train(1, 1)


def test_three_attempts_without_a_checkpoint_are_the_last() -> None:
    state = running()
    for attempt in (1, 2, 3):
        state, instructions = ended(state, code=3)
        if attempt < 3:
            assert told(instructions) == [(1, S.INTERRUPTED)]
            state, _ = decide(state, moves.LeaseTaken())
    assert told(instructions) == [(1, S.FAILED)]
    cause = state.jobs[1].cause
    assert cause is not None
    assert cause.code == "job.gave_up"


def test_a_new_checkpoint_counts_the_attempts_anew() -> None:
    after, _ = ended(running(fruitless=2), code=3, checkpointed=True)
    assert (after.jobs[1].state, after.jobs[1].fruitless) == (S.INTERRUPTED, 0)


def test_a_worker_that_never_began_counts_for_nothing() -> None:
    after, _ = decide(running(fruitless=2), moves.WorkerEnded(1, End()))
    assert (after.jobs[1].state, after.jobs[1].fruitless) == (S.INTERRUPTED, 2)


@pytest.mark.parametrize(
    "end",
    [
        {"signal": 9, "oom_kills": 1},
        {"signal": 11, "memory_short": True},
        {"signal": 6, "memory_short": True},
        {"outcome": "failed", "cause": Finding("job.out_of_memory")},
        {"outcome": "failed", "cause": Finding("job.gpu_watchdog")},
    ],
)
def test_a_death_of_memory_steps_down_and_goes_on(end: dict[str, object]) -> None:
    after, instructions = ended(running(), **end)
    frozen = next(i for i in instructions if isinstance(i, moves.Freeze))
    assert frozen.plan.settings.batch_size == 2
    assert frozen.plan.settings.effective_batch == PLAN.settings.effective_batch
    assert frozen.notice is not None
    assert after.jobs[1].plan == frozen.plan
    assert told(instructions) == [(1, S.INTERRUPTED)]


def test_a_rung_that_would_not_help_is_passed_over_whenever_the_job_goes_down() -> None:
    plan = Plan(TrainingSettings(batch_size=1), "/model")
    before = house(Job(1, S.RUNNING, attempt=1, plan=plan), lease=moves.HELD)
    useless = frozenset({"gradient_checkpointing"})
    after, _ = ended(before, signal=9, oom_kills=1, useless=useless)
    assert after.jobs[1].plan == dataclasses.replace(
        plan, settings=TrainingSettings(batch_size=1, loss_chunk=LOSS_CHUNK)
    )
    held, _ = ended(before, outcome="paused", cause=Finding("train.memory_short"), useless=useless)
    _, instructions = decide(held, moves.RoomFound(1, enough=False))
    (frozen,) = (i for i in instructions if isinstance(i, moves.Freeze))
    assert not frozen.plan.settings.gradient_checkpointing


@pytest.mark.parametrize("end", [{"signal": 9}, {"signal": 11}, {"code": 1}])
def test_a_crash_is_told_apart_from_a_death_of_memory(end: dict[str, object]) -> None:
    after, instructions = ended(running(), **end)
    assert not [i for i in instructions if isinstance(i, moves.Freeze)]
    cause = after.jobs[1].cause
    assert cause is not None
    assert cause.code in ("job.worker_killed", "job.worker_crashed")


def test_the_second_restart_of_the_machine_without_progress_steps_down() -> None:
    after, instructions = ended(running(), machine_restarted=True)
    assert not [i for i in instructions if isinstance(i, moves.Freeze)]
    after, _ = decide(after, moves.LeaseTaken())
    _, instructions = ended(after, machine_restarted=True)
    assert [i for i in instructions if isinstance(i, moves.Freeze)]


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
    before = house(Job(1, S.RUNNING, plan=PLAN), Job(2, position=2), lease=moves.HELD)
    after, instructions = ended(before, **end)
    assert moves.AwaitRoom(1) in instructions
    assert (after.jobs[1].state, after.jobs[1].fruitless) == (S.INTERRUPTED, 0)
    assert decide(after, moves.LeaseTaken())[1][-1] == moves.Check(2)
    after, _ = decide(after, moves.RoomFound(1))
    assert decide(after, moves.LeaseTaken())[1][-1] == moves.Train(1, 1)


def test_a_run_that_left_the_memory_waits_for_what_it_needs_and_comes_back_alike() -> None:
    short = Finding("train.memory_short", args={"needed": 5})
    after, instructions = ended(running(), outcome="paused", cause=short, checkpointed=True)
    assert moves.AwaitRoom(1, memory=5) in instructions
    after, instructions = decide(after, moves.RoomFound(1))
    assert instructions == [moves.TakeLease()]
    assert after.jobs[1].plan == PLAN


def test_where_no_memory_comes_back_it_goes_on_smaller() -> None:
    short = Finding("train.memory_short", args={"needed": 5})
    after, _ = ended(running(), outcome="paused", cause=short, checkpointed=True)
    after, instructions = decide(after, moves.RoomFound(1, enough=False))
    assert [type(i) for i in instructions] == [moves.Freeze, moves.TakeLease]
    assert after.jobs[1].plan != PLAN


def test_a_step_that_is_broken_off_twice_comes_back_smaller() -> None:
    after, instructions = ended(running(), code=EXIT_MEMORY)
    assert told(instructions) == [(1, S.INTERRUPTED)]
    assert not [i for i in instructions if isinstance(i, moves.Freeze)]
    after, _ = decide(after, moves.RoomFound(1))
    after, _ = decide(after, moves.LeaseTaken())
    _, instructions = ended(after, code=EXIT_MEMORY)
    assert [i for i in instructions if isinstance(i, moves.Freeze)]


def test_a_failure_that_the_worker_explains_is_final_and_may_be_retried() -> None:
    after, instructions = ended(running(), outcome="failed", cause=Finding("train.non_finite"))
    assert told(instructions) == [(1, S.FAILED)]
    _, instructions = decide(after, moves.RetryAsked(1))
    assert told(instructions) == [(1, S.QUEUED)]


def test_cancel_and_pause_in_a_check_break_it_off() -> None:
    checking = house(Job(1, S.CHECKING), lease=moves.HELD)
    after, instructions = decide(checking, moves.CancelAsked(1))
    assert instructions == [moves.StopCheck(1)]
    assert told(decide(after, moves.CheckEnded(1))[1]) == [(1, S.CANCELLED)]
    assert told(decide(after, moves.CheckPassed(1, PLAN))[1]) == [(1, S.CANCELLED)]


def test_wishes_that_cannot_be_granted_are_refused_with_a_reason() -> None:
    with pytest.raises(NotFound):
        decide(House(), moves.PauseAsked(1))
    refused: list[tuple[House, moves.Stimulus, str]] = [
        (house(Job(1)), moves.ResumeAsked(1), "job.not_paused"),
        (house(Job(1, S.SUCCEEDED)), moves.RetryAsked(1), "job.not_retryable"),
        (house(Job(1, S.PAUSED)), moves.Removed(1), "job.live"),
        (running(), moves.MoveAsked(1, first=True), "job.not_queued"),
    ]
    for before, wish, code in refused:
        with pytest.raises(Conflict) as caught:
            decide(before, wish)
        assert caught.value.code == code


@pytest.mark.parametrize("state", [S.CHECKING, S.RUNNING])
def test_a_wish_is_granted_though_the_worker_could_not_be_started(state: JobState) -> None:
    failed = moves.LaunchFailed(1, Finding("disk.refused"))
    before = house(Job(1, state, attempt=1), lease=moves.HELD)
    after, instructions = decide(before, failed)
    assert (after.jobs[1].state, after.jobs[1].held) == (S.INTERRUPTED, True)
    assert moves.AwaitRoom(1) in instructions
    for wish, end in ((moves.CancelAsked(1), S.CANCELLED), (moves.PauseAsked(1), S.PAUSED)):
        wished, _ = decide(before, wish)
        assert told(decide(wished, failed)[1]) == [(1, end)]


_IDS = st.integers(1, 3)
_ENDS = st.builds(
    End,
    outcome=st.sampled_from(["", "succeeded", "paused", "cancelled", "failed"]),
    spoke=st.booleans(),
    checkpointed=st.booleans(),
    signal=st.sampled_from([0, 9, 11]),
    oom_kills=st.sampled_from([0, 1]),
)
_STIMULI = st.one_of(
    st.builds(moves.PauseAsked, _IDS),
    st.builds(moves.ResumeAsked, _IDS),
    st.builds(moves.CancelAsked, _IDS),
    st.builds(moves.RetryAsked, _IDS),
    st.builds(moves.MoveAsked, _IDS, st.booleans()),
    st.builds(moves.Removed, _IDS),
    st.just(moves.LeaseTaken()),
    st.builds(moves.CheckPassed, _IDS, st.just(PLAN)),
    st.builds(moves.CheckEnded, _IDS, st.sampled_from([None, Finding("path.missing")])),
    st.builds(moves.WorkerEnded, _IDS, _ENDS),
    st.builds(moves.LaunchFailed, _IDS, st.just(Finding("disk.refused"))),
    st.builds(moves.RoomFound, _IDS),
)


def _can_happen(state: House, stimulus: moves.Stimulus) -> bool:
    """Workers end only where one runs, checks only where one is under way, and so on."""
    match stimulus:
        case moves.LeaseTaken():
            return state.lease == moves.ASKED
        case moves.LaunchFailed(job_id, _):
            return job_id in state.jobs and state.jobs[job_id].state in (S.CHECKING, S.RUNNING)
        case moves.WorkerEnded(job_id, _):
            return job_id in state.jobs and state.jobs[job_id].state is S.RUNNING
        case moves.CheckPassed(job_id, _) | moves.CheckEnded(job_id, _):
            return job_id in state.jobs and state.jobs[job_id].state is S.CHECKING
    return True


@settings(max_examples=300, deadline=None)
@given(st.lists(_STIMULI, max_size=40))
def test_whatever_happens_one_job_at_most_is_active_and_no_one_is_forgotten(
    stimuli: list[moves.Stimulus],
) -> None:
    state = House()
    for job_id in (1, 2, 3):
        state, _ = decide(state, moves.Submitted(Job(job_id, position=job_id)))
    for stimulus in stimuli:
        if not _can_happen(state, stimulus):
            continue
        try:
            state, _ = decide(state, stimulus)
        except SafetrainError:
            continue
        active = [j for j in state.jobs.values() if j.state in (S.CHECKING, S.RUNNING)]
        assert len(active) <= 1
        assert bool(active) == (state.lease == moves.HELD)
        startable = [j for j in state.waiting if not j.held]
        if startable and not active:
            assert state.lease == moves.ASKED, "somebody could start and nobody asks"
        assert all(not j.intent for j in state.jobs.values() if j.state in FINAL)
