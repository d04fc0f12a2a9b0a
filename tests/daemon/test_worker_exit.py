"""How a worker ended, told by what its keeper noted: a death of memory, or something else."""

from __future__ import annotations

import dataclasses
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from safetrain_shared.events import Notice, StateChanged
from safetrain_shared.history import Progress
from safetrain_shared.jobs import JobState, Plan
from safetrain_shared.paths import RunFolder
from safetrain_shared.settings import TrainingSettings
from safetraind.controller.worker_exit import read_end
from safetraind.host import HostFacts
from safetraind.processes import keeper
from safetraind.processes.supervisor import write_launch
from safetraind.scheduler.state import HELD, Job, SchedulerState
from safetraind.scheduler.state_machine import decide
from safetraind.scheduler.triggers import WorkerEnded
from safetraind.storage import documents
from safetraind.storage.run_folder import KeeperNote
from tests.daemon.conftest import MakeSpec
from tests.daemon.fakes import let_go
from tests.harness import DaemonProcess, kill_all, wait_for

GB = 1 << 30
LINUX = HostFacts("Linux", memory_total=64 * GB, memory_limit=8 * GB)
MAC = HostFacts("Darwin", memory_total=16 * GB)
PLAN = Plan(TrainingSettings(batch_size=4), "/model", memory_budget=6 * GB)
JOB = Job(1, JobState.RUNNING, attempt=2, plan=PLAN)


def cause_of(run: Path, machine: HostFacts, **note: Any) -> str:
    """What the job is told its worker died of; `note` is the keeper's."""
    write_launch(RunFolder(run), "train", 2, 0)
    kept = {"attempt": 2, "code": 0, "signal": 0, "oom_kills": 0, "footprint": 0, "pressure": 1}
    (run / "exit.json").write_text(json.dumps(kept | note))
    end = read_end(RunFolder(run), JOB, Progress(), lambda: machine)
    scheduler, _ = decide(SchedulerState({1: JOB}, HELD), WorkerEnded(1, end))
    assert scheduler.jobs[1].cause is not None
    return scheduler.jobs[1].cause.code


def test_what_its_worker_said_of_the_ladder_is_known_at_a_jobs_end(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    write_launch(run, "train", 2, 0)
    assert read_end(run, JOB, Progress(), lambda: LINUX).ineffective == frozenset()
    run.fallbacks.write_text(json.dumps({"gradient_checkpointing": False, "loss_chunk": True}))
    assert read_end(run, JOB, Progress(), lambda: LINUX).ineffective == {"gradient_checkpointing"}


@pytest.mark.parametrize(
    ("machine", "note", "memory"),
    [
        # A plan fills its budget: a kill then is a kill, as long as the kernel counted none.
        (LINUX, {"signal": 9, "footprint": 6 * GB}, False),
        (LINUX, {"signal": 9, "footprint": 8 * GB}, False),
        (LINUX, {"signal": 9, "footprint": 2 * GB, "oom_kills": 1}, True),
        (LINUX, {"signal": 9, "footprint": 2 * GB, "oom_kills": None}, False),
        (LINUX, {"signal": 9, "footprint": 7 * GB, "oom_kills": None}, True),
        # An allocation that failed is a SIGSEGV: near the group's limit, not near the budget.
        (LINUX, {"signal": 11, "footprint": 7 * GB}, True),
        (LINUX, {"signal": 11, "footprint": 6 * GB}, False),
        (LINUX, {"signal": 11, "footprint": 1 * GB, "peak_resident": 8 * GB}, False),
        (LINUX, {"signal": 15, "footprint": 8 * GB}, False),
        (LINUX, {"code": 1, "footprint": 8 * GB}, False),
        # macOS counts nothing; it kills under pressure. Metal's own errors are aborts.
        (MAC, {"signal": 9, "footprint": 6 * GB, "oom_kills": None}, False),
        (MAC, {"signal": 9, "footprint": 6 * GB, "oom_kills": None, "pressure": 4}, True),
        (MAC, {"signal": 9, "footprint": 14 * GB, "oom_kills": None}, True),
        (MAC, {"signal": 6, "footprint": 5 * GB, "oom_kills": None}, True),
        (MAC, {"signal": 6, "footprint": 2 * GB, "oom_kills": None}, False),
        (MAC, {"signal": 15, "footprint": 5 * GB, "pressure": 4}, False),
    ],
)
def test_a_death_of_memory_is_told_from_a_kill_and_a_crash(
    tmp_path: Path, machine: HostFacts, note: dict[str, Any], memory: bool
) -> None:
    assert (cause_of(tmp_path, machine, **note) == "job.out_of_memory") is memory


def test_a_note_of_an_earlier_attempt_tells_nothing(tmp_path: Path) -> None:
    assert cause_of(tmp_path, LINUX, attempt=1, signal=9, oom_kills=3) == "job.worker_lost"


def test_the_keeper_notes_a_kill_with_no_kill_of_the_kernels(tmp_path: Path) -> None:
    """The real keeper on this machine: SIGKILL by hand moves no counter that can be read."""
    write_launch(RunFolder(tmp_path), "train", 2, 0)
    die = f"import os, signal; os.kill(os.getpid(), {int(signal.SIGKILL)})"
    command = [sys.executable, "-I", "-S", keeper.__file__, str(tmp_path), "train"]
    subprocess.run([*command, sys.executable, "-c", die], check=True)
    note = json.loads((tmp_path / "exit.json").read_text())
    assert (note["attempt"], note["signal"], note["code"]) == (2, 9, 0)
    fields = [field.name for field in dataclasses.fields(KeeperNote)]
    assert sorted(note) == sorted(["format", *fields]), "the keeper knows no definition"
    assert documents.read(tmp_path / "exit.json", KeeperNote) is not None
    counted = Path("/proc/vmstat").exists() and "oom_kill " in Path("/proc/vmstat").read_text()
    assert note["oom_kills"] == (0 if counted else None)


def test_a_count_that_cannot_be_read_is_not_known_unless_the_kernel_killed_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(keeper, "_kills_in_group", lambda: None)
    anywhere: list[int | None] = [5]
    monkeypatch.setattr(keeper, "_kills_anywhere", lambda: anywhere[0])
    kills = keeper._KernelKills()
    assert kills.since_then() == 0
    anywhere[0] = 6
    assert kills.since_then() is None
    anywhere[0] = None
    assert kills.since_then() is None
    assert keeper._KernelKills().since_then() is None


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel counts its kills on Linux alone")
def test_a_training_killed_by_hand_goes_on_with_the_plan_it_had(
    playing: DaemonProcess, make_spec: MakeSpec, tmp_path: Path
) -> None:
    """Its footprint is far above the budget of its plan, and still nothing of the plan changes."""
    job = playing.start().submit(make_spec(name="hold=7,budget=1", batch_size=4)).job
    wait_for(lambda: playing.job(job.id).step == 7)
    kill_all(playing.workers())
    let_go(tmp_path / "out")
    playing.wait_for_state(job.id, JobState.SUCCEEDED)
    bodies = [event.body for event in playing.watch(job.id)]
    assert not [body for body in bodies if isinstance(body, Notice)]
    causes = [body.cause.code for body in bodies if isinstance(body, StateChanged) and body.cause]
    assert causes == ["job.worker_killed"]
    assert playing.job(job.id).plan.settings.batch_size == 4
