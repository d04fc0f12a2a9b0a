"""A kernel panic is found by its report, when it fell into the training's time."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from safetrain_shared.history import Progress
from safetrain_shared.jobs import JobState
from safetrain_shared.paths import RunFolder
from safetraind.controller import worker_exit
from safetraind.host.panics import panic_report
from safetraind.scheduler.state import Job
from tests.preflight.facts import MAC


@pytest.fixture
def reports(tmp_path: Path) -> Path:
    folder = tmp_path / "DiagnosticReports"
    folder.mkdir()
    for name, moment in (
        ("panic-full-2026-11-20-031501.0002.panic", 100.0),
        ("panic-full-2026-11-27-034412.0002.panic", 200.0),
        ("Safari-2026-11-27-040000.ips", 300.0),
    ):
        (folder / name).touch()
        os.utime(folder / name, (moment, moment))
    return folder


def test_the_newest_report_since_the_start_is_found(reports: Path) -> None:
    assert panic_report(150.0, reports).endswith("panic-full-2026-11-27-034412.0002.panic")
    assert panic_report(0.0, reports).endswith("panic-full-2026-11-27-034412.0002.panic")
    assert panic_report(201.0, reports) == ""


def test_where_there_are_no_reports_there_was_no_panic(tmp_path: Path) -> None:
    assert panic_report(0.0, tmp_path / "none") == ""


def test_a_training_that_a_panic_ended_says_so(
    reports: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_exit, "panic_report", lambda since: panic_report(since, reports))
    run = RunFolder(tmp_path / "run")
    run.root.mkdir()
    run.launch.write_text(json.dumps({"attempt": 1, "boot_id": "the boot before"}))
    os.utime(run.launch, (150.0, 150.0))
    job = Job(1, JobState.RUNNING, attempt=1)
    end = worker_exit.read_end(run, job, Progress(), lambda: MAC)
    assert end.machine_restarted
    assert end.panic.endswith("panic-full-2026-11-27-034412.0002.panic")
    os.utime(run.launch, (250.0, 250.0))
    end = worker_exit.read_end(run, job, Progress(), lambda: MAC)
    assert end.machine_restarted and end.panic == ""
