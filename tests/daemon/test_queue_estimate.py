"""When a waiting job starts: who runs before it, how long that takes, and when nobody can say."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from safetrain_proto.v1 import jobs_pb2
from safetrain_shared.history import Progress
from safetrain_shared.jobs import JobState as S
from safetrain_shared.jobs import Plan
from safetrain_shared.settings import TrainingSettings
from safetraind import job_view
from safetraind.scheduler.queue_estimate import run_order
from safetraind.scheduler.state import Job, SchedulerState
from safetraind.storage.job_document import Forecast
from tests.daemon.conftest import MakeSpec
from tests.harness import DaemonProcess


def ahead(jobs: list[Job], job_id: int) -> tuple[list[int], list[int]] | None:
    """The jobs that run before it, and the held ones that may; None: nobody knows its start."""
    order = run_order(SchedulerState({job.id: job for job in jobs}))
    ids = [job.id for job in order.jobs]
    if job_id not in ids:
        return None
    held = [job.id for place, job in order.held if place < order.positions[job_id]]
    return ids[: ids.index(job_id)], held


def test_those_before_it_in_the_queue_run_first() -> None:
    jobs = [Job(1, S.RUNNING), Job(2, position=1), Job(3, position=2), Job(4, S.INTERRUPTED)]
    assert ahead(jobs, 4) == ([1], [])
    assert ahead(jobs, 3) == ([1, 4, 2], [])
    assert ahead([Job(1, S.SUCCEEDED), Job(2)], 2) == ([], [])


def test_a_job_that_waits_for_another_lets_those_behind_it_pass() -> None:
    jobs = [Job(1, S.RUNNING), Job(2, position=1, after=3), Job(3, position=2)]
    assert ahead(jobs, 3) == ([1], [])
    assert ahead(jobs, 2) == ([1, 3], [])
    assert ahead([Job(2, after=9)], 2) == ([], []), "the other is forgotten"


def test_nobody_knows_the_start_of_a_job_that_waits_for_one_paused_or_held() -> None:
    assert ahead([Job(1, S.PAUSED), Job(2, after=1)], 2) is None
    assert ahead([Job(1, S.PAUSED), Job(2, after=1), Job(3, after=2)], 3) is None
    assert ahead([Job(1, S.INTERRUPTED, held=True), Job(2, after=1)], 2) is None
    assert ahead([Job(1, S.INTERRUPTED, held=True)], 1) is None
    assert ahead([Job(1, S.RUNNING, intent="pause"), Job(2, after=1)], 2) is None
    assert ahead([Job(1, S.RUNNING, intent="cancel"), Job(2, after=1)], 2) == ([], [])


def test_one_held_may_come_before_others_in_the_queue() -> None:
    assert ahead([Job(1, S.INTERRUPTED, held=True), Job(2)], 2) == ([], [1])


def test_one_that_rests_goes_on_before_all_others() -> None:
    resting = Job(1, S.INTERRUPTED, held=True, resting=True)
    assert ahead([resting, Job(2)], 2) == ([1], [])
    assert ahead([resting, Job(2, position=1), Job(3, position=2, after=1)], 3) == ([1, 2], [])


def plan(seconds: float = 0.0, speed: float = 0.0) -> Plan:
    return Plan(TrainingSettings(), "/m", expected_seconds=seconds, tokens_per_second=speed)


def estimates(jobs: list[Job], job_id: int, forecasts: dict[int, Forecast]) -> jobs_pb2.Job:
    """The estimates in the message of a job."""
    scheduler = SchedulerState({job.id: job for job in jobs})
    nothing = Forecast()
    records = {
        job.id: SimpleNamespace(document=SimpleNamespace(forecast=forecasts.get(job.id, nothing)))
        for job in jobs
    }
    controller: Any = SimpleNamespace(
        scheduler=scheduler, progress=lambda _: Progress(), record=records.__getitem__
    )
    queue, job = job_view.QueueView(controller), scheduler.jobs[job_id]
    message = jobs_pb2.Job(id=job_id, queue_position=queue.position(job))
    job_view._estimate(queue, job, message)
    return message


def test_the_range_of_a_start_adds_up_what_runs_before() -> None:
    jobs = [Job(1, S.RUNNING, plan=plan(300.0)), Job(2, position=1), Job(3, position=2)]
    told = estimates(jobs, 3, {2: Forecast(plan=plan(100.0)), 3: Forecast(plan=plan(60.0))})
    assert told.start_eta_seconds == pytest.approx(400)
    assert told.start_eta_low_seconds == pytest.approx(200 + 50)
    assert told.start_eta_high_seconds == pytest.approx(400 + 150)
    assert told.eta_seconds == pytest.approx(460)
    assert told.eta_high_seconds == pytest.approx(550 + 90)


def test_a_job_without_a_speed_takes_that_of_the_same_model_and_else_has_no_end() -> None:
    forecasts = {2: Forecast(plan=plan(), tokens=5000.0)}
    known = [Job(1, S.SUCCEEDED, plan=plan(speed=50.0)), Job(2, position=1), Job(3, position=2)]
    assert estimates(known, 3, forecasts).start_eta_seconds == pytest.approx(100)
    unknown = [Job(2, position=1), Job(3, position=2)]
    assert not estimates(unknown, 3, forecasts).HasField("start_eta_seconds")


def test_a_held_job_that_may_come_first_makes_the_start_only_possibly_later() -> None:
    held = Job(1, S.INTERRUPTED, held=True, plan=plan(300.0))
    told = estimates([held, Job(2)], 2, {})
    assert (told.start_eta_seconds, told.start_eta_low_seconds) == (0, 0)
    assert told.start_eta_high_seconds == pytest.approx(400)


def test_a_job_that_rests_delays_those_behind_it_and_is_told_no_start_itself() -> None:
    resting = Job(1, S.INTERRUPTED, held=True, resting=True, plan=plan(300.0))
    told = estimates([resting, Job(2)], 2, {})
    assert told.start_eta_seconds == pytest.approx(300)
    assert told.start_eta_low_seconds == pytest.approx(200)
    assert not estimates([resting, Job(2)], 1, {}).HasField("start_eta_seconds")


def test_the_rests_of_a_training_in_segments_are_in_its_end_and_in_the_starts_behind_it() -> None:
    settings = TrainingSettings(segment_minutes=45.0, rest_minutes=5.0)
    night = Plan(settings, "/m", expected_seconds=3 * 3600.0)
    told = estimates([Job(1, S.CHECKING, plan=night), Job(2)], 2, {})
    assert told.start_eta_seconds == pytest.approx(3 * 3600 + 3 * 300), "three rests in 3 hours"
    assert told.start_eta_low_seconds == pytest.approx(2 * 3600 + 2 * 300)
    assert told.start_eta_high_seconds == pytest.approx(4 * 3600 + 5 * 300)
    waiting = {2: Forecast(plan=night)}
    assert estimates([Job(2)], 2, waiting).eta_seconds == pytest.approx(3 * 3600 + 3 * 300)
    assert night.duration == 3 * 3600 + 3 * 300


@pytest.mark.parametrize("count", [10, 1000])
def test_the_view_of_a_queue_takes_work_that_grows_as_the_queue_does(count: int) -> None:
    """Three looks at the progress of a job at the most, however many there are."""
    looks: list[int] = []

    def progress(job_id: int) -> Progress:
        looks.append(job_id)
        return Progress()

    jobs = [Job(n, position=n, after=n - 1 if n % 3 else 0) for n in range(1, count + 1)]
    jobs[4] = Job(5, S.INTERRUPTED, held=True, plan=plan(60.0))
    known = SimpleNamespace(document=SimpleNamespace(forecast=Forecast(plan=plan(100.0))))
    controller: Any = SimpleNamespace(
        scheduler=SchedulerState({job.id: job for job in jobs}),
        progress=progress,
        record=lambda _: known,
    )
    queue = job_view.QueueView(controller)
    for job in jobs:
        message = jobs_pb2.Job(id=job.id, queue_position=queue.position(job))
        job_view._estimate(queue, job, message)
    assert len(looks) <= 3 * count
    assert message.start_eta_seconds == pytest.approx(100.0 * (message.queue_position - 2), abs=201)


def test_a_job_behind_a_paused_one_shows_no_start(
    playing: DaemonProcess, make_spec: MakeSpec
) -> None:
    playing.start()
    first = playing.submit(make_spec("one", name="pace=0.05,check=60")).job.id
    second = playing.submit(make_spec("two"), after=first).job.id
    playing.wait_for_state(first, S.CHECKING)
    assert playing.job(first).phase == "probing"
    playing.jobs.Pause(jobs_pb2.JobRequest(id=first))
    playing.wait_for_state(first, S.PAUSED)
    waiting = playing.job(second)
    assert (waiting.queue_position, waiting.after) == (1, first)
    assert not waiting.HasField("start_eta_seconds")
    assert not waiting.HasField("eta_seconds")
