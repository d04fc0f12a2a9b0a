"""Kills of daemon, worker and keeper: nothing lost, nothing twice, the same result in the end."""

from __future__ import annotations

import json
import random
import signal
import threading
from pathlib import Path

import grpc
import pytest

from safetrain_shared.events import Damaged, Notice, Outcome, StateChanged
from safetrain_shared.history import Progress
from safetrain_shared.jobs import JobState
from safetraind.storage import event_file
from tests.daemon.conftest import MakeSpec
from tests.daemon.fakes import let_go
from tests.harness import DaemonProcess, kill_all, wait_for


def result_of(steps: int) -> list[int]:
    """What an undisturbed training of play ends with."""
    total = 0
    for step in range(1, steps + 1):
        total = (total * 31 + step) % 1_000_003
    return [steps, total]


def read_result(folder: Path) -> list[int]:
    value: list[int] = json.loads((folder / "result.json").read_text())
    return value


class Watcher(threading.Thread):
    """Watches a job to its end through every kill of the daemon, as `safetrain watch` does."""

    def __init__(self, daemon: DaemonProcess, job_id: int) -> None:
        super().__init__(daemon=True)
        self.watermark: list[int] = []
        self.ended = False
        self._daemon, self._job_id = daemon, job_id
        self.start()

    def run(self) -> None:
        while not self.ended:
            try:
                self._watch()
            except (grpc.RpcError, ValueError):  # ValueError: the channel was closed meanwhile
                threading.Event().wait(0.05)

    def _watch(self) -> None:
        after = self.watermark[-1] if self.watermark else 0
        for event in self._daemon.watch(self._job_id, after, follow=True):
            self.watermark.append(event.seq)
            if isinstance(event.body, StateChanged) and event.body.state is JobState.SUCCEEDED:
                self.ended = True


def test_a_training_goes_on_when_the_daemon_is_killed_and_is_adopted_by_the_next(
    playing: DaemonProcess, make_spec: MakeSpec, tmp_path: Path
) -> None:
    job = playing.start().submit(make_spec(name="hold=3", num_epochs=10)).job
    wait_for(lambda: playing.job(job.id).step == 3)
    worker = playing.workers()[0]
    playing.kill()
    assert worker.is_running()
    playing.start()
    assert playing.state(job.id) is JobState.RUNNING
    assert [w.pid for w in playing.workers()] == [worker.pid]
    let_go(tmp_path / "out")
    playing.wait_for_state(job.id, JobState.SUCCEEDED)
    assert playing.job(job.id).attempt == 1
    assert read_result(tmp_path / "out") == result_of(100)


@pytest.mark.parametrize("dies", [False, True])
def test_the_end_of_a_worker_is_known_though_no_daemon_was_there(
    dies: bool, playing: DaemonProcess, make_spec: MakeSpec, tmp_path: Path
) -> None:
    name = "hold=3,die=29,how=11" if dies else "hold=3"
    job = playing.start().submit(make_spec(name=name, save_steps=100)).job
    wait_for(lambda: playing.job(job.id).step == 3)
    playing.kill()
    let_go(tmp_path / "out")
    wait_for(lambda: not playing.keepers() and not playing.workers())
    playing.start()
    if dies:
        events = list(playing.watch(job.id))
        causes = [e.body.cause for e in events if isinstance(e.body, StateChanged) and e.body.cause]
        assert causes[0].code == "job.worker_killed"
        assert causes[0].args["signal"] == signal.SIGSEGV
    else:
        assert playing.state(job.id) is JobState.SUCCEEDED


@pytest.mark.parametrize("victims", ["worker", "keeper", "keeper and worker", "all"])
def test_a_killed_worker_goes_on_from_its_checkpoint_by_itself(
    victims: str, playing: DaemonProcess, make_spec: MakeSpec, tmp_path: Path
) -> None:
    job = playing.start().submit(make_spec(name="hold=7")).job
    wait_for(lambda: playing.job(job.id).step == 7)
    doomed = playing.workers() if "worker" in victims else []
    doomed += playing.keepers() if "keeper" in victims else []
    if victims == "all":
        doomed = playing.processes()
    kill_all(doomed)
    if victims == "all":
        assert playing.process is not None
        playing.process.wait()
        playing.kill()
        playing.start()
    let_go(tmp_path / "out")
    playing.wait_for_state(job.id, JobState.SUCCEEDED)
    assert read_result(tmp_path / "out") == result_of(30)
    events = list(playing.watch(job.id))
    assert [e.seq for e in events] == sorted({e.seq for e in events})
    assert playing.job(job.id).attempt == (1 if victims == "keeper" else 2)


def test_watchers_see_each_event_once_while_the_daemon_is_killed_again_and_again(
    playing: DaemonProcess, make_spec: MakeSpec, tmp_path: Path
) -> None:
    draw = random.Random(5)
    job = playing.start().submit(make_spec(name="pace=0.05,check=0.5", num_epochs=12)).job
    watchers = [Watcher(playing, job.id) for _ in range(10)]
    for _ in range(6):
        threading.Event().wait(draw.uniform(0.0, 1.0))
        playing.kill()
        playing.start()
    playing.wait_for_state(job.id, JobState.SUCCEEDED)
    for watcher in watchers:
        watcher.join(60)
    told = [event.seq for event in playing.watch(job.id)]
    assert told == sorted(set(told))
    assert all(watcher.watermark == told for watcher in watchers)
    assert read_result(tmp_path / "out") == result_of(120)


# Each with what the job, or the one before it in the queue, stands still for.
STAGES = {
    "queued": ("before", "step"),
    "checking": ("out", "check"),
    "loading": ("out", "load"),
    "training": ("out", "step"),
    "saving": ("out", "save"),
    "succeeded": ("out", ""),
}


def stage_of(daemon: DaemonProcess, job_id: int) -> str:
    """Where the job is: what its worker does while it runs, else its state."""
    state = daemon.state(job_id)
    return (state is JobState.RUNNING and daemon.job(job_id).phase) or str(state)


def phase_on_disk(daemon: DaemonProcess, job_id: int) -> str:
    """What the event file told last, while no daemon is there to ask."""
    progress = Progress()
    for read in event_file.read(daemon.home.run(job_id).events):
        progress.take(read.event)
    return progress.phase or str(progress.state)


def test_the_daemon_is_killed_at_every_stage_of_a_jobs_life(
    playing: DaemonProcess, make_spec: MakeSpec, tmp_path: Path
) -> None:
    """Ten watchers see it all once. The job stands still at each stage until the kill is over."""
    playing.start()
    before = playing.submit(make_spec("before", name="hold=1", num_epochs=1)).job.id
    spec = make_spec(name="hold=3,holds=check load save", num_epochs=1)
    job = playing.submit(spec).job.id
    watchers = [Watcher(playing, job) for _ in range(10)]
    for stage, (output, moment) in STAGES.items():
        wait_for(lambda stage=stage: stage_of(playing, job) == stage, what=stage)
        playing.kill()
        assert phase_on_disk(playing, job) == stage
        playing.start()
        let_go(tmp_path / output, moment)
    for watcher in watchers:
        watcher.join(60)
    told = [event.seq for event in playing.watch(job)]
    assert told == sorted(set(told))
    assert all(watcher.watermark == told for watcher in watchers)
    assert playing.job(job).attempt == 1
    assert read_result(tmp_path / "out") == result_of(10)
    assert playing.state(before) is JobState.SUCCEEDED


def test_a_job_that_dies_at_the_same_step_fails_after_three_attempts_and_the_queue_goes_on(
    playing: DaemonProcess, make_spec: MakeSpec
) -> None:
    playing.start()
    bad = playing.submit(make_spec("bad", name="die=3,how=exit")).job
    good = playing.submit(make_spec("good")).job
    playing.wait_for_state(bad.id, JobState.FAILED)
    assert playing.job(bad.id).attempt == 3
    assert playing.job(bad.id).cause.code == "job.gave_up"
    playing.wait_for_state(good.id, JobState.SUCCEEDED)


def test_a_torn_flipped_or_cut_event_file_names_the_damage_and_reuses_no_seq(
    playing: DaemonProcess, make_spec: MakeSpec
) -> None:
    job = playing.start().submit(make_spec(num_epochs=1)).job
    playing.wait_for_state(job.id, JobState.SUCCEEDED)
    before = [event.seq for event in playing.watch(job.id)]
    playing.kill()
    file = playing.home.run(job.id).events
    data = bytearray(file.read_bytes())
    third = data.split(b"\n")[3]  # behind the header
    data[data.index(third) + 20] ^= 1
    file.write_bytes(data[: len(data) // 2])
    playing.start()
    events = list(playing.watch(job.id))
    assert [e.body for e in events if isinstance(e.body, Damaged)]
    kept = [event.seq for event in events if event.seq]
    assert 3 not in kept
    new = [seq for seq in kept if seq > max(before)]
    assert new, "its last state is told again, above all that was seen"
    assert kept == sorted(set(kept))


def test_cancel_and_pause_reach_a_worker_whose_daemon_is_new(
    playing: DaemonProcess, make_spec: MakeSpec, tmp_path: Path
) -> None:
    from safetrain_proto.v1 import jobs_pb2

    job = playing.start().submit(make_spec(name="hold=3", num_epochs=10)).job
    wait_for(lambda: playing.job(job.id).step == 3)
    playing.kill()
    playing.start()
    playing.jobs.Pause(jobs_pb2.JobRequest(id=job.id))
    playing.wait_for_state(job.id, JobState.PAUSED)
    assert not playing.workers()
    playing.jobs.Resume(jobs_pb2.JobRequest(id=job.id))
    playing.wait_for_state(job.id, JobState.SUCCEEDED)
    assert read_result(tmp_path / "out") == result_of(100)


def test_stop_now_ends_the_training_with_a_checkpoint_and_the_next_daemon_goes_on(
    playing: DaemonProcess, make_spec: MakeSpec, tmp_path: Path
) -> None:
    from safetrain_proto.v1 import control_pb2

    job = playing.start().submit(make_spec(name="hold=3", num_epochs=10, save_steps=1000)).job
    wait_for(lambda: playing.job(job.id).step == 3)
    playing.control.Stop(control_pb2.StopRequest(now=True))
    assert playing.process is not None
    assert playing.process.wait(60) == 0
    assert not playing.processes()
    playing.kill()
    playing.start()
    playing.wait_for_state(job.id, JobState.SUCCEEDED)
    events = list(playing.watch(job.id))
    assert [e.body.outcome for e in events if isinstance(e.body, Outcome)] == [
        "paused",
        "succeeded",
    ]
    assert read_result(tmp_path / "out") == result_of(100)


def test_a_probe_ends_with_its_daemon_and_the_job_is_checked_again(
    playing: DaemonProcess, make_spec: MakeSpec, tmp_path: Path
) -> None:
    job = playing.start().submit(make_spec(name="holds=check", num_epochs=1)).job
    wait_for(lambda: playing.workers(), what="the probe runs")
    playing.kill()
    wait_for(lambda: not playing.workers(), what="its keeper ended it")
    playing.start()
    let_go(tmp_path / "out", "check")
    playing.wait_for_state(job.id, JobState.SUCCEEDED)


def test_a_stopped_daemon_does_not_stop_the_training(
    playing: DaemonProcess, make_spec: MakeSpec, tmp_path: Path
) -> None:
    job = playing.start().submit(make_spec(name="hold=3")).job
    wait_for(lambda: playing.job(job.id).step == 3)
    assert playing.process is not None
    playing.process.send_signal(signal.SIGSTOP)
    let_go(tmp_path / "out")
    wait_for(lambda: (tmp_path / "out" / "result.json").exists())
    playing.process.send_signal(signal.SIGCONT)
    playing.wait_for_state(job.id, JobState.SUCCEEDED)


def test_memory_deaths_go_through_the_fallbacks_and_are_told(
    playing: DaemonProcess, make_spec: MakeSpec, tmp_path: Path
) -> None:
    """The keeper's note is replaced by one with an out-of-memory kill, as the kernel's would be."""
    job = playing.start().submit(make_spec(name="hold=7", batch_size=4)).job
    wait_for(lambda: playing.job(job.id).step == 7)
    playing.kill()
    kill_all(playing.keepers())
    kill_all(playing.workers())
    note = {"attempt": 1, "role": "train", "code": 0, "signal": 9, "oom_kills": 1, "footprint": 0}
    playing.home.run(job.id).exit.write_text(json.dumps(note))
    let_go(tmp_path / "out")
    playing.start()
    playing.wait_for_state(job.id, JobState.SUCCEEDED)
    events = list(playing.watch(job.id))
    notices = [e.body.finding.code for e in events if isinstance(e.body, Notice)]
    assert notices == ["backoff.micro_batch"]
    plan = playing.job(job.id).plan.settings
    assert (plan.batch_size, plan.gradient_accumulation) == (2, 2)
